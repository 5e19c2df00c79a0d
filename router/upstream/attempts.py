"""Attempts until a model answers: retries, then the next upstream of the model, then the next model.

Nothing is repeated after the client has received a byte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from router.admission import SMALL_BYTES, Reserve
from router.errors import RouterError, UnreachableError, UpstreamTimeoutError
from router.policy.reasons import Reason
from router.settings import Settings
from router.upstream.breaker import Breaker
from router.upstream.calls import Answer, Call, ConnectError, CutError, StallError
from router.upstream.endpoints import KEY_REFUSED, Endpoint
from router.upstream.order import accepts_requests
from router.upstream.replies import (
    RETRYABLE_STATUSES,
    Reply,
    forbids_retry,
    is_retryable,
    lacks_stored_item,
    requested_delay_seconds,
    retry_delay_seconds,
)
from router.upstream.upstreams import Upstreams

MAX_WHOLE_BYTES = 2**20  # a larger answer is forwarded in pieces, unless its model has to be replaced
MAX_WAIT_SECONDS = 2.0  # if the upstream requests a longer delay, the next upstream or model is tried at once


class ModelSequence(NamedTuple):
    """The models to try in order, and why the first is not the model decided on."""

    models: Sequence[str]
    override_reason: Reason | None


class Outgoing(Protocol):
    """A request to be sent: its content for each model, the order of upstreams, and the models after an error."""

    @property
    def needs_state(self) -> bool: ...
    def first_models(self) -> ModelSequence: ...
    def order_endpoints(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]: ...
    def build_call(self, model: str, endpoint: Endpoint) -> Call: ...
    def next_models(self, model: str, reply: Reply, remaining: Sequence[str]) -> ModelSequence | None: ...


@dataclass(slots=True)
class _Request:
    """The state that all attempts of one request share."""

    outgoing: Outgoing
    unbilled_attempts: list[str]
    reserve: Reserve
    deadline: float  # seconds of the monotonic clock, after which no retry starts
    attempts: int = 0


class Attempts:
    """Sends requests to models, for one worker."""

    def __init__(self, upstreams: Upstreams, settings: Settings) -> None:
        self._upstreams = upstreams
        self._timeouts = settings.timeouts
        self._max_attempts = settings.max_attempts
        self._max_answer_bytes = settings.max_body_bytes if settings.echo_asked_model else MAX_WHOLE_BYTES

    async def send(self, outgoing: Outgoing, unbilled_attempts: list[str], reserve: Reserve) -> Reply:
        """The reply of the first model that answers.

        The model of each failed attempt that may be billed is appended to `unbilled_attempts`, because its usage is
        unknown. `reserve` reserves memory for the answer.

        Raises:
            RouterError: no model answered, and the last attempt failed without an answer.
        """
        request = _Request(outgoing, unbilled_attempts, reserve, time.monotonic() + self._timeouts.retries)
        failed: list[str] = []
        models, override_reason = outgoing.first_models()
        while True:
            model, remaining = models[0], models[1:]
            outcome = await self._send_to_model(request, model, last=not remaining)
            if isinstance(outcome, Reply) and not (remaining and is_retryable(outcome)):
                maybe_refused = outcome.status >= 400 or outcome.answer is not None  # a stream may start with an error
                following = outgoing.next_models(model, outcome, remaining) if maybe_refused else None
                if following is None:
                    outcome.attempts, outcome.failed_models = request.attempts, failed
                    outcome.override_reason = override_reason
                    return outcome
                _close(outcome)
                if following.models[0] != model:
                    failed.append(model)
                models, override_reason = following.models, following.override_reason or override_reason
                continue
            if isinstance(outcome, RouterError) and not remaining:
                raise outcome
            _close(outcome)
            failed.append(model)
            models, override_reason = remaining, override_reason or Reason.FALLBACK

    async def _send_to_model(self, request: _Request, model: str, *, last: bool) -> Reply | RouterError | None:
        """Try the upstreams of a model in order. Returns the last outcome, or None if all circuits are open.

        With `last` there is no other model, so the last upstream is tried even if its circuit is open.
        """
        endpoints = self._upstreams.endpoints(model)
        if endpoints[1:]:
            endpoints = request.outgoing.order_endpoints(endpoints)
        outcome = None
        while endpoints:
            endpoint, endpoints = endpoints[0], endpoints[1:]
            call = request.outgoing.build_call(model, endpoint)  # may raise: comes before the breaker allows a probe
            breaker = self._upstreams.breaker(model, endpoint)
            allowed = breaker.allows(time.monotonic())
            if not allowed and (endpoints or not last):
                continue
            _close(outcome)
            tries = self._max_attempts if allowed else 1
            spare = bool(endpoints) and any(accepts_requests(other, time.monotonic()) for other in endpoints)
            outcome = await self._send_with_retries(
                request, model, endpoint, breaker, call, tries, others=spare or not last, spare=spare
            )
            if endpoints and not self._tries_next(request.outgoing, endpoint, outcome, spare=spare):
                break
        return outcome

    async def _send_with_retries(
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
        """Try one upstream up to `tries` times. Returns the last outcome.

        With `spare` another upstream is available, so failures of this one are not retried. With `others` there is
        another upstream or model, so a long delay is not awaited.
        """
        health = endpoint.health
        endpoint.retries.requests += 1
        for attempt in range(1, tries + 1):
            request.attempts += 1
            try:
                outcome: Reply | RouterError = await self._send_once(model, endpoint, call, request.reserve)
            except (ConnectError, CutError, StallError) as error:
                outcome = _as_router_error(error)
                if not isinstance(error, ConnectError):  # the model may have answered, and may be billed
                    request.unbilled_attempts.append(model)
            except BaseException:
                breaker.release_probe()
                raise
            failed = not isinstance(outcome, Reply) or outcome.status >= 500
            if health is not None:
                failed = failed or self._is_upstream_fault(request.outgoing, endpoint, outcome)
                health.count(0 if isinstance(outcome, RouterError) else outcome.status, failed=failed)
            if failed:
                breaker.record_failure(time.monotonic())
            else:
                breaker.record_success()
            if (failed and spare) or (
                isinstance(outcome, Reply) and (not is_retryable(outcome) or forbids_retry(outcome))
            ):
                break
            if attempt == tries or not endpoint.retries.spend(time.monotonic()):
                break
            wait = retry_delay_seconds(outcome if isinstance(outcome, Reply) else None, attempt)
            if time.monotonic() + wait > request.deadline:
                break
            if others and wait > MAX_WAIT_SECONDS:
                break
            _close(outcome)
            await asyncio.sleep(wait)
        return outcome

    def _is_upstream_fault(self, outgoing: Outgoing, endpoint: Endpoint, outcome: Reply | RouterError) -> bool:
        """Whether this upstream failed and not the request, so that another upstream may succeed."""
        if isinstance(outcome, RouterError) or outcome.status >= 500:
            return True
        if outcome.status in RETRYABLE_STATUSES:
            requested = requested_delay_seconds(outcome)
            return requested is None or requested > MAX_WAIT_SECONDS
        if outcome.status in KEY_REFUSED:
            return self._upstreams.uses_configured_key(endpoint)
        return outcome.status == 404 and not outgoing.needs_state

    def _tries_next(self, outgoing: Outgoing, endpoint: Endpoint, outcome: Reply | RouterError, *, spare: bool) -> bool:
        """Whether to try the next upstream of the model."""
        if isinstance(outcome, RouterError) or is_retryable(outcome):
            return True
        if not spare or outcome.status < 400:
            return False
        return self._is_upstream_fault(outgoing, endpoint, outcome) or (
            outgoing.needs_state and lacks_stored_item(outcome)
        )

    async def _send_once(self, model: str, endpoint: Endpoint, call: Call, reserve: Reserve) -> Reply:
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
                    reserve(2 * len(piece))
                if size > self._max_answer_bytes:
                    return Reply(model, endpoint, answer.status, answer.headers, b"".join(pieces), answer)
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        except BaseException:
            answer.close()
            raise
        answer.close()
        return Reply(model, endpoint, answer.status, answer.headers, body, None)


def _close(outcome: Reply | RouterError | None) -> None:
    """Release the connection of an answer that is not read further."""
    if isinstance(outcome, Reply) and outcome.answer is not None:
        outcome.answer.close()


def _is_stream(answer: Answer) -> bool:
    for name, value in answer.headers:
        if name == b"content-type":
            return value.lower().startswith(b"text/event-stream")
    return False


def _as_router_error(error: Exception) -> RouterError:
    if isinstance(error, StallError):
        return UpstreamTimeoutError(f"The model did not answer in time: {error}.")
    return UnreachableError(f"The model could not be reached: {error}.")
