"""Recorded requests that the sentinel looks at: drawn by a hash of their trace alone, so that no answer has a say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from calibration.questions.questions import Question, content_text
from calibration.traffic.traffic import opened_traffic, routed_traces
from router.policy.usage import Usage

NO_ANSWER = "(no answer)"  # what a judge reads where a model said nothing


@dataclass(frozen=True, slots=True)
class Sampled:
    """A routed request, and what became of it; `question` is None where what was said is not recorded as text."""

    trace_id: str
    question_type: str
    model: str  # that answered
    target: float | None
    novelty: float | None
    output_tokens: int | None
    failed: bool
    refused: bool
    question: Question | None
    text: str
    usage: Usage
    cost_usd: float
    started_unix_ns: int
    seconds: float

    @property
    def place(self) -> float:
        """Where it stands among all requests, from 0 to 1."""
        return place(self.trace_id)


def place(trace_id: str) -> float:
    """A number from 0 to 1 that a trace has by chance, and always has.

    >>> place("tr-1") == place("tr-1") != place("tr-2")
    True
    """
    return int.from_bytes(hashlib.sha256(f"sentinel {trace_id}".encode()).digest()[:6]) / 2**48


def sampled(uri: str, policy_version: str, share: float, since: str, known: set[str]) -> Iterator[Sampled]:
    """The sampled requests since then that this policy decided on, but for those of `known` trace ids.

    Raises:
        TrafficError: `since` is no length of time, or nothing was recorded.
    """
    client, experiment_id, from_ms = opened_traffic(since, uri)
    for trace_id in _drawn(client, experiment_id, from_ms, policy_version, share):
        if trace_id not in known:
            yield sample_of(client.get_trace(trace_id))


def _drawn(client: Any, experiment_id: str, from_ms: int, version: str, share: float) -> list[str]:
    routed = routed_traces(client, experiment_id, from_ms, f"tags.`router.policy` = '{version}'")
    return [info.trace_id for info in routed if place(info.trace_id) < share]


def sample_of(trace: Any) -> Sampled:
    """A trace of the router's as a sampled request."""
    span, info = trace.data.spans[0], trace.info
    told = span.attributes
    used, cost = info.token_usage or {}, told.get("mlflow.llm.cost") or {}
    failed = info.tags.get("router.outcome", "answered") == "failed" or int(info.tags.get("router.status", 200)) >= 500
    question_type = info.tags["router.question_type"]
    question = None if failed else _question(info.trace_id, question_type, span.inputs)
    text = _answer(span.outputs)
    usage = Usage(used.get("input_tokens", 0), used.get("output_tokens", 0))
    return Sampled(
        trace_id=info.trace_id,
        question_type=question_type,
        model=info.tags.get("router.model", ""),
        target=_number(told.get("router.target")),
        novelty=_number(told.get("router.novelty")),
        output_tokens=used.get("output_tokens"),
        failed=failed,
        refused=_refused(span.outputs),
        question=question if text is not None else None,
        text=text or NO_ANSWER,
        usage=usage,
        cost_usd=_number(cost.get("total_cost") if isinstance(cost, Mapping) else None) or 0.0,
        started_unix_ns=span.start_time_ns,
        seconds=(span.end_time_ns - span.start_time_ns) / 1e9,
    )


def _question(trace_id: str, question_type: str, request: Any) -> Question | None:
    """A request as a question; None where it is not recorded, or holds more than text."""
    messages = request.get("messages") if isinstance(request, Mapping) else None
    if not isinstance(messages, list) or not messages or messages[-1].get("role") != "user":
        return None
    if not all(map(_is_text, messages)):
        return None
    return Question(f"traffic/{trace_id}", messages, question_type, tools=request.get("tools") or ())


def _is_text(message: Any) -> bool:
    content = message.get("content") if isinstance(message, Mapping) else None
    parts = content if isinstance(content, list) else []
    return isinstance(message, Mapping) and all(isinstance(p, Mapping) and p.get("type") == "text" for p in parts)


def _choice(response: Any) -> Mapping[str, Any]:
    choices = response.get("choices") if isinstance(response, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, Mapping) else {}


def _answer(response: Any) -> str | None:
    """What was answered in words, a refusal too; None where it is not recorded, or calls a tool."""
    message = _choice(response).get("message")
    if not isinstance(message, Mapping) or message.get("tool_calls"):
        return None
    return content_text(message.get("content")) or str(message.get("refusal") or "")


def _refused(response: Any) -> bool:
    choice = _choice(response)
    message = choice.get("message") or {}
    return bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
