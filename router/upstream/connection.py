"""An HTTP/1.1 connection to an upstream.

llhttp (through httptools, as in uvicorn) parses the answer; this module handles sockets, timeouts and flow control.
Fast HTTP clients continue a request after its caller has been cancelled, so none of them is used (see
docs/decisions.md). Redirects, content decoding, cookies and HTTP/2 are not supported.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import AsyncIterator

import httptools

from router.policy.proxies import Proxy
from router.upstream.calls import Call, CutError, Headers, Origin, ProxyRefusedError, StallError

HIGH_WATER_BYTES = 256 * 1024  # unread bytes of an answer at which reading from the socket pauses
MAX_IDLE_SECONDS = 60.0  # after which an idle connection is not reused
MAX_HEAD_BYTES = 256 * 1024  # of headers, trailers or a chunk extension: data without content


class Connection(asyncio.Protocol):
    """One connection. It carries one exchange at a time, and is also the `Answer` of that exchange."""

    status = 0

    def __init__(self, pool: deque[Connection], proxy: Proxy | None = None) -> None:
        self._pool = pool
        self._proxy = proxy  # a forwarding proxy at the other end; None for an upstream or a tunnel
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._lost: str | None = None
        self._paused = False
        self._parser: httptools.HttpResponseParser | None = None  # of the current exchange
        self._busy = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self.headers: Headers = []
        self.has_response = False  # whether any data of the current answer has arrived
        self._head = self._ended = self._until_close = self._bodiless = self._keep_alive = self._body_unsent = False
        self._has_extra_data = False  # whether data followed the answer, so the connection cannot be reused
        self._pieces: list[bytes] = []
        self._waiting_bytes = self._head_bytes = 0

    # called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is not a subclass
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if not self._busy or parser is None:
            self._mark_lost("the upstream sent data without a request")
            return
        self.has_response = True
        if self._ended:
            self._has_extra_data = True
            return
        self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._has_extra_data = True
            if not self._ended:
                self._mark_lost(f"the answer is not HTTP: {error}")
        if self._head_bytes > MAX_HEAD_BYTES and not self._ended:
            self._mark_lost("the answer's headers are too long")
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head and self._until_close and exc is None:
            self._ended = True
        self._mark_lost(str(exc) if exc else "the connection was closed")
        self._parser = None  # breaks the reference cycle
        if not self._busy and self in self._pool:
            self._pool.remove(self)
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._wake()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # called by the parser

    def on_message_begin(self) -> None:
        if self._head:  # a second answer in one exchange
            self._has_extra_data = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head:  # otherwise a trailer
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._has_extra_data or self._parser is None:
            return
        self.status = self._parser.get_status_code()
        if not 100 <= self.status < 600:
            self._has_extra_data = True
            self._mark_lost(f"the answer has the invalid status {self.status}")
            return
        if self.status < 200:
            return
        self._head = True
        names = [name for name, _ in self.headers]
        self._until_close = b"content-length" not in names and b"transfer-encoding" not in names
        self._keep_alive = self._parser.should_keep_alive()
        if self._bodiless:
            self._ended = self._has_extra_data = True  # it is unknown whether a body follows

    def on_body(self, data: bytes) -> None:
        if self._has_extra_data:
            return
        self._head_bytes = 0
        self._pieces.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._head:
            self._ended = True
        else:
            self.headers = []  # of a 1xx response, which precedes the answer

    # called by the pool and by readers of the answer

    @property
    def usable(self) -> bool:
        """Whether another exchange may start: the connection is open, recently used, and has no unread data."""
        return not self.is_stale and not self._readable()

    @property
    def is_stale(self) -> bool:
        """Whether the connection is known to be closed, or was idle for too long."""
        return self._lost is not None or self._loop.time() - self.idle_since >= MAX_IDLE_SECONDS

    def _readable(self) -> bool:
        return bool(self._poll.poll(0))

    async def exchange(self, origin: Origin, call: Call, seconds: float) -> None:
        """Send `call` and wait for the headers of its answer.

        Raises:
            CutError: the connection was closed first.
            ProxyRefusedError: the forwarding proxy asks for credentials.
            StallError: the upstream accepted no data for `seconds`, or sent no complete headers within `seconds` after
                the last byte of the request.
        """
        self._reset()
        self._busy = True
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = call.method == b"HEAD"
        to = b"" if self._proxy is None else b"http://" + origin.authority
        head = [b"%b %b%b%b HTTP/1.1\r\nhost: %b" % (call.method, to, origin.path, call.path, origin.authority)]
        head += [name + b": " + value for name, value in call.headers]
        if self._proxy is not None and self._proxy.authorization:
            head.append(b"proxy-authorization: " + self._proxy.authorization)
        try:
            if isinstance(call.body, AsyncIterator):
                await self._send_stream(head, call, seconds)
            else:
                await self._send_pieces(head, call, seconds)
            deadline = self._loop.time() + seconds  # for the complete headers
            while not self._head:
                await self._wait(deadline - self._loop.time())
            if self._proxy is not None and self.status == 407:  # sent by the proxy, not by the upstream
                raise ProxyRefusedError(self._proxy, origin.authority.decode(), 407)
        except BaseException:
            self._has_extra_data = True  # more data of this exchange may arrive
            self.close()
            raise

    async def _send_pieces(self, head: list[bytes], call: Call, seconds: float) -> None:
        assert not isinstance(call.body, AsyncIterator)
        length = sum(map(len, call.body))
        if length or call.method not in (b"GET", b"HEAD", b"DELETE", b"OPTIONS"):
            head.append(b"content-length: %d" % length)
        start = b"\r\n".join(head) + b"\r\n\r\n"
        if length < HIGH_WATER_BYTES:
            self._transport.write(b"".join((start, *call.body)))
            return
        self._transport.write(start)
        for piece in call.body:
            view = memoryview(piece)
            for at in range(0, len(view), HIGH_WATER_BYTES):
                if self._head:  # the upstream answered before it received the whole body
                    self._body_unsent = True
                    return
                await self._write(view[at : at + HIGH_WATER_BYTES], seconds)
                await asyncio.sleep(0)  # let other tasks run between two copies

    async def _send_stream(self, head: list[bytes], call: Call, seconds: float) -> None:
        assert isinstance(call.body, AsyncIterator)
        chunked = call.length is None
        head.append(b"transfer-encoding: chunked" if call.length is None else b"content-length: %d" % call.length)
        self._transport.write(b"\r\n".join(head) + b"\r\n\r\n")
        async for piece in call.body:
            if piece:
                await self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece, seconds)
            if self._head:
                self._body_unsent = True
                return
        if chunked:
            self._transport.write(b"0\r\n\r\n")

    async def _write(self, piece: bytes | memoryview, seconds: float) -> None:
        if self._lost is not None:
            raise CutError(self._lost)
        self._transport.write(piece)
        if self._writable is not None:
            try:
                async with asyncio.timeout(seconds):
                    await self._writable
            except TimeoutError:
                raise StallError("the upstream accepted no data for too long") from None

    async def read(self, seconds: float) -> bytes:
        """See `Answer`."""
        deadline = 0.0
        while not self._pieces:
            if self._ended:
                return b""
            now = self._loop.time()
            deadline = deadline or now + seconds
            await self._wait(deadline - now)
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = []
        self._waiting_bytes = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def close(self) -> None:
        """See `Answer`. The connection returns to the pool if the request and the answer are complete."""
        self._busy = False
        self._parser = None
        self._pieces = []
        whole = self._ended and not self._has_extra_data and not self._until_close and not self._body_unsent
        if whole and self._lost is None and self._keep_alive and not self._paused:
            self.idle_since = self._loop.time()
            while self._pool and self._pool[0].is_stale:  # the oldest connections are on the left
                self._pool.popleft().abort()
            self._pool.append(self)
        elif self._lost is None:
            self._transport.abort()

    def abort(self) -> None:
        """Close the connection immediately."""
        self._transport.abort()

    async def _wait(self, seconds: float) -> None:
        if self._lost is not None:
            raise CutError(self._lost)
        self._reader = self._loop.create_future()
        clock = self._loop.call_later(seconds, self._expire, self._reader)
        try:
            await self._reader
        finally:
            clock.cancel()
            self._reader = None

    def _expire(self, reader: asyncio.Future[None]) -> None:
        if not reader.done():
            self._transport.abort()
            reader.set_exception(StallError("the upstream sent no data for too long"))

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _mark_lost(self, why: str) -> None:
        if self._lost is None:
            self._lost = why
            self._transport.abort()
