"""Converts a record to spans: one trace per request, with tokens, cost and the decision.

The trace has the id that the journal assigned. An MLflow server and a local SQLite store get the same spans.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import structs
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from router.journal.writer import Record
from router.policy.prices import PriceBook
from router.policy.usage import Usage

OPERATIONS = {
    "chat/completions": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "responses": "response",
}
_USAGE_NAMES = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
}
# MLflow computes a price for a span without cost. With NaN, an unknown cost stays unknown.
_UNKNOWN_COST = '{"input_cost": NaN, "output_cost": NaN, "total_cost": NaN}'
MAX_TAG_CHARACTERS = 250


def trace_id(record_trace_id: str) -> str:
    """The id of a trace in MLflow.

    >>> trace_id("0af7651916cd43dd8448eb211c80319c")
    'tr-0af7651916cd43dd8448eb211c80319c'
    """
    return "tr-" + record_trace_id


def spans(record: Record, prices: PriceBook) -> list[Span]:
    """The spans of one record, root first. Attempts that were billed and discarded are its children."""
    attributes = {**_call(record), **_decision(record), **_content(record), **_tags(record)}
    if not record.wasted:
        attributes.update(_billed(record, record.response_model or record.model, record.usage, record.cost_usd, prices))
        return [_span(record, record.span_id, "", _name(record), attributes)]
    # MLflow sums up the leaves: a root with its own tokens would hide those of its children
    root = _span(record, record.span_id, "", _name(record), attributes)
    billed = [*record.wasted, {"model": record.model, "usage": record.usage, "cost_usd": record.cost_usd}]
    return [root, *(_attempt(record, number, attempt, prices) for number, attempt in enumerate(billed))]


def bare(record: Record) -> list[Span]:
    """A minimal span of a record, for a store that rejects the full one."""
    attributes = {
        "router.refused_content": True,
        "gen_ai.operation.name": OPERATIONS.get(record.endpoint, "chat"),
        **_numbers(record.usage),
        "mlflow.llm.cost": _cost(record.cost_usd, None),
    }
    return [_span(record, record.span_id, "", _name(record), attributes)]


def _name(record: Record) -> str:
    return record.endpoint.replace("/", "_") or "request"


def _attempt(record: Record, number: int, attempt: Mapping[str, Any], prices: PriceBook) -> Span:
    model = str(attempt.get("model") or "")
    attributes = _billed(record, model, attempt.get("usage"), attempt.get("cost_usd"), prices)
    attributes["gen_ai.operation.name"] = OPERATIONS.get(record.endpoint, "chat")
    # derived from the number, so that exporting a record again writes the same spans
    span_id = f"{(int(record.span_id, 16) + number + 1) % 2**64 or 1:016x}"
    return _span(record, span_id, record.span_id, f"attempt_{number + 1}", attributes)


def _call(record: Record) -> dict[str, Any]:
    first = record.first_byte_unix_ns
    return {
        "gen_ai.operation.name": OPERATIONS.get(record.endpoint, "chat"),
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": record.model or record.asked_model,
        "gen_ai.response.model": record.response_model or record.model or record.asked_model,
        "gen_ai.response.id": record.request_id,
        "session.id": record.session[:MAX_TAG_CHARACTERS],
        "user.id": record.user[:MAX_TAG_CHARACTERS],
        "router.asked_model": record.asked_model,
        "router.stream": record.stream,
        "router.status": record.status,
        "router.outcome": record.outcome,
        "router.error": record.error,
        "router.attempts": record.attempts,
        "router.upstream": record.upstream,
        "router.client_retries": record.client_retries,
        "router.simulated": record.simulated,
        "router.key_id": record.key_id,
        "router.team": record.team,
        "router.parent_span_id": record.parent_span_id,
        "router.seconds_to_first_byte": None if first is None else (first - record.started_unix_ns) / 1e9,
    }


def _decision(record: Record) -> dict[str, Any]:
    return {
        "router.reason": record.reason,
        "router.target": record.target,
        "router.question_type": record.question_type,
        "router.quality": _json(record.quality),
        "router.expected_cost_usd": _json(record.expected_cost_usd),
        "router.gap": record.gap,
        "router.novelty": record.novelty,
        "router.policy_version": record.policy_version,
        "router.verification": record.verification,
        "router.finding": record.finding,
        "router.escalated_from": record.escalated_from,
    }


def _content(record: Record) -> dict[str, Any]:
    return {
        "mlflow.spanInputs": _json(record.request),
        "mlflow.spanOutputs": _json(record.response),
        "mlflow.message.format": "openai" if record.request is not None else None,
    }


def _tags(record: Record) -> dict[str, Any]:
    """The tags that traces are searched by. Few, because each costs SQLite about 0.8 ms."""
    tags = {
        "router.model": record.model,
        "router.upstream": record.upstream,
        "router.reason": record.reason,
        "router.question_type": record.question_type,
        "router.policy": record.policy_version,
        "router.adapted": record.adapted,
        "router.verification": record.verification,
        "router.finding": record.finding,
        "router.status": str(record.status),
        "router.outcome": record.outcome,
        "router.key": record.key_id,
        "router.team": record.team,
        "router.simulated": "true" if record.simulated else "",
        "router.gap": "" if record.gap is None else f"{record.gap:.4f}",  # traffic is sampled by it
        "mlflow.traceName": _name(record),
    }
    return {f"mlflow.traceTag.{name}": value[:MAX_TAG_CHARACTERS] for name, value in tags.items() if value}


def _billed(
    record: Record, model: str, usage: Mapping[str, int] | None, cost_usd: float | None, prices: PriceBook
) -> dict[str, int | str]:
    attributes: dict[str, int | str] = {"gen_ai.response.model": model} if model else {}
    if usage is not None:
        attributes.update(_numbers(usage))
        attributes["mlflow.llm.cost"] = _cost(cost_usd, _input_cost(record, model, usage, prices))
    return attributes


def _numbers(usage: Mapping[str, int] | None) -> dict[str, int]:
    usage = usage or {}
    known = {name: usage[field] for field, name in _USAGE_NAMES.items() if field in usage}
    return {**known, **{f"router.usage.{field}": count for field, count in usage.items() if field not in _USAGE_NAMES}}


def _input_cost(record: Record, model: str, usage: Mapping[str, int], prices: PriceBook) -> float | None:
    names = Usage.__struct_fields__
    known = Usage(**{name: count for name, count in usage.items() if name in names})
    of_input = structs.replace(known, output_tokens=0, reasoning_tokens=0, audio_output_tokens=0)
    return prices.cost_usd(model, of_input, record.service_tier, record.started_unix_ns)


def _cost(total: float | None, of_input: float | None) -> str:
    if total is None:
        return _UNKNOWN_COST
    of_input = min(of_input or 0.0, total)
    return json.dumps({"input_cost": of_input, "output_cost": total - of_input, "total_cost": total})


def _span(record: Record, span_id: str, parent: str, name: str, attributes: Mapping[str, Any]) -> Span:
    failed = record.outcome != "answered" or record.status >= 400
    code = Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_OK
    return Span(
        trace_id=bytes.fromhex(record.trace_id),
        span_id=bytes.fromhex(span_id),
        parent_span_id=bytes.fromhex(parent),
        name=name,
        start_time_unix_nano=record.started_unix_ns,
        end_time_unix_nano=max(record.ended_unix_ns, record.started_unix_ns),
        attributes=list(_key_values(attributes)),
        status=Status(code=code, message=(record.error or record.outcome) if failed else ""),
        events=[Span.Event(name="first_byte", time_unix_nano=record.first_byte_unix_ns)]
        if record.first_byte_unix_ns
        else [],
        links=_links(record),
    )


def _links(record: Record) -> list[Span.Link]:
    """A link to the span of the caller, if known. It is no parent, because MLflow reads state and tags from a root."""
    if not record.parent_span_id:
        return []
    return [Span.Link(trace_id=bytes.fromhex(record.trace_id), span_id=bytes.fromhex(record.parent_span_id))]


def _key_values(attributes: Mapping[str, Any]) -> Iterator[KeyValue]:
    for key, value in attributes.items():
        if isinstance(value, bool):
            yield KeyValue(key=key, value=AnyValue(bool_value=value))
        elif isinstance(value, int):
            yield KeyValue(key=key, value=AnyValue(int_value=value))
        elif isinstance(value, float):
            yield KeyValue(key=key, value=AnyValue(double_value=value))
        elif value:  # unknown and empty values are omitted
            yield KeyValue(key=key, value=AnyValue(string_value=_clean(value)))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def _json(value: Any) -> str | None:
    return json.dumps(value, ensure_ascii=False) if value else None
