"""Collecting answers with OpenAI's Batch API: half the price, within a day. No question is submitted twice."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import openai
from openai.types import Batch
from openai.types.chat import ChatCompletion

from calibration import network
from calibration.answers.answers import (
    Answer,
    AnswerSet,
    Endpoint,
    answer_key,
    build_body,
    describe_error,
    read_completion,
    stored_answers,
)
from calibration.answers.request_adapter import RequestAdapter
from calibration.interruption import InterruptionError
from calibration.ledger import Ledger
from calibration.policies import load_catalogue
from calibration.questions.questions import Question
from calibration.spending import BATCH_DISCOUNT, Meter, StoppedError, max_cost_usd, price_of
from router.policy.address import mask_credentials

POLL_SECONDS = 20.0
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
FINAL_STATUSES = ("completed", "expired", "cancelled", "failed")
QUESTIONS_PER_BATCH = 10_000  # OpenAI accepts 50,000 and 200 MB


def collect_batch(
    questions: Sequence[Question],
    endpoints: Mapping[str, Endpoint],
    meter: Meter,
    ledger: Ledger,
    folder: Path,
    on_progress: Callable[[], None] = lambda: None,
    poll_seconds: float = POLL_SECONDS,
) -> AnswerSet:
    """Submit the questions without an answer, wait, and store the answers.

    Raises:
        StoppedError: by budget, refusal or interruption. The next call finds the submitted batches and waits for them.
    """
    answers = stored_answers(questions, endpoints, ledger)
    waiting = _Interruption()
    with waiting:
        for model, endpoint in endpoints.items():
            missing = {
                answer_key(body, endpoint): (q, body)
                for q in questions
                if (q.id, model) not in answers.answers
                for body in [build_body(q, model, endpoint)]
            }
            keys = sorted(missing)
            for start in range(0, len(keys), QUESTIONS_PER_BATCH):
                part = {key: missing[key] for key in keys[start : start + QUESTIONS_PER_BATCH]}
                _collect_part(model, endpoint, part, meter, ledger, folder, answers, on_progress, poll_seconds, waiting)
    return answers


class _Interruption:
    """Waits for Ctrl-C or SIGTERM; a context manager."""

    def __init__(self) -> None:
        self._requested = threading.Event()

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                n: signal.signal(n, lambda *_: self._requested.set()) for n in (signal.SIGINT, signal.SIGTERM)
            }

    def __exit__(self, *_: object) -> None:
        for number, handler in getattr(self, "_before", {}).items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> None:
        """Sleep for some seconds.

        Raises:
            StoppedError: interrupted.
        """
        if self._requested.wait(seconds):
            raise InterruptionError(
                "interrupted; the batch continues at OpenAI, and the same command resumes waiting for it"
            )


def _collect_part(
    model: str,
    endpoint: Endpoint,
    part: Mapping[str, tuple[Question, dict[str, Any]]],
    meter: Meter,
    ledger: Ledger,
    folder: Path,
    answers: AnswerSet,
    on_progress: Callable[[], None],
    poll_seconds: float,
    waiting: _Interruption,
) -> None:
    client = network.openai_client(endpoint.base_url, endpoint.api_key, max_retries=5)
    price = price_of(meter.prices, model)
    max_usd = sum(max_cost_usd(price, body, endpoint.max_output_tokens) for _, body in part.values()) * BATCH_DISCOUNT
    try:
        batch = _find_submitted(client, part) or _submit(client, part, folder, meter, max_usd)
        while batch.status not in FINAL_STATUSES:
            waiting.wait(poll_seconds)
            batch = client.batches.retrieve(batch.id)
        for line in _read_lines(client, batch):
            question, body = part[line["custom_id"]]
            response = line.get("response") or {}
            if response.get("status_code") != 200:
                problem = (response.get("body") or {}).get("error") or line.get("error") or {}
                answers.failures[question.id, model] = str(problem.get("message") or "no answer in the batch")
                continue
            text, usage, finish = read_completion(ChatCompletion.model_validate(response["body"]))
            cost = meter.settle(0.0, "answers", model, usage, BATCH_DISCOUNT)
            key = answer_key(body, endpoint)
            now = time.time_ns()
            answer = Answer(key, question.id, model, text, usage, cost, finish, now, 0.0, batch=True)
            ledger.add(key, answer.row())
            answers.answers[question.id, model] = answer
            answers.new_count += 1
            on_progress()
    except openai.APIError as error:
        where = mask_credentials(endpoint.base_url)
        raise StoppedError(f"{where} refused the batch: {describe_error(error)}. Try again without --batch") from error
    finally:
        client.close()
    for question, _ in part.values():
        if (question.id, model) not in answers.answers:
            answers.failures.setdefault((question.id, model), f"the batch ended as {batch.status} without an answer")


def _batch_name(part: Mapping[str, object]) -> str:
    return hashlib.sha256("".join(sorted(part)).encode()).hexdigest()[:32]


def _find_submitted(client: openai.OpenAI, part: Mapping[str, object]) -> Batch | None:
    """The batch of these very questions that was handed in already, whether or not that was written down."""
    for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get("calibration") == _batch_name(part) and batch.status not in (
            "failed",
            "cancelled",
        ):
            return batch
    return None


def _submit(
    client: openai.OpenAI,
    part: Mapping[str, tuple[Question, dict[str, Any]]],
    folder: Path,
    meter: Meter,
    max_usd: float,
) -> Batch:
    meter.reserve(max_usd)  # raises if the batch could exceed the budget; the cost is counted by answer
    meter.settle(max_usd, "answers", "", None)
    path = folder / "batch.jsonl"
    adapting = RequestAdapter(load_catalogue())
    with path.open("w", encoding="utf-8") as file:
        for key, (_, body) in part.items():
            line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": adapting.adapt(body)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with path.open("rb") as content:
        upload = client.files.create(file=content, purpose="batch")
    return client.batches.create(
        input_file_id=upload.id,
        endpoint=ENDPOINT,
        completion_window="24h",
        metadata={"calibration": _batch_name(part)},
    )


def _read_lines(client: openai.OpenAI, batch: Batch) -> list[dict[str, Any]]:
    files = [name for name in (batch.output_file_id, batch.error_file_id) if name]
    return [json.loads(line) for name in files for line in client.files.content(name).text.splitlines() if line]
