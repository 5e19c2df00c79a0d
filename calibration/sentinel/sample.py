"""A random sample of recorded requests. A hash of the trace id selects a request, independent of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from calibration.questions.questions import Question, content_text
from calibration.traffic.traffic import open_traffic, routed_traces
from router.policy.usage import Usage

EMPTY_ANSWER = "(no answer)"  # text that the judge reads for an empty answer


@dataclass(frozen=True, slots=True)
class SampledRequest:
    """A routed request and its answer; `question` is None unless both are recorded as text."""

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
    def sampling_number(self) -> float:
        return sampling_number(self.trace_id)


def sampling_number(trace_id: str) -> float:
    """A pseudo-random number in [0, 1), computed from a hash of the trace id. A share samples the numbers below it.

    >>> sampling_number("tr-1") == sampling_number("tr-1") != sampling_number("tr-2")
    True
    """
    return int.from_bytes(hashlib.sha256(f"sentinel {trace_id}".encode()).digest()[:6]) / 2**48


def sample_requests(
    uri: str, policy_version: str, share: float, since: str, exclude: set[str]
) -> Iterator[SampledRequest]:
    """Sample the requests of the period `since`, such as "2d", that this policy routed.

    Args:
        uri: of MLflow's tracking store.
        share: of the routed requests, in [0, 1].
        exclude: trace ids to leave out.

    Raises:
        TrafficError: `since` is not a duration, or MLflow has no recorded requests.
    """
    client, experiment_id, from_unix_ms = open_traffic(since, uri)
    condition = f"tags.`router.policy` = '{policy_version}'"
    for info in list(routed_traces(client, experiment_id, from_unix_ms, condition)):
        if sampling_number(info.trace_id) < share and info.trace_id not in exclude:
            yield parse_trace(client.get_trace(info.trace_id))


def parse_trace(trace: Any) -> SampledRequest:
    """Read a sampled request from a trace of the router."""
    span, info = trace.data.spans[0], trace.info
    tokens, cost = info.token_usage or {}, span.attributes.get("mlflow.llm.cost") or {}
    failed = info.tags.get("router.outcome", "answered") == "failed" or int(info.tags.get("router.status", 200)) >= 500
    question_type = info.tags["router.question_type"]
    question = None if failed else _parse_question(info.trace_id, question_type, span.inputs)
    text = _parse_answer(span.outputs)
    return SampledRequest(
        trace_id=info.trace_id,
        question_type=question_type,
        model=info.tags.get("router.model", ""),
        target=_parse_number(span.attributes.get("router.target")),
        novelty=_parse_number(span.attributes.get("router.novelty")),
        output_tokens=tokens.get("output_tokens"),
        failed=failed,
        refused=_is_refusal(span.outputs),
        question=question if text is not None else None,
        text=text or EMPTY_ANSWER,
        usage=Usage(tokens.get("input_tokens", 0), tokens.get("output_tokens", 0)),
        cost_usd=_parse_number(cost.get("total_cost") if isinstance(cost, Mapping) else None) or 0.0,
        started_unix_ns=span.start_time_ns,
        seconds=(span.end_time_ns - span.start_time_ns) / 1e9,
    )


def _parse_question(trace_id: str, question_type: str, request: Any) -> Question | None:
    """The request as a question; None if its content is not recorded or contains more than text."""
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


def _first_choice(response: Any) -> Mapping[str, Any]:
    choices = response.get("choices") if isinstance(response, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else {}
    return choice if isinstance(choice, Mapping) else {}


def _parse_answer(response: Any) -> str | None:
    """The text of an answer or refusal; None if the answer is not recorded or calls a tool."""
    message = _first_choice(response).get("message")
    if not isinstance(message, Mapping) or message.get("tool_calls"):
        return None
    return content_text(message.get("content")) or str(message.get("refusal") or "")


def _is_refusal(response: Any) -> bool:
    choice = _first_choice(response)
    message = choice.get("message") or {}
    return bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"


def _parse_number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
