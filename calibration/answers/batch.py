"""Collecting answers with OpenAI's Batch API: half the price, within a day.

No question is paid for twice. The input file of a batch stays in the folder until its answers are stored, so a process
that was stopped or killed at any moment finds its batches again, also for other selections of questions. Requests that
failed or expired are submitted again by the next call.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
    read_completion,
    stored_answers,
)
from calibration.answers.errors import describe_error, is_retryable
from calibration.answers.request_adapter import RequestAdapter
from calibration.interruption import InterruptibleWait
from calibration.ledger import Ledger
from calibration.policies import load_catalogue
from calibration.questions.questions import Question
from calibration.spending import BATCH_DISCOUNT, Meter, StoppedError, max_cost_usd, price_of
from router.policy.address import mask_credentials

POLL_SECONDS = 20.0
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
METADATA = "calibration"  # the field of a batch's metadata that has its name
INTERRUPTED = "interrupted; submitted batches continue at OpenAI, and the same command resumes waiting for them"
FINAL_STATUSES = ("completed", "expired", "cancelled", "failed")
QUESTIONS_PER_BATCH = 10_000  # OpenAI accepts 50,000 and 200 MB

Request = tuple[Question, dict[str, Any]]  # a question and the body that asks it


def collect_batch(
    questions: Sequence[Question],
    endpoints: Mapping[str, Endpoint],
    meter: Meter,
    ledger: Ledger,
    folder: Path,
    on_progress: Callable[[], None] = lambda: None,
    poll_seconds: float | None = None,  # None: POLL_SECONDS
) -> AnswerSet:
    """Submit the questions without an answer, wait, and store the answers.

    Raises:
        StoppedError: by budget, outage, refusal or interruption. The next call finds the submitted batches and waits
            for them.
    """
    answers = stored_answers(questions, endpoints, ledger)
    with InterruptibleWait(INTERRUPTED) as waiting:
        for model, endpoint in endpoints.items():
            missing = {
                answer_key(body, endpoint): (q, body)
                for q in questions
                if (q.id, model) not in answers.answers
                for body in [build_body(q, model, endpoint)]
            }
            if missing:
                wait = partial(waiting.wait, POLL_SECONDS if poll_seconds is None else poll_seconds)
                _Collection(model, endpoint, meter, ledger, folder, answers, on_progress, wait).collect(missing)
        waiting.wait(0)
    answers.answers = stored_answers(questions, endpoints, ledger).answers  # a repeated question is submitted once
    return answers


@dataclass(frozen=True)
class _Collection:
    """Collects the answers of one model."""

    model: str
    endpoint: Endpoint
    meter: Meter
    ledger: Ledger
    folder: Path
    answers: AnswerSet
    on_progress: Callable[[], None]
    wait: Callable[[], None]  # until the next poll; raises if interrupted

    def collect(self, missing: Mapping[str, Request]) -> None:
        """Store the answers to the missing requests, by key: first of batches submitted before, then of new ones."""
        client = network.openai_client(self.endpoint.base_url, self.endpoint.api_key, max_retries=5)
        try:
            for batch in self._submitted_before(client, missing):
                self._store(client, self._wait_for(client, batch), missing)
            for file, keys in _input_files(self.folder):
                if all(key in self.ledger or key in missing for key in keys):
                    file.unlink()
            for part in _split(self._unanswered(missing)):
                self._store(client, self._wait_for(client, self._submit(client, part)), part)
                _input_file(self.folder, part).unlink()
        except openai.APIError as error:
            raise _stopped(error, self.endpoint) from error
        finally:
            client.close()

    def _unanswered(self, requests: Mapping[str, Request]) -> dict[str, Request]:
        return {key: request for key, request in requests.items() if key not in self.ledger}

    def _submitted_before(self, client: openai.OpenAI, missing: Mapping[str, Request]) -> list[Batch]:
        """The batches with any of these requests, whether or not the process that submitted them received their ids."""
        names = {_batch_name(keys) for _, keys in _input_files(self.folder) if not missing.keys().isdisjoint(keys)}
        names |= {_batch_name(part) for part in _split(missing)}
        return [batch for batch in client.batches.list(limit=100) if (batch.metadata or {}).get(METADATA) in names]

    def _submit(self, client: openai.OpenAI, part: Mapping[str, Request]) -> Batch:
        price = price_of(self.meter.prices, self.model)
        max_usd = sum(max_cost_usd(price, body, self.endpoint.max_output_tokens) for _, body in part.values())
        self.meter.reserve(max_usd * BATCH_DISCOUNT)  # raises if the batch could exceed the budget
        self.meter.settle(max_usd * BATCH_DISCOUNT, "answers", "", None)  # the cost is counted by answer
        path = _input_file(self.folder, part)
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
            metadata={METADATA: _batch_name(part)},
        )

    def _wait_for(self, client: openai.OpenAI, batch: Batch) -> Batch:
        while batch.status not in FINAL_STATUSES:
            self.wait()
            batch = client.batches.retrieve(batch.id)
        return batch

    def _store(self, client: openai.OpenAI, batch: Batch, requests: Mapping[str, Request]) -> None:
        """Store the answers of a batch to these requests, and note why the others have none."""
        problems = dict.fromkeys(requests, _describe_end(batch))
        for line in _read_lines(client, batch):
            key, response = line["custom_id"], line.get("response") or {}
            if key not in requests or key in self.ledger:
                continue
            if response.get("status_code") != 200:
                problem = (response.get("body") or {}).get("error") or line.get("error") or {}
                problems[key] = str(problem.get("message") or "no answer in the batch")
                continue
            try:
                self._add(key, requests[key][0], ChatCompletion.model_validate(response["body"]))
            except ValueError as error:
                problems[key] = describe_error(error)
        for key, (question, _) in self._unanswered(requests).items():
            self.answers.failures[question.id, self.model] = problems[key]

    def _add(self, key: str, question: Question, completion: ChatCompletion) -> None:
        text, usage, finish = read_completion(completion)
        cost = self.meter.settle(0.0, "answers", self.model, usage, BATCH_DISCOUNT)
        answer = Answer(key, question.id, self.model, text, usage, cost, finish, time.time_ns(), 0.0, batch=True)
        self.ledger.add(key, answer.row())
        self.answers.failures.pop((question.id, self.model), None)
        self.answers.new_count += 1
        self.on_progress()


def _stopped(error: openai.APIError, endpoint: Endpoint) -> StoppedError:
    where, problem = mask_credentials(endpoint.base_url), describe_error(error)
    if is_retryable(error):
        return StoppedError(f"{where} is not available: {problem}. The same command resumes waiting for its batches")
    return StoppedError(f"{where} refused the batch: {problem}. Try again without --batch")


def _split(requests: Mapping[str, Request]) -> Iterator[dict[str, Request]]:
    """Split requests into batches."""
    keys = sorted(requests)
    for start in range(0, len(keys), QUESTIONS_PER_BATCH):
        yield {key: requests[key] for key in keys[start : start + QUESTIONS_PER_BATCH]}


def _batch_name(keys: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()[:32]


def _input_file(folder: Path, keys: Iterable[str]) -> Path:
    return folder / f"batch-{_batch_name(keys)}.jsonl"


def _input_files(folder: Path) -> list[tuple[Path, list[str]]]:
    """The input files of batches whose answers are not all stored, with their keys."""
    found = []
    for path in sorted(folder.glob("batch-*.jsonl")):
        try:
            keys = [json.loads(line)["custom_id"] for line in path.read_text("utf-8").splitlines()]
        except (ValueError, KeyError):  # the process was killed while it wrote the file, so nothing was submitted
            path.unlink()
        else:
            found.append((path, keys))
    return found


def _describe_end(batch: Batch) -> str:
    errors = (batch.errors.data if batch.errors else None) or []
    reason = next((f": {error.message}" for error in errors if error.message), "")
    return f"the batch ended as {batch.status} without an answer{reason}"


def _read_lines(client: openai.OpenAI, batch: Batch) -> list[dict[str, Any]]:
    files = [name for name in (batch.output_file_id, batch.error_file_id) if name]
    return [json.loads(line) for name in files for line in client.files.content(name).text.splitlines() if line]
