"""Trying until a model answers: retries, then the next model. Nothing is repeated once the client has a byte."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import NamedTuple, Protocol

from router.admission import SMALL_BYTES, Hold
from router.errors import RouterError, UnreachableError, UpstreamTimeoutError
from router.policy.decision import Reason
from router.settings import Settings
from router.upstream.calls import Answer, Call, ConnectError, CutError, Headers, StallError
from router.upstream.upstreams import Upstreams

WHOLE_BYTES = 2**20  # a larger answer is passed on in pieces, unless its model is to be renamed
RETRIED = frozenset({408, 409, 429})  # and all from 500 on
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 8.0
RETRY_SHARE = 0.2  # of the requests
RETRIES_A_SECOND = 1.0
MOST_RETRIES = 30.0  # that may be saved up
LONGEST_WAIT_BEFORE_FALLBACK = 2.0  # a Retry-After beyond it sends the request to the next model at once


@dataclass(slots=True)
class Reply:
    """What came of it: an answer's head and the beginning of its body."""

    model: str  # as the policy calls it
    status: int
    headers: Headers
    body: bytes  # all of it, unless `answer` is there to read on from
    answer: Answer | None
    attempts: int = 1
    failed_models: list[str] = field(default_factory=list)  # those that were given up before
    because: Reason | None = None  # why another model than the one decided on answered
    adapted: str = ""  # what was changed in the request for the model, in words
    told: tuple[tuple[bytes, bytes], ...] = ()  # headers that say how the answer was verified

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Next(NamedTuple):
    """Models to be asked in turn, and why it is not the one decided on that answers."""

    models: Sequence[str]
    because: Reason | None


class Sender(Protocol):
    """What is asked of each model, and whom to ask after a refusal."""

    def first(self) -> Next: ...
    def call(self, model: str) -> Call: ...
    def after(self, model: str, reply: Reply, left: Sequence[str]) -> Next | None: ...


class RetryBudget:
    """Retries are a share of the requests, and a few beside: an outage is not multiplied by those who wait for it."""

    def __init__(self) -> None:
        self.requests = 0  # since the last retry
        self._balance = MOST_RETRIES
        self._at = 0.0

    def spend(self, now: float) -> bool:
        """Whether a retry may be made, which is paid with it."""
        passed, self._at = now - self._at, now
        earned, self.requests = self.requests * RETRY_SHARE + passed * RETRIES_A_SECOND, 0
        self._balance = min(self._balance + earned, MOST_RETRIES)
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True


class Attempts:
    """Asks models in turn, for one worker."""

    def __init__(self, upstreams: Upstreams, settings: Settings) -> None:
        self._upstreams = upstreams
        self._timeouts = settings.timeouts
        self._retries = RetryBudget()
        self._max_attempts = settings.max_attempts
        self._max_answer_bytes = settings.max_body_bytes if settings.echo_asked_model else WHOLE_BYTES

    async def ask(self, sender: Sender, unsettled: list[str], hold: Hold) -> Reply:
        """Ask the first model that answers; attempts whose bill nobody told are added to `unsettled`, by model.

        Raises:
            RouterError: none answered, and the last one not even with an error of its own.
        """
        deadline = time.monotonic() + self._timeouts.retries
        self._retries.requests += 1
        failed: list[str] = []
        attempts = 0
        models, because = sender.first()
        while True:
            model, left = models[0], models[1:]
            call = sender.call(model)  # before the circuit is asked, whose one probe this may be: then it has to go out
            allowed = self._upstreams.breaker(model).allows(time.monotonic())
            if not allowed and left:
                failed.append(model)
                models, because = left, because or Reason.FALLBACK
                continue
            tries = self._max_attempts if allowed else 1
            outcome, made = await self._persist(model, call, tries, deadline, bool(left), unsettled, hold)
            attempts += made
            if isinstance(outcome, RouterError):
                if not left:
                    raise outcome
            elif not _is_retried(outcome) or not left:
                following = sender.after(model, outcome, left) if outcome.status >= 400 else None
                if following is None:
                    outcome.attempts, outcome.failed_models, outcome.because = attempts, failed, because
                    return outcome
                _hang_up(outcome)
                if following.models[0] != model:
                    failed.append(model)
                models, because = following.models, following.because or because
                continue
            _hang_up(outcome)
            failed.append(model)
            models, because = left, because or Reason.FALLBACK

    async def _persist(
        self, model: str, call: Call, tries: int, deadline: float, others: bool, unsettled: list[str], hold: Hold
    ) -> tuple[Reply | RouterError, int]:
        """Ask one model up to `tries` times; what came last, and how often it was asked."""
        breaker = self._upstreams.breaker(model)
        for made in range(1, tries + 1):
            try:
                outcome: Reply | RouterError = await self._once(model, call, hold)
            except (ConnectError, CutError, StallError) as error:
                outcome = _translated(error)
                if not isinstance(error, ConnectError):  # the model may have answered, and bill what never came
                    unsettled.append(model)
            except BaseException:
                breaker.released()
                raise
            if isinstance(outcome, Reply) and outcome.status < 500:
                breaker.succeeded()
            else:
                breaker.failed(time.monotonic())
            if isinstance(outcome, Reply) and (not _is_retried(outcome) or _is_forbidden(outcome)):
                break
            if made == tries or not self._retries.spend(time.monotonic()):
                break
            delay = _delay(outcome, made)
            if time.monotonic() + delay > deadline:
                break
            if others and delay > LONGEST_WAIT_BEFORE_FALLBACK:
                break
            _hang_up(outcome)
            await asyncio.sleep(delay)
        return outcome, made

    async def _once(self, model: str, call: Call, hold: Hold) -> Reply:
        upstreams, timeouts = self._upstreams, self._timeouts
        answer = await upstreams.send(upstreams.endpoint(model), call)
        try:
            if _is_stream(answer):
                body = await answer.read(timeouts.first_byte)
                if not body:
                    raise CutError("the stream was empty")
                return Reply(model, answer.status, answer.headers, body, answer)
            pieces, size = [], 0
            while piece := await answer.read(timeouts.first_byte):
                pieces.append(piece)
                size += len(piece)
                if size > SMALL_BYTES:
                    hold(2 * len(piece))
                if size > self._max_answer_bytes:
                    return Reply(model, answer.status, answer.headers, b"".join(pieces), answer)
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except BaseException:
            answer.close()
            raise
        answer.close()
        return Reply(model, answer.status, answer.headers, body, None)


def _hang_up(outcome: Reply | RouterError) -> None:
    """Be done with an answer that nobody will read."""
    if isinstance(outcome, Reply) and outcome.answer is not None:
        outcome.answer.close()


def _is_stream(answer: Answer) -> bool:
    for name, value in answer.headers:
        if name == b"content-type":
            return value.lower().startswith(b"text/event-stream")
    return False


def _is_retried(reply: Reply) -> bool:
    return reply.status in RETRIED or reply.status >= 500


def _is_forbidden(reply: Reply) -> bool:
    return reply.header(b"x-should-retry") == b"false"


def _translated(error: Exception) -> RouterError:
    if isinstance(error, StallError):
        return UpstreamTimeoutError(f"The model did not answer in time: {error}.")
    return UnreachableError(f"The model could not be reached: {error}.")


def _delay(outcome: Reply | RouterError, made: int) -> float:
    """Seconds until the next attempt: as the upstream says, else doubling, and never the same for two clients."""
    if isinstance(outcome, Reply):
        told = retry_after(outcome.header(b"retry-after-ms"), outcome.header(b"retry-after"), time.time())
        if told is not None:
            return told
    longest: float = min(FIRST_DELAY_SECONDS * 2.0 ** (made - 1), LONGEST_DELAY_SECONDS)
    return longest * (0.5 + random.random() / 2)  # noqa: S311  spreads load, keeps no secret


def retry_after(milliseconds: bytes | None, after: bytes | None, now_unix: float) -> float | None:
    """Seconds to wait by `retry-after-ms`, or `retry-after` in seconds or as a date; None where neither says.

    >>> retry_after(b"1500", None, 0.0), retry_after(None, b"3", 0.0), retry_after(None, b"soon", 0.0)
    (1.5, 3.0, None)
    """
    try:
        if milliseconds is not None:
            told = float(milliseconds) / 1000
        elif after is None:
            return None
        elif after.strip().replace(b".", b"", 1).isdigit():
            told = float(after)
        else:
            told = parsedate_to_datetime(after.decode("latin-1")).timestamp() - now_unix
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(told) else max(told, 0.0)
