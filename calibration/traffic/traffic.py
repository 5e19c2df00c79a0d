"""Traffic becomes questions: a sample of what users really asked, for the next calibration.

An answer that a user liked says what a right answer agrees with, so such a question can be judged at once. All others
go to a second file, where somebody has to add the facts that a right answer holds.
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
from calibration.traffic.sampling import Asked, Opinion

PAGE = 500
LIKED = 0.75  # a score from here on says that the answer was right
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class TrafficError(ValueError):
    """What is asked of the traffic cannot be given; says why."""


def read_since(text: str) -> timedelta:
    """How far back, as `7d`.

    >>> read_since("36h")
    datetime.timedelta(days=1, seconds=43200)

    Raises:
        TrafficError: it is no such length of time.
    """
    if text[:-1].isdigit() and text[-1:] in UNITS and int(text[:-1]):
        return timedelta(**{UNITS[text[-1]]: int(text[:-1])})
    raise TrafficError(f"--since: expected a number with m, h, d or w, like 7d; got {text!r}")


def asked_since(client: Any, experiment_id: str, from_unix_ms: int) -> Iterator[Asked]:
    """Answered requests since then, newest first, a page at a time; `client` is an `MlflowClient`.

    Those of the simulated upstream are left out: nobody asked them in earnest.
    """
    for info in routed_traces(client, experiment_id, from_unix_ms, "attributes.status = 'OK'"):
        yield _asked(info)


def routed_traces(client: Any, experiment_id: str, from_unix_ms: int, condition: str) -> Iterator[Any]:
    """The infos of routed requests since then that fulfil a condition of MLflow's, newest first, a page at a time.

    Those of the simulated upstream are left out.
    """
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment_id],
            filter_string=f"attributes.timestamp_ms > {from_unix_ms} AND {condition}",
            max_results=PAGE,
            page_token=token,
            include_spans=False,
        )
        for trace in page:
            if "router.question_type" in trace.info.tags and "router.simulated" not in trace.info.tags:
                yield trace.info
        token = page.token
        if not token:
            return


def _asked(info: Any) -> Asked:
    gap = info.tags.get("router.gap")
    opinions = [
        Opinion(float(each.feedback.value), each.rationale or "")
        for each in info.assessments
        if each.name == "user_feedback"
        and isinstance(getattr(each, "feedback", None) and each.feedback.value, bool | int | float)
    ]
    return Asked(
        trace_id=info.trace_id,
        question_type=info.tags["router.question_type"],
        reason=info.tags.get("router.reason", ""),
        gap=None if gap is None else float(gap),
        opinions=opinions,
    )


def recorded_since(since: str, uri: str) -> tuple[Any, list[Asked]]:
    """MLflow's client, and the answered requests since then, newest first.

    Raises:
        TrafficError: `since` is no length of time, or nothing was recorded.
    """
    client, experiment_id, earliest = opened_traffic(since, uri)
    return client, list(asked_since(client, experiment_id, earliest))


def opened_traffic(since: str, uri: str) -> tuple[Any, str, int]:
    """MLflow's client, the id of the router's experiment, and the moment `since` ago in milliseconds since 1970.

    Raises:
        TrafficError: `since` is no length of time, or nothing was recorded.
    """
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "router"
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise TrafficError(f"there is no experiment {experiment!r} in MLflow: nothing has been recorded yet")
    return client, found.experiment_id, int((time.time() - read_since(since).total_seconds()) * 1000)


def bodies_since(since: str, uri: str, most: int = 500) -> list[Mapping[str, Any]]:
    """The chat bodies of the newest routed requests since then, as far as they were recorded.

    Raises:
        TrafficError: as `recorded_since` does.
    """
    client, asked = recorded_since(since, uri)
    bodies = [client.get_trace(each.trace_id).data.spans[0].inputs for each in asked[:most]]
    return [body for body in bodies if isinstance(body, Mapping) and body.get("messages")]


def question_of(asked: Asked, request: Any, response: Any) -> tuple[dict[str, Any], bool] | None:
    """A row for `questions.py`, and whether it says what a right answer is; None where nothing was recorded of it."""
    messages = request.get("messages") if isinstance(request, Mapping) else None
    if not isinstance(messages, list) or not messages or messages[-1].get("role") not in ("user", "tool"):
        return None
    has_system = any(message.get("role") in ("system", "developer") for message in messages)
    row: dict[str, Any] = {"id": asked.trace_id, "question_type": asked.question_type, "messages": messages}
    if not has_system:
        row["system"] = ""  # as it was asked: without the default one
    if request.get("tools"):
        row["tools"] = request["tools"]
    row["source"] = f"traffic, {asked.reason}"
    best = max(asked.opinions, key=lambda opinion: opinion.score, default=None)
    if best is None:
        return row, False
    row["note"] = f"a user's score of the answer: {best.score:g}" + (f" ({best.comment})" if best.comment else "")
    answer = answer_in(response)
    if best.score >= LIKED and answer:
        row["expected_response"] = answer
        return row, True
    return row, False


def answer_in(response: Any) -> str:
    """The text of a chat completion that was recorded; "" where it has none."""
    choices = response.get("choices") if isinstance(response, Mapping) else None
    return content_text(choices[0].get("message", {}).get("content")) if choices else ""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a sample."""

    seen: int
    ready: int  # say what a right answer is
    to_review: int  # somebody has to add expected facts
    repeated: int  # were asked more than once, and are written once
    without_content: int  # traffic that was recorded without what was said


def write(client: Any, chosen: Sequence[Asked], seen: int, out: Path, review: Path) -> Written:
    """Write the chosen: those that can be judged to `out`, those that lack what a right answer is to `review`.

    A question that several users asked is written once, and to `out` where one of them liked its answer.
    """
    ready: dict[str, dict[str, Any]] = {}
    open_ones: dict[str, dict[str, Any]] = {}
    without_content = 0
    for asked in chosen:
        root = client.get_trace(asked.trace_id).data.spans[0]
        made = question_of(asked, root.inputs, root.outputs)
        if made is None:
            without_content += 1
            continue
        row, known = made
        same = json.dumps([row["messages"], row.get("tools")], sort_keys=True)
        (ready if known else open_ones).setdefault(same, row)
    to_review = [row for same, row in open_ones.items() if same not in ready]
    _write_lines(out, ready.values())
    _write_lines(review, to_review)
    repeated = len(chosen) - without_content - len(ready) - len(to_review)
    return Written(seen, len(ready), len(to_review), repeated, without_content)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
