"""Requests of the traffic with the answers that they got: what the models that follow are compared with.

Nobody said what a right answer is, so these answers are judged by completeness alone, and never mixed with others.
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
from calibration.traffic.sampling import sample
from calibration.traffic.traffic import answer_in, recorded_since
from router.policy.usage import Usage

ANSWERED = "as answered"  # in the place of a model: whichever answered a request of the traffic


@dataclass(frozen=True, slots=True)
class Sampled:
    """A request of the traffic as a question, and the answer that it got."""

    question: Question
    text: str
    usage: Usage
    cost_usd: float
    started_unix_ns: int
    seconds: float


def sampled(since: str, uri: str, size: int, seed: int) -> list[Sampled]:
    """Up to `size` routed requests since then that were answered in words, those first whose outcome is least sure.

    Raises:
        TrafficError: `since` is no length of time, or nothing was recorded.
    """
    client, asked = recorded_since(since, uri)
    found: dict[str, Sampled] = {}
    for each in sample(asked, size, random.Random(seed)):  # noqa: S311  chance, not a secret
        made = _sampled(client.get_trace(each.trace_id), each.question_type)
        if made is not None:
            found.setdefault(json.dumps([made.question.messages, made.question.tools], sort_keys=True), made)
    return list(found.values())


def _sampled(trace: Any, question_type: str) -> Sampled | None:
    """A trace of the router's; None where what was said is not recorded, or the answer is no text."""
    span = trace.data.spans[0]
    request, text = span.inputs, answer_in(span.outputs)
    messages = request.get("messages") if isinstance(request, Mapping) else None
    if not text or not isinstance(messages, list) or not messages or messages[-1].get("role") != "user":
        return None
    used, cost = trace.info.token_usage or {}, span.attributes.get("mlflow.llm.cost") or {}
    return Sampled(
        Question(f"traffic/{trace.info.trace_id}", messages, question_type, tools=request.get("tools") or ()),
        text,
        Usage(used.get("input_tokens", 0), used.get("output_tokens", 0)),
        float(cost.get("total_cost") or 0.0) if isinstance(cost, Mapping) else 0.0,
        span.start_time_ns,
        (span.end_time_ns - span.start_time_ns) / 1e9,
    )


def keep(samples: Sequence[Sampled], endpoint: Endpoint, answers: Ledger) -> None:
    """Keep the answers of the traffic as if a model of that name had been asked."""
    for each in samples:
        key = answer_key(build_body(each.question, ANSWERED, endpoint), endpoint)
        if answers.get(key) is None:
            answer = Answer(
                key,
                each.question.id,
                ANSWERED,
                each.text,
                each.usage,
                each.cost_usd,
                "stop",
                each.started_unix_ns,
                each.seconds,
            )
            answers.add(key, answer.row())
