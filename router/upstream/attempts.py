"""Trying until a model answers: retries, then its next upstream, then the next model.

Nothing is repeated once the client has a byte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from router.admission import SMALL_BYTES, Hold
from router.errors import RouterError, UnreachableError, UpstreamTimeoutError
from router.policy.reasons import Reason
from router.settings import Settings
from router.upstream.breaker import Breaker
from router.upstream.calls import Answer, Call, ConnectError, CutError, StallError
from router.upstream.endpoints import KEY_REFUSED, Endpoint
from router.upstream.order import is_usable
from router.upstream.replies import RETRIED, Reply, delay, is_forbidden, is_not_here, is_retried, told_wait
from router.upstream.upstreams import Upstreams

WHOLE_BYTES = 2**20  # a larger answer is passed on in pieces, unless its model is to be renamed
LONGEST_WAIT_BEFORE_FALLBACK = 2.0  # a Retry-After beyond it sends the request to the next upstream or model at once


class Next(NamedTuple):
    """Models to be asked in turn, and why it is not the one decided on that answers."""

    models: Sequence[str]
    because: Reason | None


class Sender(Protocol):
    """What is asked of each model, in which order its upstreams are, and whom to ask after a refusal."""

    @property
    def needs_state(self) -> bool: ...
    def first(self) -> Next: ...
    def in_order(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]: ...
    def call(self, model: str, endpoint: Endpoint) -> Call: ...
    def after(self, model: str, reply: Reply, left: Sequence[str]) -> Next | None: ...


@dataclass(slots=True)
class _Request:
    """What all attempts of one request share."""

    sender: Sender
    unsettled: list[str]
    hold: Hold
    deadline: float  # in seconds of the monotonic clock; no retry begins after it
    attempts: int = 0


class Attempts:
    """Asks models in turn, for one worker."""

    def __init__(self, upstreams: Upstreams, settings: Settings) -> None:
        self._upstreams = upstreams
        self._timeouts = settings.timeouts
        self._max_attempts = settings.max_attempts
        self._max_answer_bytes = settings.max_body_bytes if settings.echo_asked_model else WHOLE_BYTES

    async def ask(self, sender: Sender, unsettled: list[str], hold: Hold) -> Reply:
        """Ask the first model that answers; attempts whose bill nobody told are added to `unsettled`, by model.

        Raises:
            RouterError: none answered, and the last one not even with an error of its own.
        """
        request = _Request(sender, unsettled, hold, time.monotonic() + self._timeouts.retries)
        failed: list[str] = []
        models, because = sender.first()
        while True:
            model, left = models[0], models[1:]
            outcome = await self._ask_model(request, model, last=not left)
            if isinstance(outcome, Reply) and not (left and is_retried(outcome)):
                maybe_refused = outcome.status >= 400 or outcome.answer is not None  # a stream may begin with an error
                following = sender.after(model, outcome, left) if maybe_refused else None
                if following is None:
                    outcome.attempts, outcome.failed_models, outcome.because = request.attempts, failed, because
                    return outcome
                _hang_up(outcome)
                if following.models[0] != model:
                    failed.append(model)
                models, because = following.models, following.because or because
                continue
            if isinstance(outcome, RouterError) and not left:
                raise outcome
            _hang_up(outcome)
            failed.append(model)
            models, because = left, because or Reason.FALLBACK

    async def _ask_model(self, request: _Request, model: str, *, last: bool) -> Reply | RouterError | None:
        """Ask the upstreams of a model in turn; what came last, or None where all are left alone.

        Where `last`, no other model is left, and the last upstream is asked though it is to be left alone.
        """
        endpoints = self._upstreams.endpoints(model)
        if endpoints[1:]:
            endpoints = request.sender.in_order(endpoints)
        outcome = None
        while endpoints:
            endpoint, endpoints = endpoints[0], endpoints[1:]
            call = request.sender.call(model, endpoint)  # before its circuit is asked: its one probe has to go out
            breaker = self._upstreams.breaker(model, endpoint)
            allowed = breaker.allows(time.monotonic())
            if not allowed and (endpoints or not last):
                continue
            _hang_up(outcome)
            tries = self._max_attempts if allowed else 1
            spare = bool(endpoints) and any(is_usable(each, time.monotonic()) for each in endpoints)
            outcome = await self._persist(
                request, model, endpoint, breaker, call, tries, others=spare or not last, spare=spare
            )
            if endpoints and not self._leads_on(request.sender, endpoint, outcome, spare=spare):
                break
        return outcome

    async def _persist(
        self,
        request: _Request,
        model: str,
        endpoint: Endpoint,
        breaker: Breaker,
        call: Call,
        tries: int,
        *,
        others: bool,
        spare: bool,
    ) -> Reply | RouterError:
        """Ask one upstream up to `tries` times; what came last. With a `spare` upstream, its faults are not retried."""
        health = endpoint.health
        endpoint.retries.requests += 1
        for made in range(1, tries + 1):
            request.attempts += 1
            try:
                outcome: Reply | RouterError = await self._once(model, endpoint, call, request.hold)
            except (ConnectError, CutError, StallError) as error:
                outcome = _translated(error)
                if not isinstance(error, ConnectError):  # the model may have answered, and bill what never came
                    request.unsettled.append(model)
            except BaseException:
                breaker.released()
                raise
            failed = not isinstance(outcome, Reply) or outcome.status >= 500
            if health is not None:
                failed = failed or self._is_at_fault(request.sender, endpoint, outcome)
                health.count(0 if isinstance(outcome, RouterError) else outcome.status, failed=failed)
            if failed:
                breaker.failed(time.monotonic())
            else:
                breaker.succeeded()
            if (failed and spare) or (
                isinstance(outcome, Reply) and (not is_retried(outcome) or is_forbidden(outcome))
            ):
                break
            if made == tries or not endpoint.retries.spend(time.monotonic()):
                break
            wait = delay(outcome if isinstance(outcome, Reply) else None, made)
            if time.monotonic() + wait > request.deadline:
                break
            if others and wait > LONGEST_WAIT_BEFORE_FALLBACK:
                break
            _hang_up(outcome)
            await asyncio.sleep(wait)
        return outcome

    def _is_at_fault(self, sender: Sender, endpoint: Endpoint, outcome: Reply | RouterError) -> bool:
        """Whether it is this upstream that fails, and not the request, so that another one may do better."""
        if isinstance(outcome, RouterError) or outcome.status >= 500:
            return True
        if outcome.status in RETRIED:
            told = told_wait(outcome)
            return told is None or told > LONGEST_WAIT_BEFORE_FALLBACK
        if outcome.status in KEY_REFUSED:
            return self._upstreams.is_key_ours(endpoint)
        return outcome.status == 404 and not sender.needs_state

    def _leads_on(self, sender: Sender, endpoint: Endpoint, outcome: Reply | RouterError, *, spare: bool) -> bool:
        """Whether the next upstream of the model is asked."""
        if isinstance(outcome, RouterError) or is_retried(outcome):
            return True
        if not spare or outcome.status < 400:
            return False
        return self._is_at_fault(sender, endpoint, outcome) or (sender.needs_state and is_not_here(outcome))

    async def _once(self, model: str, endpoint: Endpoint, call: Call, hold: Hold) -> Reply:
        timeouts = self._timeouts
        answer = await self._upstreams.send(endpoint, call)
        try:
            if _is_stream(answer):
                body = await answer.read(timeouts.first_byte)
                if not body:
                    raise CutError("the stream was empty")
                return Reply(model, endpoint, answer.status, answer.headers, body, answer)
            pieces, size = [], 0
            while piece := await answer.read(timeouts.first_byte):
                pieces.append(piece)
                size += len(piece)
                if size > SMALL_BYTES:
                    hold(2 * len(piece))
                if size > self._max_answer_bytes:
                    return Reply(model, endpoint, answer.status, answer.headers, b"".join(pieces), answer)
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except BaseException:
            answer.close()
            raise
        answer.close()
        return Reply(model, endpoint, answer.status, answer.headers, body, None)


def _hang_up(outcome: Reply | RouterError | None) -> None:
    """Be done with an answer that nobody will read."""
    if isinstance(outcome, Reply) and outcome.answer is not None:
        outcome.answer.close()


def _is_stream(answer: Answer) -> bool:
    for name, value in answer.headers:
        if name == b"content-type":
            return value.lower().startswith(b"text/event-stream")
    return False


def _translated(error: Exception) -> RouterError:
    if isinstance(error, StallError):
        return UpstreamTimeoutError(f"The model did not answer in time: {error}.")
    return UnreachableError(f"The model could not be reached: {error}.")
