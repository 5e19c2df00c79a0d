"""Everything of /v1 that is not routed goes to the upstream and back as it is, piece by piece, whatever it holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

from router.admission import Admission, Reserve
from router.client.body import Receive, Send, read_body, stream_body, too_large_error
from router.client.disconnect import DisconnectWatch
from router.client.keyfile import ACCOUNT
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
from router.limits.account import Booking
from router.limits.budgets import Budgets
from router.limits.limiter import Limiter
from router.metrics import Meter
from router.policy.decision import Reason
from router.policy.prices import PriceBook
from router.request.continuation import Continuations
from router.request.records import MAX_ERROR_BYTES, Trail, add_usage, own_error, tidy
from router.request.response_headers import with_rates
from router.settings import Settings
from router.upstream.calls import Answer, Call, ConnectError, CutError, StallError
from router.upstream.upstreams import Upstreams, returned_headers
from router.wire import bodies
from router.wire.head_tail import HeadTailBuffer

if TYPE_CHECKING:
    from router.request.routed import Scope

_READ_BYTES = 2**20  # of a JSON answer, to find its usage
_WITHOUT_BODY = (204, 304)  # statuses; what length they tell is of a body that is elsewhere
WHOLE_BYTES = 256 * 1024  # of a body that is read before it is sent
MOST_DECODED = 4  # times that a path may be encoded


class Collaborators(Protocol):
    """What requests are passed on with."""

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


def leads_elsewhere(path: bytes) -> bool:
    """Whether who decodes a path, once or more, could find that it leads upwards.

    >>> leads_elsewhere(b"/models/org%2Fname"), leads_elsewhere(b"/x/%252e%252e%5cy"), leads_elsewhere(b"/x/..;/y")
    (False, True, True)
    """
    for _ in range(MOST_DECODED):
        if any(part.partition(b";")[0] in (b"..", b".") for part in path.replace(b"\\", b"/").split(b"/")):
            return True
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return False
        path = decoded
    return True


def right_for(method: str, raw_path: bytes) -> str:
    """The right that a key needs for a request that is passed on. What is not known to be a call needs `account`.

    >>> right_for("POST", b"/v1/embeddings"), right_for("GET", b"/v1/models/x"), right_for("DELETE", b"/v1/models/x")
    ('embeddings', 'models', 'account')
    """
    if method == "POST" and raw_path == b"/v1/embeddings":
        return "embeddings"
    if method in ("GET", "HEAD") and (raw_path == b"/v1/models" or raw_path.startswith(b"/v1/models/")):
        return "models"
    return ACCOUNT


class PassThrough:
    """The ASGI function for paths that are not routed."""

    def __init__(self, worker: Collaborators) -> None:
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        trail = Trail(dict(scope["headers"]))
        watch = DisconnectWatch(receive)
        passing = _Passing(self._worker, trail, scope, receive, send)
        admitted = None
        try:
            caller = self._worker.keys.check(scope["headers"])
            trail.belongs_to(caller.key_id, alone=self._worker.keys.alone)
            caller.require(right_for(scope["method"], scope["raw_path"]))
            admitted = self._worker.admission.admit()
            await passing.run(watch, caller, admitted.reserve)
        except RouterError as error:
            await passing.refuse(error)
        except (asyncio.CancelledError, ClientDisconnectedError):
            passing.record(499, "abandoned", "the client left")
            watch.uncancel()
        except Exception:  # a fault of ours: what is held for the request is settled, and the server tells it
            passing.record(500, "failed", "the router failed")
            raise
        finally:
            watch.stop()
            if passing.answer is not None:
                passing.answer.close()
            if admitted is not None:
                admitted.release()


class _Passing:
    """One request on its way through."""

    def __init__(self, worker: Collaborators, trail: Trail, scope: Scope, receive: Receive, send: Send) -> None:
        self._worker = worker
        self._trail = trail
        self._scope = scope
        self._receive = receive
        self._send = send
        self._path: bytes = scope["raw_path"].removeprefix(b"/v1")
        self._seen: bytearray | None = None
        self._recorded = False
        self._booking: Booking | None = None  # of a key with limits
        self._ends: HeadTailBuffer | None = None  # of an embedding for it, however long that is
        self._sent = self._lost = False  # the upstream may have been asked; it may have done it, and did not say so
        self.answer: Answer | None = None

    async def run(self, watch: DisconnectWatch, caller: Caller, hold: Reserve) -> None:
        """Send the request, and pass the answer back as it comes; `hold` is told of a body that is read whole."""
        read_whole = None
        if caller.models or caller.limits is not None:
            read_whole, model = await self._body_of_a_known_model(caller, hold)
            if caller.limits is not None:
                size, billed = sum(map(len, read_whole or ())), self._scope["method"] == "POST"
                self._booking = await self._worker.limiter.hold_call(caller, model, size, billed=billed)
                self._ends = None if model is None else HeadTailBuffer()
        self.answer = answer = await self._ask(watch, read_whole)
        watch.start()
        self._trail.first_byte_unix_ns = self._trail.now()
        headers = returned_headers(answer.headers)
        if answer.status in _WITHOUT_BODY:
            headers = [(n, v) for n, v in headers if n != b"content-length"]
        length = next((int(v) for n, v in headers if n == b"content-length" and v.isdigit()), None)
        if dict(headers).get(b"content-type", b"").startswith(b"application/json"):
            self._seen = bytearray()
        headers += [
            (b"x-router-reason", Reason.PASSED_THROUGH.encode()),
            (b"x-router-trace-id", self._trail.trace_id.encode()),
        ]
        if self._booking is not None and answer.status < 400:
            headers = with_rates(headers, self._booking.account.rates())
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        passed = 0
        try:
            while piece := await answer.read(self._worker.settings.timeouts.idle):
                passed += len(piece)
                self._see(piece)
                if passed == length:
                    self._record_answer(answer)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except (CutError, StallError) as error:
            self.record(answer.status, "cut", str(error))
            return  # without the end of the body, so that nobody takes it for whole
        self._record_answer(answer)
        await self._send({"type": "http.response.body", "body": b""})

    async def _body_of_a_known_model(self, caller: Caller, hold: Reserve) -> tuple[Sequence[bytes] | None, str | None]:
        """The body and the model it names, which the key may ask for; None where it need not be looked at.

        Raises:
            ModelNotFoundError: the key may not ask for that model.
        """
        right = right_for(self._scope["method"], self._scope["raw_path"])
        if right == "models" and self._path.startswith(b"/models/"):
            caller.require_model(unquote_to_bytes(self._path.removeprefix(b"/models/")).decode(errors="replace"))
        if right != "embeddings":
            return None, None  # what is beyond single calls is beyond models
        named, settings = dict(self._scope["headers"]), self._worker.settings
        if named.get(b"content-encoding", b"identity") != b"identity":
            raise CompressedBodyError(
                "This key has models or limits of its own: send the body as it is, not compressed."
            )
        declared, seconds = named.get(b"content-length"), settings.timeouts.request_body
        body = await read_body(self._receive, declared, settings.max_body_bytes, seconds, hold)
        fields = bodies.read_fields(body.skeleton.text)
        bodies.locate_fields(body.skeleton.text, fields)  # no key twice
        model = bodies.read_string(fields, "model") or ""
        caller.require_model(model)
        return body.pieces, model

    async def _ask(self, watch: DisconnectWatch, read_whole: Sequence[bytes] | None) -> Answer:
        worker, scope = self._worker, self._scope
        if not scope["raw_path"].startswith(b"/v1/") or leads_elsewhere(self._path):
            raise BadRequestError("A path begins with /v1/ as it is, and cannot lead upwards.")
        named = dict(scope["headers"])
        if named.get(b"upgrade", b"").lower() == b"websocket":
            message = "Websockets are not passed on; connect to the upstream for this."
            raise BadRequestError(message, code="websocket_not_supported")
        length = int(named[b"content-length"]) if b"content-length" in named else None
        if length is not None and length > 8 * worker.settings.max_body_bytes:
            raise too_large_error(8 * worker.settings.max_body_bytes)
        query = scope["query_string"]
        upstreams = worker.upstreams
        endpoint = await worker.continuations.holder(self._path, scope["headers"])
        has_body = bool(length) or b"transfer-encoding" in named
        call = Call(
            scope["method"].encode(),
            self._path + (b"?" + query if query else b""),
            upstreams.request_headers(endpoint, scope["headers"], readable=self._booking is not None),
            read_whole or (await self._body(length) if has_body else ()),
            length,
        )
        if not has_body or read_whole is not None:
            watch.start()
        self._sent = True
        try:
            return await upstreams.send(endpoint, call)
        except StallError as error:
            self._lost = True
            raise UpstreamTimeoutError(f"The upstream did not answer in time: {error}.") from error
        except (ConnectError, CutError) as error:
            self._lost = isinstance(error, CutError)
            raise UnreachableError(f"The upstream could not be reached: {error}.") from error

    async def _body(self, length: int | None) -> Sequence[bytes] | AsyncIterator[bytes]:
        """The body; a small one whole, so that it can be sent again where a connection at rest had just been closed."""
        pieces = stream_body(self._receive, self._worker.settings.timeouts.request_body)
        if length is None or length > WHOLE_BYTES:
            return pieces
        return [piece async for piece in pieces]

    async def refuse(self, error: RouterError) -> None:
        """Tell the client what is wrong."""
        if not isinstance(error, BadKeyError):
            self.record(error.status, "failed", own_error(error, self._worker.settings.record_content))
        if isinstance(error, QuotaError) and not error.again:
            self._worker.budgets.refused(self._trail.key_id)
        body = error.body()
        await self._send(
            {"type": "http.response.start", "status": error.status, "headers": error.response_headers(body)}
        )
        await self._send({"type": "http.response.body", "body": body})

    def _see(self, piece: bytes) -> None:
        if self._ends is not None:
            self._ends.feed(piece)
        if self._seen is not None:
            self._seen += piece
            if len(self._seen) > _READ_BYTES:
                self._seen = None

    def _record_answer(self, answer: Answer) -> None:
        failed = answer.status >= 400
        error = bytes(self._seen[:MAX_ERROR_BYTES]).decode(errors="replace") if failed and self._seen else ""
        self.record(answer.status, "failed" if failed else "answered", error)

    def record(self, status: int, outcome: str, error: str) -> None:
        """Write the journal's line, once."""
        if self._recorded:
            return
        self._recorded = True
        record = self._trail.record(self._path[1:200].decode("latin-1"), status, outcome, error)
        record.reason = Reason.PASSED_THROUGH
        record.simulated = self._worker.upstreams.default.origin is None
        seen = self._told() if outcome == "answered" else None
        if seen is not None:
            record.response_model = record.model = record.asked_model = seen.model or ""
            if seen.usage is not None:
                add_usage(record, self._worker.prices, record.model, seen.usage, seen.service_tier)
        tidy(record, self._worker.settings.record_content)
        if self._booking is not None:
            begun = self._sent and (status < 400 or outcome == "abandoned")
            self._booking.settle(record, begun=begun or self._lost)
        elif record.key_id in self._worker.limiter.accounts:
            self._worker.limiter.count(record)
        self._worker.journal.append(record)
        self._worker.meter.observe(record)

    def _told(self) -> bodies.AnswerMetadata | None:
        """What the answer tells of itself; of a long one for a key with limits, by its beginning and its end."""
        if self._seen:
            return bodies.read_metadata(bytes(self._seen))
        return None if self._ends is None else self._ends.read_metadata()
