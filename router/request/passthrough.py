"""Requests to /v1 that are not routed. They are passed through to the upstream, and the answer is streamed back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol
from urllib.parse import unquote_to_bytes

from router.admission import Admission, Reserve
from router.client.body import Receive, Scope, Send, read_body, stream_body, too_large_error
from router.client.disconnect import DisconnectWatch
from router.client.keys import Caller, Keys
from router.errors import (
    BadKeyError,
    BadRequestError,
    ClientDisconnectedError,
    CompressedBodyError,
    QuotaError,
    RouterError,
    UnreachableError,
    UpstreamTimeoutError,
)
from router.journal.writer import Journal
from router.limits.booking import Booking
from router.limits.budgets import Budgets
from router.limits.limiter import Limiter
from router.metrics import Meter
from router.policy.prices import PriceBook
from router.policy.reasons import Reason
from router.request.continuation import Continuations
from router.request.paths import escapes_base_path, required_right
from router.request.records import MAX_ERROR_BYTES, add_usage, error_text, redact_names
from router.request.response_headers import with_rate_limits
from router.request.timeline import RequestTimeline
from router.settings import Settings
from router.upstream.calls import Answer, Call, ConnectError, CutError, StallError
from router.upstream.upstreams import Upstreams, returned_headers
from router.wire import bodies
from router.wire.head_tail import HeadTailBuffer

_MAX_READ_BYTES = 2**20  # of a JSON answer, to read its usage
_STATUSES_WITHOUT_BODY = (204, 304)
MAX_BUFFERED_BYTES = 256 * 1024  # a larger request body is streamed
MAX_BODY_FACTOR = 8  # uploads may be this many times larger than routed bodies


class Collaborators(Protocol):
    """The parts of a worker that passing through needs."""

    settings: Settings
    upstreams: Upstreams
    admission: Admission
    continuations: Continuations
    journal: Journal
    keys: Keys
    limiter: Limiter
    budgets: Budgets
    meter: Meter
    prices: PriceBook


class PassThrough:
    """The ASGI function of all paths that are not routed."""

    def __init__(self, worker: Collaborators) -> None:
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        timeline = RequestTimeline(dict(scope["headers"]))
        watch = DisconnectWatch(receive)
        request = _PassThroughRequest(self._worker, timeline, scope, receive, send)
        admitted = None
        try:
            caller = self._worker.keys.authenticate(scope["headers"])
            timeline.set_key(caller.key_id, caller.team, alone=self._worker.keys.is_single)
            caller.require(required_right(scope["method"], scope["raw_path"]))
            admitted = self._worker.admission.admit()
            await request.run(watch, caller, admitted.reserve)
        except RouterError as error:
            await request.send_error(error)
        except (asyncio.CancelledError, ClientDisconnectedError):
            request.record(499, "abandoned", "the client disconnected")
            watch.uncancel()
        except Exception:  # the server reports it; the record settles the reserved budget
            request.record(500, "failed", "internal error of the router")
            raise
        finally:
            watch.stop()
            if request.answer is not None:
                request.answer.close()
            if admitted is not None:
                admitted.release()


class _PassThroughRequest:
    """One request that is passed through."""

    def __init__(
        self, worker: Collaborators, timeline: RequestTimeline, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._worker = worker
        self._timeline = timeline
        self._scope = scope
        self._receive = receive
        self._send = send
        self._path: bytes = scope["raw_path"].removeprefix(b"/v1")
        self._read_body: bytearray | None = None  # of a JSON answer, up to _MAX_READ_BYTES
        self._is_recorded = False
        self._booking: Booking | None = None  # of a key with limits
        self._buffer: HeadTailBuffer | None = None  # of an embeddings answer for that key
        self._is_sent = False  # whether the upstream may have received the request
        self._is_lost = False  # whether the upstream may have processed it without an answer
        self.answer: Answer | None = None

    async def run(self, watch: DisconnectWatch, caller: Caller, reserve: Reserve) -> None:
        """Send the request, and stream the answer to the client. `reserve` reserves memory for a whole body."""
        pieces = None
        if caller.models or caller.held_to:
            pieces, model = await self._read_checked_body(caller, reserve)
            if caller.held_to:
                size, billed = sum(map(len, pieces or ())), self._scope["method"] == "POST"
                self._booking = await self._worker.limiter.hold_call(caller, model, size, billed=billed)
                self._buffer = None if model is None else HeadTailBuffer()
        self.answer = answer = await self._forward(watch, pieces)
        watch.start()
        self._timeline.first_byte_unix_ns = self._timeline.now()
        headers = returned_headers(answer.headers)
        if answer.status in _STATUSES_WITHOUT_BODY:
            headers = [(n, v) for n, v in headers if n != b"content-length"]
        length = next((int(v) for n, v in headers if n == b"content-length" and v.isdigit()), None)
        if dict(headers).get(b"content-type", b"").startswith(b"application/json"):
            self._read_body = bytearray()
        headers += [
            (b"x-router-reason", Reason.PASSED_THROUGH.encode()),
            (b"x-router-trace-id", self._timeline.trace_id.encode()),
        ]
        if self._booking is not None and answer.status < 400:
            headers = with_rate_limits(headers, self._booking.rates())
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        forwarded = 0
        try:
            while piece := await answer.read(self._worker.settings.timeouts.idle):
                forwarded += len(piece)
                self._inspect(piece)
                if forwarded == length:
                    self._record_answer(answer)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except (CutError, StallError) as error:
            self.record(answer.status, "cut", str(error))
            return  # the body has no end, so the server breaks the connection and the client notices
        self._record_answer(answer)
        await self._send({"type": "http.response.body", "body": b""})

    async def _read_checked_body(self, caller: Caller, reserve: Reserve) -> tuple[Sequence[bytes] | None, str | None]:
        """The body and its model, for a key with a list of models or with limits. None if the body is not checked.

        Raises:
            ModelNotFoundError: the key may not use the model.
        """
        right = required_right(self._scope["method"], self._scope["raw_path"])
        if right == "models" and self._path.startswith(b"/models/"):
            caller.require_model(unquote_to_bytes(self._path.removeprefix(b"/models/")).decode(errors="replace"))
        if right != "embeddings":
            return None, None  # the request names no model
        values, settings = dict(self._scope["headers"]), self._worker.settings
        if values.get(b"content-encoding", b"identity") != b"identity":
            raise CompressedBodyError(
                "This key has models or limits of its own: send the body as it is, not compressed."
            )
        declared, seconds = values.get(b"content-length"), settings.timeouts.request_body
        body = await read_body(self._receive, declared, settings.max_body_bytes, seconds, reserve)
        fields = bodies.read_fields(body.skeleton.text)
        bodies.locate_fields(body.skeleton.text, fields)  # rejects duplicate keys
        model = bodies.read_string(fields, "model") or ""
        caller.require_model(model)
        return body.pieces, model

    async def _forward(self, watch: DisconnectWatch, pieces: Sequence[bytes] | None) -> Answer:
        worker, scope = self._worker, self._scope
        if not scope["raw_path"].startswith(b"/v1/") or escapes_base_path(self._path):
            raise BadRequestError("The path must start with /v1/ and must not contain '.' or '..' segments.")
        values = dict(scope["headers"])
        if values.get(b"upgrade", b"").lower() == b"websocket":
            message = "Websockets are not supported. Connect to the upstream directly."
            raise BadRequestError(message, code="websocket_not_supported")
        length = int(values[b"content-length"]) if b"content-length" in values else None
        if length is not None and length > MAX_BODY_FACTOR * worker.settings.max_body_bytes:
            raise too_large_error(MAX_BODY_FACTOR * worker.settings.max_body_bytes)
        query = scope["query_string"]
        upstreams = worker.upstreams
        endpoint = await worker.continuations.endpoint_for_path(self._path, scope["headers"])
        has_body = bool(length) or b"transfer-encoding" in values
        call = Call(
            scope["method"].encode(),
            self._path + (b"?" + query if query else b""),
            upstreams.request_headers(endpoint, scope["headers"], readable=self._booking is not None),
            pieces or (await self._body(length) if has_body else ()),
            length,
        )
        if not has_body or pieces is not None:
            watch.start()
        self._is_sent = True
        try:
            return await upstreams.send(endpoint, call)
        except StallError as error:
            self._is_lost = True
            raise UpstreamTimeoutError(f"The upstream did not answer in time: {error}.") from error
        except (ConnectError, CutError) as error:
            self._is_lost = isinstance(error, CutError)
            raise UnreachableError(f"The upstream could not be reached: {error}.") from error

    async def _body(self, length: int | None) -> Sequence[bytes] | AsyncIterator[bytes]:
        """The body. A small one is buffered, so that it can be sent again if an idle connection was just closed."""
        pieces = stream_body(self._receive, self._worker.settings.timeouts.request_body)
        if length is None or length > MAX_BUFFERED_BYTES:
            return pieces
        return [piece async for piece in pieces]

    async def send_error(self, error: RouterError) -> None:
        """Send an error response."""
        if not isinstance(error, BadKeyError):
            self.record(error.status, "failed", error_text(error, self._worker.settings.record_content))
        if isinstance(error, QuotaError) and not error.again:
            self._worker.budgets.refused(error.owner)
        body = error.body()
        await self._send(
            {"type": "http.response.start", "status": error.status, "headers": error.response_headers(body)}
        )
        await self._send({"type": "http.response.body", "body": body})

    def _inspect(self, piece: bytes) -> None:
        if self._buffer is not None:
            self._buffer.feed(piece)
        if self._read_body is not None:
            self._read_body += piece
            if len(self._read_body) > _MAX_READ_BYTES:
                self._read_body = None

    def _record_answer(self, answer: Answer) -> None:
        failed = answer.status >= 400
        error = bytes(self._read_body[:MAX_ERROR_BYTES]).decode(errors="replace") if failed and self._read_body else ""
        self.record(answer.status, "failed" if failed else "answered", error)

    def record(self, status: int, outcome: str, error: str) -> None:
        """Write the record. Further calls have no effect."""
        if self._is_recorded:
            return
        self._is_recorded = True
        record = self._timeline.record(self._path[1:200].decode("latin-1"), status, outcome, error)
        record.reason = Reason.PASSED_THROUGH
        record.simulated = self._worker.upstreams.default.origin is None
        metadata = self._read_metadata() if outcome == "answered" else None
        if metadata is not None:
            record.response_model = record.model = record.asked_model = metadata.model or ""
            if metadata.usage is not None:
                add_usage(record, self._worker.prices, record.model, metadata.usage, metadata.service_tier)
        redact_names(record, self._worker.settings.record_content)
        if self._worker.limiter.accounts:
            begun = self._is_sent and (status < 400 or outcome == "abandoned")
            self._worker.limiter.settle(record, self._booking, begun=begun or self._is_lost)
        self._worker.journal.append(record)
        self._worker.meter.observe(record)

    def _read_metadata(self) -> bodies.AnswerMetadata | None:
        """The metadata of the answer. For a key with limits, that of a long answer is read from its two ends."""
        if self._read_body:
            return bodies.read_metadata(bytes(self._read_body))
        return None if self._buffer is None else self._buffer.read_metadata()
