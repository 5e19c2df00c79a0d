"""Verification and escalation: a cheaper model's answer is checked, and a stronger model is tried if it fails."""

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
from router.planning.plan import ApiFormat, Plan, Stream
from router.policy.logprobs import Token
from router.policy.prices import PriceBook
from router.policy.reasons import Reason
from router.request.held_stream import HeldStream, LogprobsAnswer, hold_stream
from router.request.records import ResponseSummary, billed_attempt
from router.settings import Settings
from router.upstream.calls import CutError, StallError
from router.upstream.replies import Reply
from router.verifying.answer import read_answer
from router.verifying.content import check_content
from router.verifying.expectation import Expectation, read_expectation
from router.verifying.finding import Check, Fault, Finding
from router.verifying.form import check_form
from router.wire import bodies
from router.wire.logprobs import LogprobsReader

log = logging.getLogger("router")
THREADS = 2  # concurrent checks per worker
CHECK_SECONDS = 5.0  # timeout for the checks of one answer, including the wait for a thread

SendPlan = Callable[[Plan], Awaitable[Reply]]


class Collaborators(Protocol):
    """The parts of a worker that verification needs."""

    settings: Settings
    prices: PriceBook


class Verifier:
    """Checks answers, for one worker."""

    def __init__(self, worker: Collaborators, checks: Mapping[str, Sequence[Check]] | None = None) -> None:
        """`checks` are the checks of each verification (`router.client.model_names.VERIFICATIONS`), in order."""
        self.settings = worker.settings
        self.prices = worker.prices
        self._checks = checks or {"form": (check_form,), "content": (check_form, check_content)}
        self._threads = asyncio.Semaphore(THREADS)

    async def check(self, verify: str, expectation: Expectation, body: bytes) -> tuple[bool, Finding | None]:
        """Whether the answer could be checked, and the first fault that was found."""
        try:
            async with asyncio.timeout(CHECK_SECONDS), self._threads:
                return await asyncio.to_thread(self._check, verify, expectation, body)
        except TimeoutError:
            log.warning("an answer was not checked: the checks took longer than %g s", CHECK_SECONDS)
        except Exception:  # a bug in a check does not cost the client the answer
            log.exception("an answer could not be checked")
        return False, None

    def _check(self, verify: str, expectation: Expectation, body: bytes) -> tuple[bool, Finding | None]:
        answer = read_answer(expectation.endpoint, body)
        if answer is None:
            return False, None
        findings = (check(expectation, answer) for check in self._checks[verify])
        return True, next((finding for finding in findings if finding is not None), None)


class Verification:
    """The verification of one request, and its result for the record."""

    def __init__(
        self, verifier: Verifier, plan: Plan, surface: ApiFormat, send: SendPlan, reserve: Reserve, now_unix_ns: int
    ) -> None:
        """`send` sends a plan to its models, `reserve` reserves memory. Prices are those of `now_unix_ns`."""
        self._verifier = verifier
        self._plan = plan
        self._surface = surface
        self._send = send
        self._reserve = reserve
        self._now_unix_ns = now_unix_ns
        self._unchecked: Expectation | None = None  # of a stream that is forwarded before its end
        self._wasted: list[dict[str, Any]] = []  # discarded answers, with their cost
        self._pending_model = ""  # the stronger model, while its answer is awaited
        self.outcome = ""  # verified, escalated, kept, late or unchecked; "" if there is no stronger model
        self.finding: Finding | None = None

    async def verified_reply(self, reply: Reply) -> Reply:
        """The reply for the client: `reply` itself, or that of a stronger model."""
        plan = self._plan
        tokens = await self._read_logprobs(reply) if plan.logprobs.is_available else None
        stronger = [
            model for model in _models_after(plan.stronger_models, reply.model) if model not in reply.failed_models
        ]
        if reply.status != 200 or not stronger:
            return reply
        self.outcome = "unchecked"
        expected = read_expectation(
            self._surface.name, plan.request.fields, plan.features, plan.decision, plan.accepts_answer
        )
        if expected is None:
            return reply
        if tokens is not None:
            expected = replace(expected, tokens=tokens)
        if reply.answer is None:
            is_checked, self.finding = await self._verifier.check(plan.verify, expected, reply.body)
            metadata = bodies.read_metadata(reply.body)
            summary = ResponseSummary(metadata.model or "", metadata.usage, metadata.service_tier or "")
        elif _is_stream(reply):
            stream, held = await self._hold(reply, expected)
            summary = ResponseSummary(stream.model, stream.usage, stream.service_tier)
            is_checked = await self._check_held(stream, held, expected)
        else:  # too large
            return reply
        if self.finding is not None:
            return await self._escalate(reply, summary, stronger, self.finding)
        if is_checked:
            self.outcome = "unchecked" if self._unchecked is not None else "verified"
            reply.verification_headers = ((b"x-router-verified", plan.verify.encode()),)
        return reply

    async def _read_logprobs(self, reply: Reply) -> Callable[[int], Sequence[Token]] | None:
        """Read the log probabilities of an answer, and remove them if the client did not request them."""
        if reply.status != 200 or reply.model != self._plan.models[0]:
            return None
        reader = LogprobsReader(self._surface.name, removes=self._plan.logprobs.change is not None)
        if reply.answer is None:
            reply.body = reader.read_whole(reply.body)
        elif _is_stream(reply):
            reply.answer = LogprobsAnswer(reply.answer, reply.body, reader)
            try:
                reply.body = await reply.answer.read(self._verifier.settings.timeouts.idle)
            except (CutError, StallError):
                reply.body = b""  # the stream was interrupted before its first event
        return reader.tokens

    async def check_end(self, content: Any) -> None:
        """Check the complete `content` of a stream that was forwarded before its end."""
        expected, self._unchecked = self._unchecked, None
        if expected is None or content is None:
            return
        body = msgspec.json.encode(content)
        is_checked, self.finding = await self._verifier.check(self._plan.verify, expected, body)
        if is_checked:
            self.outcome = "verified" if self.finding is None else "late"

    def add_to(self, record: Record) -> None:
        """Add the result to a record."""
        record.verification = self.outcome
        record.finding = "" if self.finding is None else self.finding.fault
        record.wasted += self._wasted
        if self.outcome == "escalated":
            record.escalated_from = self._wasted[0]["model"]
        if self._pending_model:  # the client disconnected before the stronger model answered
            record.model, record.response_model, record.usage, record.cost_usd = self._pending_model, "", None, None

    async def _hold(self, reply: Reply, expectation: Expectation) -> tuple[Stream, HeldStream]:
        stream, settings = self._surface.stream(False, None), self._verifier.settings
        idle = settings.timeouts.idle
        return stream, await hold_stream(reply, stream, expectation, settings.verify_hold_tokens, idle, self._reserve)

    async def _check_held(self, stream: Stream, held: HeldStream, expected: Expectation) -> bool:
        """Check a stream that was held back. Whether it was checked, or is prose that is checked at its end."""
        if held.is_broken:
            self.finding = Finding(Fault.FAILED if stream.error else Fault.INTERRUPTED)
            return True
        if not held.is_whole:
            self._unchecked = expected
            return held.is_prose
        content = stream.content()
        if content is None:
            return False
        body = msgspec.json.encode(content)
        is_checked, self.finding = await self._verifier.check(self._plan.verify, expected, body)
        return is_checked

    async def _escalate(
        self, reply: Reply, summary: ResponseSummary, stronger: Sequence[str], finding: Finding
    ) -> Reply:
        """The reply of a stronger model, or `reply` if none answers."""
        if reply.answer is not None:
            reply.answer.close()
        self._wasted = [billed_attempt(reply.model, summary, self._verifier.prices, self._now_unix_ns)]
        self._pending_model, self.outcome = stronger[0], "escalated"
        second = await self._send_to(stronger)
        self._pending_model = ""
        if second is None:
            self.outcome = "kept"
            del self._wasted[0]
            reply.verification_headers = ((b"x-router-finding", finding.fault.encode()),)
            return reply
        second.attempts += reply.attempts
        second.override_reason = Reason.ESCALATED
        second.verification_headers = ((b"x-router-escalated", finding.fault.encode()),)
        return second

    async def _send_to(self, models: Sequence[str]) -> Reply | None:
        """The answer of the first of these models that answers without an error."""
        try:
            reply = await self._send(replace(self._plan, models=[*models]))
        except RouterError as error:
            log.warning("escalation to %s failed: %s", models[0], type(error).__name__)
            return None
        if reply.status == 200 and reply.answer is not None and _is_stream(reply):
            _, held = await self._hold(reply, Expectation(self._surface.name))
            if held.is_broken:
                reply.answer.close()
                self._wasted.append({"model": reply.model, "usage": None, "cost_usd": None})
                return None
        elif reply.status != 200:
            if reply.answer is not None:
                reply.answer.close()
            return None
        return reply


def _models_after(models: Sequence[str], model: str) -> Sequence[str]:
    """The models behind `model`; all of them if it is not in the list."""
    return models[models.index(model) + 1 :] if model in models else models


def _is_stream(reply: Reply) -> bool:
    return (reply.header(b"content-type") or b"").lower().startswith(b"text/event-stream")
