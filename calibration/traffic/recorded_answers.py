"""Recorded requests with their recorded answers, which `retire` compares with the answers of the new models.

Traffic has no reference answers, so these answers are judged by completeness alone and are reported separately.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibration.answers.answers import Answer, Endpoint, answer_key, build_body
from calibration.ledger import Ledger
from calibration.questions.questions import Question
from calibration.traffic.sampling import sample_traffic
from calibration.traffic.traffic import answer_text, read_traffic
from router.policy.usage import Usage

RECORDED = "as answered"  # stands in MLflow and in reports for the model that gave the recorded answer


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """A recorded request as a question, with its answer."""

    question: Question
    text: str
    usage: Usage
    cost_usd: float
    started_unix_ns: int
    seconds: float


def sample_recorded_answers(since: str, uri: str, size: int, seed: int) -> list[RecordedAnswer]:
    """Sample up to `size` different routed requests of the period `since` that have a text answer.

    Raises:
        TrafficError: `since` is not a duration, or MLflow has no recorded requests.
    """
    client, traffic = read_traffic(since, uri)
    answers: dict[str, RecordedAnswer] = {}
    for request in sample_traffic(traffic, size, random.Random(seed)):  # noqa: S311  not a secret
        answer = _parse_trace(client.get_trace(request.trace_id), request.question_type)
        if answer is not None:
            answers.setdefault(json.dumps([answer.question.messages, answer.question.tools], sort_keys=True), answer)
    return list(answers.values())


def _parse_trace(trace: Any, question_type: str) -> RecordedAnswer | None:
    """A trace of the router; None if its content is not recorded or its answer has no text."""
    span = trace.data.spans[0]
    request, text = span.inputs, answer_text(span.outputs)
    messages = request.get("messages") if isinstance(request, Mapping) else None
    if not text or not isinstance(messages, list) or not messages or messages[-1].get("role") != "user":
        return None
    tokens, cost = trace.info.token_usage or {}, span.attributes.get("mlflow.llm.cost") or {}
    return RecordedAnswer(
        Question(f"traffic/{trace.info.trace_id}", messages, question_type, tools=request.get("tools") or ()),
        text,
        Usage(tokens.get("input_tokens", 0), tokens.get("output_tokens", 0)),
        float(cost.get("total_cost") or 0.0) if isinstance(cost, Mapping) else 0.0,
        span.start_time_ns,
        (span.end_time_ns - span.start_time_ns) / 1e9,
    )


def store_recorded_answers(samples: Sequence[RecordedAnswer], endpoint: Endpoint, answers: Ledger) -> None:
    """Store the answers in the ledger as answers of a model named `RECORDED`."""
    for sample in samples:
        key = answer_key(build_body(sample.question, RECORDED, endpoint), endpoint)
        if answers.get(key) is None:
            answer = Answer(
                *(key, sample.question.id, RECORDED, sample.text, sample.usage, sample.cost_usd, "stop"),
                *(sample.started_unix_ns, sample.seconds),
            )
            answers.add(key, answer.row())
