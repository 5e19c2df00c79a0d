"""Verify and escalate: a cheaper model's answer is looked at, and a stronger model is asked where it does not hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from router.admission import Reserve
from router.errors import RouterError
from router.journal.writer import Record
from router.planning.plan import Plan, Stream, Surface
from router.policy.decision import Reason
from router.policy.prices import PriceBook
from router.request.held_stream import Held, hold
from router.request.records import Told, billed_attempt
from router.settings import Settings
from router.upstream.replies import Reply
from router.verifying.answer import read_answer
from router.verifying.content import check_content
from router.verifying.expectation import Expectation, read_expectation
from router.verifying.finding import Check, Fault, Finding
from router.verifying.form import check_form
from router.wire import bodies

log = logging.getLogger("router")
THREADS = 2  # that check answers at once, of one worker
CHECK_SECONDS = 5.0  # for the checks of one answer, waiting included; then it is passed on unchecked

Ask = Callable[[Plan], Awaitable[Reply]]


class Collaborators(Protocol):
    """What answers are verified with; `router.app.Router` has it all."""

    settings: Settings
    prices: PriceBook


class Verifier:
    """Checks answers, for one worker."""

    def __init__(self, router: Collaborators, checks: Mapping[str, Sequence[Check]] | None = None) -> None:
        """`checks` are those of each way to verify (`router.client.model_names.VERIFICATIONS`), in their order."""
        self.settings = router.settings
        self.prices = router.prices
        self._checks = checks or {"form": (check_form,), "content": (check_form, check_content)}
        self._threads = asyncio.Semaphore(THREADS)

    async def look(self, verify: str, request: Expectation, body: bytes) -> tuple[bool, Finding | None]:
        """Whether an answer could be checked, and what was found."""
        try:
            async with asyncio.timeout(CHECK_SECONDS), self._threads:
                return await asyncio.to_thread(self._looked, verify, request, body)
        except TimeoutError:
            log.warning("an answer is passed on unchecked: its checks took more than %g s", CHECK_SECONDS)
        except Exception:  # a fault of ours: the answer goes its way
            log.exception("an answer could not be checked")
        return False, None

    def _looked(self, verify: str, request: Expectation, body: bytes) -> tuple[bool, Finding | None]:
        answer = read_answer(request.endpoint, body)
        if answer is None:
            return False, None
        found = (check(request, answer) for check in self._checks[verify])
        return True, next((finding for finding in found if finding is not None), None)


class Verification:
    """The verification of one request. Its state is what the record will say."""

    def __init__(
        self, verifier: Verifier, plan: Plan, surface: Surface, ask: Ask, take: Reserve, now_unix_ns: int
    ) -> None:
        """`ask` sends a plan to its models, `take` holds bytes; attempts are billed by the prices of `now_unix_ns`."""
        self._verifier = verifier
        self._plan = plan
        self._surface = surface
        self._ask = ask
        self._take = take
        self._now_unix_ns = now_unix_ns
        self._released: Expectation | None = None  # of a stream that was passed on before its end
        self._wasted: list[dict[str, Any]] = []  # the answers that are not passed on, as they were billed
        self._asked = ""  # the stronger model, while it is being asked
        self.outcome = ""  # verified, escalated, kept, late or unchecked; "": no stronger model is left to ask
        self.finding: Finding | None = None

    async def answer(self, reply: Reply) -> Reply:
        """The answer that is passed on: `reply`, or that of a stronger model."""
        plan = self._plan
        stronger = [model for model in _after(plan.stronger, reply.model) if model not in reply.failed_models]
        if reply.status != 200 or not stronger:
            return reply
        self.outcome = "unchecked"
        request = read_expectation(self._surface.name, plan.request.fields, plan.features, plan.decision, plan.holds)
        if request is None:
            return reply
        if reply.answer is None:
            checked, self.finding = await self._verifier.look(plan.verify, request, reply.body)
            seen = bodies.read_metadata(reply.body)
            told = Told(seen.model or "", seen.usage, seen.service_tier or "")
        elif _is_stream(reply):
            stream, held = await self._held(reply, request)
            told = Told(stream.model, stream.usage, stream.service_tier)
            checked = await self._look_at(stream, held, request)
        else:  # too large to be read
            return reply
        if self.finding is not None:
            return await self._escalated(reply, told, stronger, self.finding)
        if checked:
            self.outcome = "unchecked" if self._released is not None else "verified"
            reply.verification_headers = ((b"x-router-verified", plan.verify.encode()),)
        return reply

    async def end(self, content: Any) -> None:
        """Check a stream at its end that was passed on after its first tokens."""
        request, self._released = self._released, None
        if request is None or content is None:
            return
        checked, self.finding = await self._verifier.look(self._plan.verify, request, msgspec.json.encode(content))
        if checked:
            self.outcome = "verified" if self.finding is None else "late"

    def add_to(self, record: Record) -> None:
        """Add what became of it to a record."""
        record.verification = self.outcome
        record.finding = "" if self.finding is None else self.finding.fault
        record.wasted += self._wasted
        if self.outcome == "escalated":
            record.escalated_from = self._wasted[0]["model"]
        if self._asked:  # the client left meanwhile
            record.model, record.response_model, record.usage, record.cost_usd = self._asked, "", None, None

    async def _held(self, reply: Reply, request: Expectation) -> tuple[Stream, Held]:
        stream, settings = self._surface.stream(False, None), self._verifier.settings
        idle = settings.timeouts.idle
        return stream, await hold(reply, stream, request, settings.verify_hold_tokens, idle, self._take)

    async def _look_at(self, stream: Stream, held: Held, request: Expectation) -> bool:
        """Check what was held of a stream; whether that was possible, or is left for its end."""
        if held.is_broken:
            self.finding = Finding(Fault.FAILED if stream.error else Fault.INTERRUPTED)
            return True
        if not held.is_whole:
            self._released = request
            return held.is_prose
        content = stream.content()
        if content is None:
            return False
        checked, self.finding = await self._verifier.look(self._plan.verify, request, msgspec.json.encode(content))
        return checked

    async def _escalated(self, reply: Reply, told: Told, stronger: Sequence[str], finding: Finding) -> Reply:
        """The answer of a stronger model; the first one where there is none."""
        if reply.answer is not None:
            reply.answer.close()
        self._wasted = [billed_attempt(reply.model, told, self._verifier.prices, self._now_unix_ns)]
        self._asked, self.outcome = stronger[0], "escalated"
        second = await self._answered(stronger)
        self._asked = ""
        if second is None:
            self.outcome = "kept"
            del self._wasted[0]
            reply.verification_headers = ((b"x-router-finding", finding.fault.encode()),)
            return reply
        second.attempts += reply.attempts
        second.override_reason = Reason.ESCALATED
        second.verification_headers = ((b"x-router-escalated", finding.fault.encode()),)
        return second

    async def _answered(self, models: Sequence[str]) -> Reply | None:
        """The answer of the first of these models that gives one."""
        try:
            reply = await self._ask(replace(self._plan, models=[*models]))
        except RouterError as error:
            log.warning("%s could not answer in the place of a weaker model: %s", models[0], type(error).__name__)
            return None
        if reply.status == 200 and reply.answer is not None and _is_stream(reply):
            request = Expectation(self._surface.name)
            _, held = await self._held(reply, request)
            if held.is_broken:
                reply.answer.close()
                self._wasted.append({"model": reply.model, "usage": None, "cost_usd": None})
                return None
        elif reply.status != 200:
            if reply.answer is not None:
                reply.answer.close()
            return None
        return reply


def _after(models: Sequence[str], model: str) -> Sequence[str]:
    """The models behind one; all where it is not among them."""
    return models[models.index(model) + 1 :] if model in models else models


def _is_stream(reply: Reply) -> bool:
    return (reply.header(b"content-type") or b"").lower().startswith(b"text/event-stream")
