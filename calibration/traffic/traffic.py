"""Recorded traffic in MLflow, and its conversion to questions for the next calibration.

An answer that a user liked serves as the expected response, so its question can be judged without further work. Other
questions go to a second file, where somebody adds the expected facts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from calibration.questions.questions import content_text
from calibration.traffic.sampling import Feedback, RecordedRequest

PAGE_SIZE = 500
LIKED = 0.75  # feedback score from which an answer counts as right
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class TrafficError(ValueError):
    """The recorded traffic cannot be read, or a duration is invalid."""


def parse_duration(text: str, option: str = "--since") -> timedelta:
    """Parse a duration such as "7d"; `option` names the option in the error.

    >>> parse_duration("36h")
    datetime.timedelta(days=1, seconds=43200)

    Raises:
        TrafficError: the text is not a positive number followed by m, h, d or w.
    """
    if text[:-1].isdigit() and text[-1:] in UNITS and int(text[:-1]):
        return timedelta(**{UNITS[text[-1]]: int(text[:-1])})
    raise TrafficError(f"{option}: expected a number followed by m, h, d or w, such as 7d; got {text!r}")


def open_traffic(since: str, uri: str, experiment: str = "") -> tuple[Any, str, int]:
    """Find the router's experiment; the default name is MLFLOW_EXPERIMENT_NAME, or "router".

    Returns:
        An `MlflowClient`, the id of the experiment, and the start of the period in milliseconds since 1970.

    Raises:
        TrafficError: `since` is not a duration, or the experiment does not exist.
    """
    from mlflow import MlflowClient

    from_unix_ms = int((time.time() - parse_duration(since).total_seconds()) * 1000)
    client = MlflowClient(uri)
    name = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "router"
    found = client.get_experiment_by_name(name)
    if found is None:
        raise TrafficError(f"MLflow has no experiment {name!r}: no request has been recorded yet")
    return client, found.experiment_id, from_unix_ms


def read_traffic(since: str, uri: str, experiment: str = "") -> tuple[Any, list[RecordedRequest]]:
    """An `MlflowClient`, and the answered requests of the period, newest first.

    Raises:
        TrafficError: as `open_traffic`.
    """
    client, experiment_id, from_unix_ms = open_traffic(since, uri, experiment)
    infos = routed_traces(client, experiment_id, from_unix_ms, "attributes.status = 'OK'")
    return client, [_parse_info(info) for info in infos]


def routed_traces(client: Any, experiment_id: str, from_unix_ms: int, condition: str) -> Iterator[Any]:
    """The trace infos of routed requests that satisfy a filter of MLflow, newest first, read page by page.

    Requests to the simulated upstream are left out.
    """
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment_id],
            filter_string=f"attributes.timestamp_ms > {from_unix_ms} AND {condition}",
            max_results=PAGE_SIZE,
            page_token=token,
            include_spans=False,
        )
        for trace in page:
            if "router.question_type" in trace.info.tags and "router.simulated" not in trace.info.tags:
                yield trace.info
        token = page.token
        if not token:
            return


def _parse_info(info: Any) -> RecordedRequest:
    gap = info.tags.get("router.gap")
    feedback = [
        Feedback(float(assessment.feedback.value), assessment.rationale or "")
        for assessment in info.assessments
        if assessment.name == "user_feedback"
        and isinstance(getattr(assessment, "feedback", None) and assessment.feedback.value, bool | int | float)
    ]
    return RecordedRequest(
        trace_id=info.trace_id,
        question_type=info.tags["router.question_type"],
        reason=info.tags.get("router.reason", ""),
        gap=None if gap is None else float(gap),
        feedback=feedback,
    )


def recorded_bodies(since: str, uri: str, limit: int = 500) -> list[Mapping[str, Any]]:
    """The recorded chat bodies of the newest `limit` routed requests of the period.

    Raises:
        TrafficError: as `open_traffic`.
    """
    client, traffic = read_traffic(since, uri)
    bodies = [client.get_trace(request.trace_id).data.spans[0].inputs for request in traffic[:limit]]
    return [body for body in bodies if isinstance(body, Mapping) and body.get("messages")]


def build_question_row(recorded: RecordedRequest, request: Any, response: Any) -> tuple[dict[str, Any], bool] | None:
    """A row for `questions.py`, and whether it has an expected response; None if the content is not recorded."""
    messages = request.get("messages") if isinstance(request, Mapping) else None
    if not isinstance(messages, list) or not messages or messages[-1].get("role") not in ("user", "tool"):
        return None
    has_system = any(message.get("role") in ("system", "developer") for message in messages)
    row: dict[str, Any] = {"id": recorded.trace_id, "question_type": recorded.question_type, "messages": messages}
    if not has_system:
        row["system"] = ""  # the recorded request had no system prompt, so the default one must not be added
    if request.get("tools"):
        row["tools"] = request["tools"]
    row["source"] = f"traffic, {recorded.reason}"
    best = max(recorded.feedback, key=lambda feedback: feedback.score, default=None)
    if best is None:
        return row, False
    row["note"] = f"a user's score of the answer: {best.score:g}" + (f" ({best.comment})" if best.comment else "")
    answer = answer_text(response)
    if best.score >= LIKED and answer:
        row["expected_response"] = answer
        return row, True
    return row, False


def answer_text(response: Any) -> str:
    """The text of a recorded chat completion; "" if it has none."""
    choices = response.get("choices") if isinstance(response, Mapping) else None
    return content_text(choices[0].get("message", {}).get("content")) if choices else ""


@dataclass(frozen=True, slots=True)
class WriteCounts:
    """How many questions of a sample were written."""

    ready: int  # with an expected response
    to_review: int  # that need expected facts
    repeated: int  # that repeat another request of the sample
    without_content: int  # that were recorded without content


def write_questions(client: Any, sample: Sequence[RecordedRequest], out: Path, review: Path) -> WriteCounts:
    """Write the questions with an expected response to `out`, and those without one to `review`.

    A question that occurs several times is written once. It goes to `out` if a user liked one of its answers.
    """
    ready: dict[str, dict[str, Any]] = {}
    without_response: dict[str, dict[str, Any]] = {}
    without_content = 0
    for recorded in sample:
        root = client.get_trace(recorded.trace_id).data.spans[0]
        built = build_question_row(recorded, root.inputs, root.outputs)
        if built is None:
            without_content += 1
            continue
        row, has_response = built
        key = json.dumps([row["messages"], row.get("tools")], sort_keys=True)
        (ready if has_response else without_response).setdefault(key, row)
    to_review = [row for key, row in without_response.items() if key not in ready]
    _write_lines(out, ready.values())
    _write_lines(review, to_review)
    repeated = len(sample) - without_content - len(ready) - len(to_review)
    return WriteCounts(len(ready), len(to_review), repeated, without_content)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
