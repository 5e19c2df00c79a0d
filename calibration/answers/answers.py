"""Collecting the answers of every model to every question, within rate limits and budget.

Each answer is stored as soon as it arrives, and no question is sent twice to the same model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec
import openai
from openai.types.chat import ChatCompletion

from calibration import network
from calibration.answers.errors import describe_error, is_retryable, refuses_access, retry_after, status_of
from calibration.answers.request_adapter import RequestAdapter
from calibration.ledger import Ledger
from calibration.policies import load_catalogue
from calibration.questions.questions import Question
from calibration.spending import Meter, StoppedError, max_cost_usd, price_of
from router.policy.address import mask_credentials
from router.policy.logprobs import Logprobs, summarise_logprobs
from router.policy.usage import Usage

PATIENCE_SECONDS = 45.0  # without any answer, before an upstream counts as unavailable
LONGEST_BACKOFF_SECONDS = 20.0
REFUSED = "refusal"  # the finish reason of an answer that is only a refusal


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The upstream of a model, and the parameters of requests to it."""

    base_url: str
    api_key: str = field(repr=False)
    max_output_tokens: int = 2000
    parameters: Mapping[str, Any] = field(default_factory=dict)  # fields of every request, such as temperature
    logprobs: bool = False  # whether to request log probabilities, where the model gives them
    fallbacks: tuple[Endpoint, ...] = ()  # used in turn when this one is unavailable or refuses the key


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a model, with its usage, cost and duration."""

    key: str
    question_id: str
    model: str
    text: str  # tool calls as a JSON list of {"name", "arguments"}
    usage: Usage
    cost_usd: float
    finish_reason: str
    started_unix_ns: int
    seconds: float
    batch: bool = False
    logprobs: Logprobs | None = None

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, Any], question_id: str) -> Answer:
        """An answer from a row of the ledger."""
        logprobs = row.get("logprobs")
        row = {**row, "logprobs": None if logprobs is None else tuple(logprobs)}
        return cls(**{**row, "key": key, "question_id": question_id, "usage": Usage(**row["usage"])})

    def row(self) -> dict[str, Any]:
        """The row of the ledger."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if name != "key"}


@dataclass
class AnswerSet:
    """The collected answers, and the errors of questions without one."""

    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)  # by question id and model
    failures: dict[tuple[str, str], str] = field(default_factory=dict)  # error by question id and model
    new_count: int = 0  # answers that were not stored before


def build_body(question: Question, model: str, endpoint: Endpoint) -> dict[str, Any]:
    """The chat body that asks a model a question. The model has the name that it has in the policy."""
    body: dict[str, Any] = {"model": model, "messages": list(question.messages), **endpoint.parameters}
    if question.tools:
        body["tools"] = list(question.tools)
    return {**body, "max_tokens": endpoint.max_output_tokens}


def answer_key(body: Mapping[str, Any], endpoint: Endpoint) -> str:
    """The key of an answer in the ledger: a hash of first endpoint, model, parameters and prompt."""
    request = json.dumps([endpoint.base_url, body], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(request.encode()).hexdigest()


def stored_answers(questions: Iterable[Question], endpoints: Mapping[str, Endpoint], ledger: Ledger) -> AnswerSet:
    """The answers in the ledger."""
    stored = AnswerSet()
    for question in questions:
        for model, endpoint in endpoints.items():
            key = answer_key(build_body(question, model, endpoint), endpoint)
            row = ledger.get(key)
            if row is not None:
                stored.answers[question.id, model] = Answer.from_row(key, row, question.id)
    return stored


def read_completion(completion: ChatCompletion) -> tuple[str, Usage, str]:
    """The text, usage and finish reason of a completion. Tool calls replace the text, as a JSON list.

    Raises:
        ValueError: the completion has no choice or no usage.
    """
    if not completion.choices:
        raise ValueError("the reply has no choices")
    if completion.usage is None:
        raise ValueError("the reply has no usage")
    choice = completion.choices[0]
    calls = [call.function for call in choice.message.tool_calls or () if call.type == "function"]
    text = choice.message.content or choice.message.refusal or ""
    if calls:
        text = json.dumps([{"name": c.name, "arguments": _arguments(c.arguments)} for c in calls], ensure_ascii=False)
    text = text.encode(errors="replace").decode()  # MLflow and judges reject unpaired surrogates
    refused = bool(choice.message.refusal) and not choice.message.content
    return text, Usage.from_openai(completion.usage.model_dump()), REFUSED if refused else choice.finish_reason or ""


def read_logprobs(completion: ChatCompletion, text: str) -> Logprobs | None:
    """The log probabilities of an answer with this text; None where the upstream gives none."""
    logprobs = completion.choices[0].logprobs
    return summarise_logprobs(text, [(t.token, t.logprob) for t in (logprobs and logprobs.content) or ()])


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # not JSON: no check accepts it


class AnswerCollector:
    """Collects answers: holds the connections, the state of rate limits, and the state of upstreams."""

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        meter: Meter,
        ledger: Ledger,
        concurrency: int = 16,
        on_progress: Callable[[], None] = lambda: None,
        patience_seconds: float = PATIENCE_SECONDS,
        timeout_seconds: float = 60.0,
    ) -> None:
        self._endpoints = endpoints
        self._meter = meter
        self._ledger = ledger
        self._concurrency = concurrency
        self._on_progress = on_progress
        self._patience = patience_seconds
        self._timeout = timeout_seconds
        self._clients: dict[str, list[openai.AsyncOpenAI]] = {}  # one client per upstream of a model
        self._upstream_in_use = dict.fromkeys(endpoints, 0)  # the upstream in use, by model
        self._resume_at = dict.fromkeys(endpoints, 0.0)  # end of the rate limit, by model
        self._failing_since: dict[str, float] = {}
        self._adapting = RequestAdapter(load_catalogue())
        self._stop: StoppedError | None = None

    def stop(self, reason: StoppedError) -> None:
        """Send no more requests. Requests in flight are awaited, and their answers stored."""
        self._stop = self._stop or reason

    async def collect(self, questions: Sequence[Question]) -> AnswerSet:
        """Collect the missing answers to the questions.

        Raises:
            StoppedError: by budget, outage, refusal or interruption. The ledger keeps the answers received before.
        """
        answers = stored_answers(questions, self._endpoints, self._ledger)
        missing = iter([(q, m) for q in questions for m in self._endpoints if (q.id, m) not in answers.answers])
        self._clients = {
            model: [
                openai.AsyncOpenAI(
                    base_url=upstream.base_url,
                    api_key=upstream.api_key,
                    max_retries=0,
                    timeout=self._timeout,
                    http_client=network.async_http_client(upstream.base_url),
                )
                for upstream in (endpoint, *endpoint.fallbacks)
            ]
            for model, endpoint in self._endpoints.items()
        }
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._work(missing, answers))
        finally:
            for client in chain.from_iterable(self._clients.values()):
                await client.close()
        if self._stop is not None:
            raise self._stop
        return answers

    async def _work(self, missing: Iterable[tuple[Question, str]], answers: AnswerSet) -> None:
        for question, model in missing:
            if self._stop is not None:
                return
            try:
                answer = await self._request_answer(question, model)
            except StoppedError as reason:
                self.stop(reason)
                return
            except (openai.APIStatusError, ValueError) as error:
                answers.failures[question.id, model] = describe_error(error)
            else:
                answers.answers[question.id, model] = answer
                answers.new_count += 1
            self._on_progress()

    async def _request_answer(self, question: Question, model: str) -> Answer:
        endpoint = self._endpoints[model]
        body = build_body(question, model, endpoint)
        key = answer_key(body, endpoint)
        max_usd = max_cost_usd(price_of(self._meter.prices, model), body, endpoint.max_output_tokens)
        attempt = 0
        while True:
            await self._wait_for_rate_limit(model)
            while not self._meter.reserve(max_usd):
                await asyncio.sleep(0.02)
                self._raise_if_stopped()
            usage: Usage | None = None
            at = self._upstream_in_use[model]
            sent = self._adapting.adapt(body, endpoint.logprobs)
            started, began = time.time_ns(), time.monotonic()
            try:
                completion = await self._clients[model][at].chat.completions.create(**sent)
                text, usage, finish = read_completion(completion)
            except openai.APIError as error:
                if isinstance(error, openai.APIStatusError):
                    self._adapting.learn_from_error(model, error)
                if self._adapting.adapt(body, endpoint.logprobs) == sent:
                    self._handle_error(error, model, at, attempt)
                attempt += 1
                continue
            finally:
                cost = self._meter.settle(max_usd, "answers", model, usage)
            self._failing_since.pop(model, None)
            seconds, logprobs = time.monotonic() - began, read_logprobs(completion, text)
            answer = Answer(key, question.id, model, text, usage, cost, finish, started, seconds, logprobs=logprobs)
            self._ledger.add(key, answer.row())
            return answer

    async def _wait_for_rate_limit(self, model: str) -> None:
        """Wait until the rate limit of the model allows a request."""
        while (wait := self._resume_at[model] - time.monotonic()) > 0:
            await asyncio.sleep(min(wait, 0.5))
            self._raise_if_stopped()
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stop is not None:
            raise self._stop

    def _use_next_upstream(self, model: str, at: int) -> bool:
        """Use the next upstream of a model from now on; False if there is none."""
        if self._upstream_in_use[model] == at:  # otherwise another request has already moved on
            if at + 1 == len(self._clients[model]):
                return False
            self._upstream_in_use[model] += 1
            self._failing_since.pop(model, None)
            self._resume_at[model] = 0.0
        return True

    def _handle_error(self, error: openai.APIError, model: str, at: int, attempt: int) -> None:
        """Handle a failed request: return to retry it, or raise to fail the question or to stop the collection."""
        where = mask_credentials((self._endpoints[model], *self._endpoints[model].fallbacks)[at].base_url)
        if refuses_access(error):
            if self._use_next_upstream(model, at):
                return
            raise StoppedError(
                f"{where} refuses {model}: {describe_error(error)}. Check OPENAI_API_KEY, OPENAI_BASE_URL and "
                "--models; answers so far are stored"
            ) from error
        if not is_retryable(error):
            raise error
        if self._upstream_in_use[model] != at:
            return  # the model uses another upstream now
        if status_of(error) == 429:
            self._failing_since.pop(model, None)  # the upstream is available, and says when to retry
        elif time.monotonic() - self._failing_since.setdefault(model, time.monotonic()) > self._patience:
            if self._use_next_upstream(model, at):
                return
            raise StoppedError(
                f"no answer from {model} at {where} for {self._patience:.0f} s ({describe_error(error)}). "
                "Answers so far are stored; run the same command again when the model is available"
            ) from error
        backoff = min(0.5 * 2**attempt, LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311  jitter
        self._resume_at[model] = max(self._resume_at[model], time.monotonic() + (retry_after(error) or backoff))
