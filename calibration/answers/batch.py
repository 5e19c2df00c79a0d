"""Questions by OpenAI's Batch API: half the price, an answer within a day, and no question handed in twice."""

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
from calibration.answers.adapting import Adapting
from calibration.answers.answers import Answer, Asked, Endpoint, body_of, kept, key_of, read_completion, said
from calibration.interruption import InterruptionError
from calibration.ledger import Ledger
from calibration.policies import load_catalogue
from calibration.questions.questions import Question
from calibration.spending import BATCH_DISCOUNT, Meter, StoppedError, most_usd, price_of
from router.policy.address import without_login

POLL_SECONDS = 20.0
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
OVER = ("completed", "expired", "cancelled", "failed")
QUESTIONS_PER_BATCH = 10_000  # OpenAI takes 50,000 and 200 MB


def ask(
    questions: Sequence[Question],
    endpoints: Mapping[str, Endpoint],
    meter: Meter,
    ledger: Ledger,
    folder: Path,
    on_progress: Callable[[], None] = lambda: None,
    poll_seconds: float = POLL_SECONDS,
) -> Asked:
    """Hand in what is not answered, wait, and keep the answers. An interrupted wait goes on where it was.

    Raises:
        StoppedError: by budget, refusal or interruption; batches that are under way are found again.
    """
    asked = kept(questions, endpoints, ledger)
    waiting = _Interruption()
    with waiting:
        for model, endpoint in endpoints.items():
            todo = {
                key_of(body, endpoint): (q, body)
                for q in questions
                if (q.id, model) not in asked.answers
                for body in [body_of(q, model, endpoint)]
            }
            keys = sorted(todo)
            for start in range(0, len(keys), QUESTIONS_PER_BATCH):
                part = {key: todo[key] for key in keys[start : start + QUESTIONS_PER_BATCH]}
                _one(model, endpoint, part, meter, ledger, folder, asked, on_progress, poll_seconds, waiting)
    return asked


class _Interruption:
    """Ctrl-C and SIGTERM as something to wait for."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, lambda *_: self._asked.set()) for n in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in getattr(self, "_before", {}).items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> None:
        """Sleep.

        Raises:
            StoppedError: interrupted.
        """
        if self._asked.wait(seconds):
            raise InterruptionError("interrupted; the batch goes on at OpenAI, and the same command takes it up again")


def _one(
    model: str,
    endpoint: Endpoint,
    part: Mapping[str, tuple[Question, dict[str, Any]]],
    meter: Meter,
    ledger: Ledger,
    folder: Path,
    asked: Asked,
    on_progress: Callable[[], None],
    poll_seconds: float,
    waiting: _Interruption,
) -> None:
    client = network.openai_client(endpoint.base_url, endpoint.api_key, max_retries=5)
    price = price_of(meter.prices, model)
    most = sum(most_usd(price, body, endpoint.max_output_tokens) for _, body in part.values()) * BATCH_DISCOUNT
    try:
        batch = _under_way(client, part) or _hand_in(client, part, folder, meter, most)
        while batch.status not in OVER:
            waiting.wait(poll_seconds)
            batch = client.batches.retrieve(batch.id)
        for line in _lines(client, batch):
            question, body = part[line["custom_id"]]
            response = line.get("response") or {}
            if response.get("status_code") != 200:
                problem = (response.get("body") or {}).get("error") or line.get("error") or {}
                asked.failures[question.id, model] = str(problem.get("message") or "no answer in the batch")
                continue
            text, usage, finish = read_completion(ChatCompletion.model_validate(response["body"]))
            cost = meter.settle(0.0, "answers", model, usage, BATCH_DISCOUNT)
            key = key_of(body, endpoint)
            now = time.time_ns()
            answer = Answer(key, question.id, model, text, usage, cost, finish, now, 0.0, batch=True)
            ledger.add(key, answer.row())
            asked.answers[question.id, model] = answer
            asked.new += 1
            on_progress()
    except openai.APIError as error:
        raise StoppedError(
            f"{without_login(endpoint.base_url)} did not take the batch: {said(error)}. Leave --batch out?"
        ) from error
    finally:
        client.close()
    for question, _ in part.values():
        if (question.id, model) not in asked.answers:
            asked.failures.setdefault((question.id, model), f"the batch ended as {batch.status} without an answer")


def _name(part: Mapping[str, object]) -> str:
    return hashlib.sha256("".join(sorted(part)).encode()).hexdigest()[:32]


def _under_way(client: openai.OpenAI, part: Mapping[str, object]) -> Batch | None:
    """The batch of these very questions that was handed in already, whether or not that was written down."""
    for batch in client.batches.list(limit=100):
        if (batch.metadata or {}).get("calibration") == _name(part) and batch.status not in ("failed", "cancelled"):
            return batch
    return None


def _hand_in(
    client: openai.OpenAI,
    part: Mapping[str, tuple[Question, dict[str, Any]]],
    folder: Path,
    meter: Meter,
    most: float,
) -> Batch:
    meter.reserve(most)  # raises where the batch could cross the budget; it is settled answer by answer
    meter.settle(most, "answers", "", None)
    path = folder / "batch.jsonl"
    adapting = Adapting(load_catalogue())
    with path.open("w", encoding="utf-8") as file:
        for key, (_, body) in part.items():
            line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": adapting.sent(body)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with path.open("rb") as content:
        upload = client.files.create(file=content, purpose="batch")
    return client.batches.create(
        input_file_id=upload.id,
        endpoint=ENDPOINT,
        completion_window="24h",
        metadata={"calibration": _name(part)},
    )


def _lines(client: openai.OpenAI, batch: Batch) -> list[dict[str, Any]]:
    files = [name for name in (batch.output_file_id, batch.error_file_id) if name]
    return [json.loads(line) for name in files for line in client.files.content(name).text.splitlines() if line]
