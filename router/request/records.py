"""The details of a finished request in its journal record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec

from router.errors import RouterError
from router.journal.redaction import recorded_content, recorded_error, without_keys, without_personal_data
from router.journal.writer import Record
from router.planning.plan import Plan
from router.planning.summary import request_counts
from router.policy.prices import PriceBook
from router.policy.usage import Usage
from router.request.timeline import RequestTimeline
from router.settings import Content
from router.upstream.replies import Reply
from router.wire.nesting import exceeds_depth

_TOKEN_COUNTS = Usage.__struct_fields__
_NAME_FIELDS = ("asked_model", "model", "response_model", "request_id", "service_tier", "user", "session", "endpoint")
_names_of = attrgetter(*_NAME_FIELDS)
MAX_NAME_CHARACTERS = 256
MAX_ERROR_BYTES = 64 * 1024  # of an upstream's error body
MAX_INLINE_SCAN_BYTES = 32 * 1024  # larger content is redacted in a thread
MAX_CONTENT_BYTES = 2**20  # larger requests and responses are not recorded


@dataclass(frozen=True, slots=True)
class ResponseSummary:
    """What the record needs of a response."""

    model: str = ""
    usage: dict[str, Any] | None = None
    service_tier: str = ""
    response: Any = None  # the content


EMPTY_SUMMARY = ResponseSummary()


def add_details(
    record: Record,
    timeline: RequestTimeline,
    plan: Plan | None,
    reply: Reply | None,
    unbilled_attempts: Iterable[str],
    summary: ResponseSummary,
    prices: PriceBook,
) -> None:
    """Add all details of a routed request except its content. `unbilled_attempts` is as in `Attempts.send`."""
    if plan is not None:
        _add_plan(record, plan)
    if reply is not None:
        _add_reply(record, reply)
    elif plan is not None and record.outcome == "abandoned" and timeline.sent_unix_ns:
        record.model = plan.models[0]  # the upstream received the request and may bill it
    record.wasted = [{"model": model, "usage": None, "cost_usd": None} for model in unbilled_attempts]
    record.response_model = summary.model
    if summary.usage is not None:
        add_usage(record, prices, summary.model, summary.usage, summary.service_tier)


def _add_plan(record: Record, plan: Plan) -> None:
    record.asked_model, record.stream, record.reason = plan.request.name, plan.streamed, plan.reason
    record.user, record.session = plan.user, plan.session
    decision = plan.decision
    if decision is not None and plan.features is not None:
        record.target, record.question_type = decision.target, decision.question_type
        record.quality, record.expected_cost_usd = dict(decision.quality), dict(decision.expected_cost_usd)
        record.gap, record.novelty, record.policy_version = decision.gap, decision.novelty, decision.policy_version
        record.text_tokens, record.read_as = decision.text_tokens, request_counts(plan.features, decision)


def _add_reply(record: Record, reply: Reply) -> None:
    record.model, record.attempts, record.upstream = reply.model, reply.attempts, reply.endpoint.label
    record.simulated = reply.endpoint.origin is None
    record.request_id = (reply.header(b"x-request-id") or b"").decode("latin-1")
    record.adapted = reply.adapted
    if reply.override_reason is not None:
        record.reason = reply.override_reason


def error_text(error: RouterError, content: Content) -> str:
    """The text of the router's own error for the record. Without recorded content, it is redacted later as JSON."""
    return error.message if content in ("whole", "redacted") else error.body().decode()


async def add_content(record: Record, content: Content, request: bytes, response: Any) -> None:
    """Add the content of the request and the response. `request` is the skeleton, so attachments are not recorded."""
    if content == "none":
        return
    if response is not None and not isinstance(response, msgspec.Raw):
        response = msgspec.Raw(msgspec.json.encode(response))
    record.request = await _recordable(content, msgspec.Raw(request))
    if response is not None:
        record.response = await _recordable(content, response, _recordable_response)


async def _recordable(
    content: Content, raw: msgspec.Raw, redact: Callable[[msgspec.Raw, Content], Any] = recorded_content
) -> Any:
    size = len(memoryview(raw))
    if size > MAX_CONTENT_BYTES:
        return None
    if size <= MAX_INLINE_SCAN_BYTES:
        return redact(raw, content)
    return await asyncio.to_thread(redact, raw, content)


def _recordable_response(raw: msgspec.Raw, content: Content) -> Any:
    """The recorded part of a response; None if it is nested too deeply for readers of the journal."""
    return None if exceeds_depth(bytes(raw)) else recorded_content(raw, content)


def redact_names(record: Record, content: Content) -> None:
    """Truncate names that come from outside, and redact them and the error.

    Keys are always redacted, personal data unless `content` is "whole".
    """
    if record.error and record.outcome == "failed":
        record.error = recorded_error(record.error, content)
    clean = without_keys if content == "whole" else without_personal_data
    names = "\n".join(_names_of(record))
    if len(names) > MAX_NAME_CHARACTERS or clean(names) != names:
        for field in _NAME_FIELDS:
            setattr(record, field, clean(getattr(record, field))[:MAX_NAME_CHARACTERS])
    for attempt in record.wasted:
        attempt["model"] = clean(attempt["model"])[:MAX_NAME_CHARACTERS]


def add_usage(record: Record, prices: PriceBook, model: str, usage: dict[str, Any], tier: str | None = None) -> None:
    """Add tokens and cost, at the price of `record.model` or else of `model`, which the response names.

    The cost stays unknown if the usage is incomplete.
    """
    if not Usage.has_totals(usage):
        return
    billed = Usage.from_openai(usage)
    record.usage = {name: getattr(billed, name) for name in _TOKEN_COUNTS}
    record.service_tier = tier or ""
    tier, day = record.service_tier, record.started_unix_ns  # prices can change from day to day
    cost = prices.cost_usd(record.model, billed, tier, day)
    record.cost_usd = prices.cost_usd(model, billed, tier, day) if cost is None else cost


def billed_attempt(model: str, summary: ResponseSummary, prices: PriceBook, unix_ns: int) -> dict[str, Any]:
    """An answer of `model` that is discarded, as an entry of `Record.wasted`. Unknown values are None."""
    usage = cost = None
    if summary.usage is not None and Usage.has_totals(summary.usage):
        billed, tier = Usage.from_openai(summary.usage), summary.service_tier
        usage = {name: getattr(billed, name) for name in _TOKEN_COUNTS}
        cost = prices.cost_usd(model, billed, tier, unix_ns)
        cost = prices.cost_usd(summary.model, billed, tier, unix_ns) if cost is None else cost
    return {"model": model, "usage": usage, "cost_usd": cost}
