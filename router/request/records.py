"""A finished request as the journal keeps it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

import msgspec

from router.errors import RouterError
from router.journal.redaction import recorded_content, recorded_error, without_keys, without_personal_data
from router.journal.writer import Record
from router.planning.plan import Plan
from router.planning.summary import counts_of
from router.policy.prices import PriceBook
from router.policy.usage import Usage
from router.settings import Content
from router.upstream.replies import Reply
from router.wire.nesting import exceeds_depth

_chance = random.Random()  # noqa: S311  seeded by the system in each process; ids need to differ, not to be secret
_COUNTS = tuple(field.name for field in fields(Usage))
_NAMES = ("asked_model", "model", "response_model", "request_id", "service_tier", "user", "session", "endpoint")
_names = attrgetter(*_NAMES)
MAX_NAME_CHARACTERS = 256
MAX_ERROR_BYTES = 64 * 1024  # of an upstream's error, that are looked at
SCANNED_AT_ONCE = 32 * 1024  # bytes; what is longer is looked through in a thread
MAX_CONTENT_BYTES = 2**20  # of a question or an answer; a longer one is counted and not kept


class Trail:
    """What is known of a request from its beginning: when, by whom, and under which trace."""

    __slots__ = (
        *("answered_unix_ns", "asked_unix_ns", "first_byte_unix_ns", "headers", "key_id", "parent_span_id"),
        *("read_unix_ns", "started_unix_ns", "trace_id"),
    )

    now = staticmethod(time.time_ns)  # nanoseconds since 1970

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self.headers = headers
        self.started_unix_ns = time.time_ns()
        self.first_byte_unix_ns: int | None = None
        # where waiting for the client's body ends, where waiting for the upstream begins and ends
        self.read_unix_ns = self.asked_unix_ns = self.answered_unix_ns = 0
        self.trace_id, self.parent_span_id = _trace(headers.get(b"traceparent"))
        self.key_id = ""

    def belongs_to(self, key_id: str, *, alone: bool) -> None:
        """Know whose request it is. Where there are several keys, none can add to another's trace.

        A trace that a client began then has another id here, which is the same for all requests of that key.
        """
        self.key_id = key_id
        if self.parent_span_id and not alone:
            self.trace_id = hashlib.sha256(f"{self.trace_id} {key_id}".encode()).hexdigest()[:32]

    def added_ns(self) -> int | None:
        """What the router itself took until the first byte: deciding before the upstream, and reading after it."""
        if not self.answered_unix_ns or self.first_byte_unix_ns is None:
            return None
        after = self.first_byte_unix_ns - self.answered_unix_ns
        return max(self.asked_unix_ns - self.read_unix_ns + after, 0)

    def record(self, endpoint: str, status: int, outcome: str, error: str) -> Record:
        """A record of the request, ending now."""
        return Record(
            trace_id=self.trace_id,
            span_id=f"{_chance.getrandbits(64):016x}",
            parent_span_id=self.parent_span_id,
            started_unix_ns=self.started_unix_ns,
            first_byte_unix_ns=self.first_byte_unix_ns,
            ended_unix_ns=time.time_ns(),
            added_ns=self.added_ns(),
            endpoint=endpoint,
            asked_model="",
            status=status,
            outcome=outcome,
            error=error,
            client_retries=_number(self.headers.get(b"x-stainless-retry-count")),
            key_id=self.key_id,
            session=self.headers.get(b"x-session-id", b"")[:200].decode("latin-1"),
        )


def add_all(
    record: Record,
    trail: Trail,
    plan: Plan | None,
    reply: Reply | None,
    unbilled_attempts: Iterable[str],
    told: Told,
    prices: PriceBook,
) -> None:
    """Add all that is known of a routed request but what was said; `unbilled_attempts` is as in `Attempts.ask`."""
    if plan is not None:
        _add_plan(record, plan)
    if reply is not None:
        _add_reply(record, reply)
    elif plan is not None and record.outcome == "abandoned" and trail.asked_unix_ns:
        record.model = plan.models[0]  # it was asked, and may bill what it began
    # what was cut off or given up: what that cost is not known, and is not nothing
    record.wasted = [{"model": model, "usage": None, "cost_usd": None} for model in unbilled_attempts]
    record.response_model = told.model
    if told.usage is not None:
        add_usage(record, prices, told.model, told.usage, told.service_tier)


def _add_plan(record: Record, plan: Plan) -> None:
    """Add what was asked and decided."""
    record.asked_model, record.stream, record.reason = plan.request.name, plan.streamed, plan.reason
    record.user, record.session = plan.user, plan.session
    decision = plan.decision
    if decision is not None and plan.features is not None:
        record.target, record.question_type = decision.target, decision.question_type
        record.quality, record.expected_cost_usd = dict(decision.quality), dict(decision.expected_cost_usd)
        record.gap, record.novelty, record.policy_version = decision.gap, decision.novelty, decision.policy_version
        record.text_tokens, record.read_as = decision.text_tokens, counts_of(plan.features, decision)


def _add_reply(record: Record, reply: Reply) -> None:
    """Add who answered."""
    record.model, record.attempts, record.upstream = reply.model, reply.attempts, reply.endpoint.label
    record.simulated = reply.endpoint.origin is None
    record.request_id = (reply.header(b"x-request-id") or b"").decode("latin-1")
    record.adapted = reply.adapted
    if reply.override_reason is not None:
        record.reason = reply.override_reason


def own_error(error: RouterError, content: Content) -> str:
    """One of our errors as it is recorded: its message may quote what was said."""
    return error.message if content in ("whole", "redacted") else error.body().decode()


async def add_content(record: Record, content: Content, request: bytes, response: Any) -> None:
    """Add what was said. The request is its skeleton: attachments are not kept."""
    if content == "none":
        return
    if response is not None and not isinstance(response, msgspec.Raw):
        response = msgspec.Raw(msgspec.json.encode(response))
    record.request = await _said(content, msgspec.Raw(request))
    if response is not None:
        record.response = await _said(content, response, _answer_kept)


async def _said(
    content: Content, said: msgspec.Raw, keep: Callable[[msgspec.Raw, Content], Any] = recorded_content
) -> Any:
    size = len(memoryview(said))
    if size > MAX_CONTENT_BYTES:
        return None
    if size <= SCANNED_AT_ONCE:
        return keep(said, content)
    return await asyncio.to_thread(keep, said, content)


def _answer_kept(said: msgspec.Raw, content: Content) -> Any:
    """What is kept of an answer; nothing of one that nests more deeply than every reader of the journal could take."""
    return None if exceeds_depth(bytes(said)) else recorded_content(said, content)


def tidy(record: Record, content: Content) -> None:
    """Cut what others named, and take out of it what is not to be kept: keys always, personal data but for `whole`."""
    if record.error and record.outcome == "failed":
        record.error = recorded_error(record.error, content)
    clean = without_keys if content == "whole" else without_personal_data
    names = "\n".join(_names(record))
    if len(names) > MAX_NAME_CHARACTERS or clean(names) != names:
        for name in _NAMES:
            setattr(record, name, clean(getattr(record, name))[:MAX_NAME_CHARACTERS])
    for attempt in record.wasted:
        attempt["model"] = clean(attempt["model"])[:MAX_NAME_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer told of itself."""

    model: str = ""
    usage: dict[str, Any] | None = None
    service_tier: str = ""
    response: Any = None  # what was said


NOTHING_TOLD = Told()


def add_usage(record: Record, prices: PriceBook, model: str, usage: dict[str, Any], tier: str | None = None) -> None:
    """Add what was billed: at the price of the model that says it answered, else of the one that was asked."""
    if not Usage.is_told(usage):
        return  # what it cost is not known, and is not nothing
    billed = Usage.from_openai(usage)
    record.usage = {name: getattr(billed, name) for name in _COUNTS}
    record.service_tier = tier or ""
    tier, day = record.service_tier, record.started_unix_ns  # a request is priced by its own day
    cost = prices.cost_usd(record.model, billed, tier, day)
    record.cost_usd = prices.cost_usd(model, billed, tier, day) if cost is None else cost


def billed_attempt(model: str, told: Told, prices: PriceBook, unix_ns: int) -> dict[str, Any]:
    """An answer of `model` that is not passed on, as records have attempts; null where it is not known what it cost."""
    usage = cost = None
    if told.usage is not None and Usage.is_told(told.usage):
        billed, tier = Usage.from_openai(told.usage), told.service_tier
        usage = {name: getattr(billed, name) for name in _COUNTS}
        cost = prices.cost_usd(model, billed, tier, unix_ns)
        cost = prices.cost_usd(told.model, billed, tier, unix_ns) if cost is None else cost
    return {"model": model, "usage": usage, "cost_usd": cost}


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() and len(value) < 4 else 0


def _trace(traceparent: bytes | None) -> tuple[str, str]:
    """Trace id and parent span of a W3C `traceparent`; a new trace where there is none."""
    parts = traceparent.split(b"-") if traceparent else []
    if len(parts) >= 4 and len(parts[1]) == 32 and len(parts[2]) == 16:
        trace, parent = parts[1].decode("latin-1"), parts[2].decode("latin-1")
        if trace.strip("0") and parent.strip("0") and all(c in "0123456789abcdef" for c in trace + parent):
            return trace, parent
    return f"{_chance.getrandbits(128):032x}", ""
