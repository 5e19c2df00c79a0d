"""Every question is put to every model, once, within rate limits and budget; each answer is kept at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from calibration import network
from calibration.answers.adapting import Adapting
from calibration.ledger import Ledger
from calibration.policies import load_catalogue
from calibration.questions.questions import Question
from calibration.spending import Meter, StoppedError, most_usd, price_of
from router.policy.address import without_login
from router.policy.usage import Usage

PATIENCE_SECONDS = 45.0  # without any answer before an outage is called one
LONGEST_BACKOFF_SECONDS = 20.0
REFUSED = "refusal"  # the finish reason of an answer that is nothing but the model's refusal


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked."""

    base_url: str
    api_key: str = field(repr=False)
    max_output_tokens: int = 2000
    parameters: Mapping[str, Any] = field(default_factory=dict)  # sent with every question, such as temperature
    others: tuple[Endpoint, ...] = ()  # asked in turn where this one is away or refuses the key


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and what that took."""

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

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, Any], question_id: str) -> Answer:
        """Read a ledger's row."""
        return cls(**{**row, "key": key, "question_id": question_id, "usage": Usage(**row["usage"])})

    def row(self) -> dict[str, Any]:
        """The ledger's row."""
        return {name: value for name, value in asdict(self).items() if name != "key"}


@dataclass
class Asked:
    """What came of asking."""

    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)  # by question id and model
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    new: int = 0


def body_of(question: Question, model: str, endpoint: Endpoint) -> dict[str, Any]:
    """The chat body that puts a question to a model, whose name is as in the policy."""
    body: dict[str, Any] = {"model": model, "messages": list(question.messages), **endpoint.parameters}
    if question.tools:
        body["tools"] = list(question.tools)
    return {**body, "max_tokens": endpoint.max_output_tokens}


def key_of(body: Mapping[str, Any], endpoint: Endpoint) -> str:
    """What an answer is kept under: the first endpoint, the model, its parameters and the prompt."""
    asked = json.dumps([endpoint.base_url, body], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()


def kept(questions: Iterable[Question], endpoints: Mapping[str, Endpoint], ledger: Ledger) -> Asked:
    """The answers that are there already."""
    asked = Asked()
    for question in questions:
        for model, endpoint in endpoints.items():
            key = key_of(body_of(question, model, endpoint), endpoint)
            row = ledger.get(key)
            if row is not None:
                asked.answers[question.id, model] = Answer.from_row(key, row, question.id)
    return asked


def read_completion(completion: ChatCompletion) -> tuple[str, Usage, str]:
    """Text, usage and finish reason of a completion; tool calls become the text where there is none.

    Raises:
        ValueError: the completion holds no choice or no usage.
    """
    if not completion.choices:
        raise ValueError("the reply holds no answer")
    if completion.usage is None:
        raise ValueError("the reply does not say how many tokens it took")
    choice = completion.choices[0]
    calls = [call.function for call in choice.message.tool_calls or () if call.type == "function"]
    text = choice.message.content or choice.message.refusal or ""
    if calls:
        text = json.dumps([{"name": c.name, "arguments": _arguments(c.arguments)} for c in calls], ensure_ascii=False)
    text = text.encode(errors="replace").decode()  # half of a character is no text that a store or a judge takes
    refused = bool(choice.message.refusal) and not choice.message.content
    return text, Usage.from_openai(completion.usage.model_dump()), REFUSED if refused else choice.finish_reason or ""


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # no check will accept it


class Asking:
    """One pass over questions and models: holds the connections, who waits for what, and when to give up."""

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
        self._clients: dict[str, list[openai.AsyncOpenAI]] = {}  # one for each upstream of a model
        self._at = dict.fromkeys(endpoints, 0)  # the upstream of each model that is asked
        self._resume_at = dict.fromkeys(endpoints, 0.0)  # a rate limit of one model holds back that model only
        self._failing_since: dict[str, float] = {}
        self._adapting = Adapting(load_catalogue())
        self._stop: StoppedError | None = None

    def stop(self, reason: StoppedError) -> None:
        """Send nothing more; what is under way is awaited and kept."""
        self._stop = self._stop or reason

    async def ask(self, questions: Sequence[Question]) -> Asked:
        """Put every question to every model that has not answered it.

        Raises:
            StoppedError: by budget, outage, refusal or interruption. What came in until then is in the ledger.
        """
        asked = kept(questions, self._endpoints, self._ledger)
        todo = iter([(q, m) for q in questions for m in self._endpoints if (q.id, m) not in asked.answers])
        self._clients = {
            model: [
                openai.AsyncOpenAI(
                    base_url=each.base_url,
                    api_key=each.api_key,
                    max_retries=0,
                    timeout=self._timeout,
                    http_client=network.async_client(each.base_url),
                )
                for each in (end, *end.others)
            ]
            for model, end in self._endpoints.items()
        }
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._work(todo, asked))
        finally:
            for client in chain.from_iterable(self._clients.values()):
                await client.close()
        if self._stop is not None:
            raise self._stop
        return asked

    async def _work(self, todo: Iterable[tuple[Question, str]], asked: Asked) -> None:
        for question, model in todo:
            if self._stop is not None:
                return
            try:
                answer = await self._ask(question, model)
            except StoppedError as reason:
                self.stop(reason)
                return
            except (openai.APIStatusError, ValueError) as error:
                asked.failures[question.id, model] = said(error)
            else:
                asked.answers[question.id, model] = answer
                asked.new += 1
            self._on_progress()

    async def _ask(self, question: Question, model: str) -> Answer:
        endpoint = self._endpoints[model]
        body = body_of(question, model, endpoint)
        key = key_of(body, endpoint)
        most = most_usd(price_of(self._meter.prices, model), body, endpoint.max_output_tokens)
        attempt = 0
        while True:
            await self._turn(model)
            while not self._meter.reserve(most):
                await asyncio.sleep(0.02)
                self._check()
            usage: Usage | None = None
            at = self._at[model]
            started, began = time.time_ns(), time.monotonic()
            try:
                completion = await self._clients[model][at].chat.completions.create(**self._adapting.sent(body))
                text, usage, finish = read_completion(completion)
            except openai.APIError as error:
                self._after(error, model, at, attempt)
                attempt += 1
                continue
            finally:
                cost = self._meter.settle(most, "answers", model, usage)
            self._failing_since.pop(model, None)
            answer = Answer(key, question.id, model, text, usage, cost, finish, started, time.monotonic() - began)
            self._ledger.add(key, answer.row())
            return answer

    async def _turn(self, model: str) -> None:
        """Wait until the model's rate limit allows a call."""
        while (wait := self._resume_at[model] - time.monotonic()) > 0:
            await asyncio.sleep(min(wait, 0.5))
            self._check()
        self._check()

    def _check(self) -> None:
        if self._stop is not None:
            raise self._stop

    def _moves_on(self, model: str, at: int) -> bool:
        """Ask the next upstream of a model from now on; False where there is none."""
        if self._at[model] == at:  # else another call found that out before
            if at + 1 == len(self._clients[model]):
                return False
            self._at[model] += 1
            self._failing_since.pop(model, None)
            self._resume_at[model] = 0.0
        return True

    def _after(self, error: openai.APIError, model: str, at: int, attempt: int) -> None:
        """Decide what a failed call means: go on (returns), fail this question, or stop everything (raises)."""
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        where = without_login((self._endpoints[model], *self._endpoints[model].others)[at].base_url)
        if isinstance(error, openai.APIStatusError) and self._adapting.learn(model, error):
            return
        if status in (401, 403, 404, 407) or error.code == "insufficient_quota":
            if self._moves_on(model, at):
                return
            raise StoppedError(
                f"{where} refuses {model}: {said(error)}. Check OPENAI_API_KEY, OPENAI_BASE_URL and --models; "
                "the answers so far are kept"
            ) from error
        retried = status is None or status in (408, 409, 429) or status >= 500
        if not retried:
            raise error
        if self._at[model] != at:
            return  # what another upstream is asked by now is not held back by this one
        if status == 429:
            self._failing_since.pop(model, None)  # it is there, and says when
        elif time.monotonic() - self._failing_since.setdefault(model, time.monotonic()) > self._patience:
            if self._moves_on(model, at):
                return
            raise StoppedError(
                f"no answer from {model} at {where} for {self._patience:.0f} s ({said(error)}). "
                "The answers so far are kept; run the same command again when it is back"
            ) from error
        backoff = min(0.5 * 2**attempt, LONGEST_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311  jitter
        self._resume_at[model] = max(self._resume_at[model], time.monotonic() + (retry_after(error) or backoff))


def retry_after(error: openai.APIError) -> float | None:
    """Seconds that the upstream asks to wait."""
    headers = error.response.headers if isinstance(error, openai.APIStatusError) else {}
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    return None


def said(error: Exception) -> str:
    """What went wrong, without the request that it answers."""
    if isinstance(error, openai.APIStatusError):
        if error.status_code == 407:
            return "status 407, the proxy of ROUTER_PROXY or HTTP_PROXY asks for credentials or refuses them"
        body = error.body if isinstance(error.body, Mapping) else {}
        return f"status {error.status_code}, {body.get('message') or error.message}"[:300]
    if type(error.__cause__).__name__ == "ProxyError":  # httpx's; other causes may hold a key
        return f"the proxy says {error.__cause__}"[:300]
    return f"{type(error).__name__}: {error}"[:300]
