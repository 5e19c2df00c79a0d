"""HTTP/1.1 to an upstream: connections, their pool, and answers that are read as they arrive.

llhttp (by httptools, as in uvicorn) does the parsing; this file owns sockets, clocks and flow control. It exists
because the clients that are fast enough go on with a request whose caller has left (see docs/decisions.md). It does not
follow redirects, decode bodies, keep cookies or speak HTTP/2.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import AsyncIterator

import httptools

from router.policy.proxies import Proxy
from router.upstream.calls import Call, CutError, Headers, Origin, ProxyRefusedError, StallError

HIGH_WATER = 256 * 1024  # bytes of an answer waiting to be read before the socket is paused
IDLE_SECONDS = 60.0  # after which an unused connection is not trusted any more
MAX_HEAD = 256 * 1024  # bytes of headers, of trailers or of a chunk's extension: all that comes without content


class Connection(asyncio.Protocol):
    """One connection, carrying one exchange at a time; also the `Answer` of that exchange."""

    status = 0

    def __init__(self, pool: deque[Connection], proxy: Proxy | None = None) -> None:
        self._pool = pool
        self._proxy = proxy  # that is spoken to, and passes requests on; a tunnel through one is not seen from here
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._lost: str | None = None
        self._paused = False
        self._parser: httptools.HttpResponseParser | None = None  # of the present exchange
        self._busy = False
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self.headers: Headers = []
        self.heard = False  # whether anything of the present answer has come
        self._head = self._ended = self._until_close = self._bodiless = self._keep_alive = self._owes = False
        self._surplus = False  # something followed the answer: it is nobody's, and the connection carries no other
        self._pieces: list[bytes] = []
        self._waiting_bytes = self._head_bytes = 0

    # what the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if not self._busy or parser is None:
            self._lose("the upstream spoke without being asked")
            return
        self.heard = True
        if self._ended:
            self._surplus = True
            return
        self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._surplus = True
            if not self._ended:
                self._lose(f"the answer is not HTTP: {error}")
        if self._head_bytes > MAX_HEAD and not self._ended:
            self._lose("the answer's headers are too long")
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head and self._until_close and exc is None:
            self._ended = True
        self._lose(str(exc) if exc else "the connection was closed")
        self._parser = None  # which holds this connection: nothing waits for the collector of cycles
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

    # what the parser says

    def on_message_begin(self) -> None:
        if self._head:  # a second answer in one exchange
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head:  # else a trailer, or what follows the answer
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._surplus or self._parser is None:
            return
        self.status = self._parser.get_status_code()
        if not 100 <= self.status < 600:
            self._surplus = True
            self._lose(f"the answer has the status {self.status}, which is none of HTTP's")
            return
        if self.status < 200:
            return
        self._head = True
        names = [name for name, _ in self.headers]
        self._until_close = b"content-length" not in names and b"transfer-encoding" not in names
        self._keep_alive = self._parser.should_keep_alive()
        if self._bodiless:
            self._ended = self._surplus = True  # whether a body follows cannot be told

    def on_body(self, data: bytes) -> None:
        if self._surplus:
            return
        self._head_bytes = 0
        self._pieces.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._head:
            self._ended = True
        else:
            self.headers = []  # of a 1xx, which the answer itself follows

    # what the upstream's client does

    @property
    def usable(self) -> bool:
        """Whether another exchange may begin on it: nothing came since the last, not even what is yet to be read."""
        return self._lost is None and self._loop.time() - self.idle_since < IDLE_SECONDS and not self._readable()

    def _readable(self) -> bool:
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def exchange(self, origin: Origin, call: Call, seconds: float) -> None:
        """Send `call` and wait for the head of its answer.

        Raises:
            CutError: the connection ended first.
            ProxyRefusedError: the proxy that was to pass the call on asks for credentials.
            StallError: for `seconds` nothing was taken of the body, or no whole head came after the last byte was sent.
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
            deadline = self._loop.time() + seconds  # for the whole head, however it drips
            while not self._head:
                await self._wait(deadline - self._loop.time())
            if self._proxy is not None and self.status == 407:  # which is between the proxy and us
                raise ProxyRefusedError(self._proxy, origin.authority.decode(), 407)
        except BaseException:
            self._surplus = True  # whatever may still come
            self.close()
            raise

    async def _send_pieces(self, head: list[bytes], call: Call, seconds: float) -> None:
        assert not isinstance(call.body, AsyncIterator)
        length = sum(map(len, call.body))
        if length or call.method not in (b"GET", b"HEAD", b"DELETE", b"OPTIONS"):
            head.append(b"content-length: %d" % length)
        start = b"\r\n".join(head) + b"\r\n\r\n"
        if length < HIGH_WATER:
            self._transport.write(b"".join((start, *call.body)))
            return
        self._transport.write(start)
        for piece in call.body:
            view = memoryview(piece)
            for at in range(0, len(view), HIGH_WATER):
                if self._head:  # an upstream may refuse before it has heard everything
                    self._owes = True
                    return
                await self._write(view[at : at + HIGH_WATER], seconds)
                await asyncio.sleep(0)  # others have their turn between two copies

    async def _send_stream(self, head: list[bytes], call: Call, seconds: float) -> None:
        assert isinstance(call.body, AsyncIterator)
        chunked = call.length is None
        head.append(b"transfer-encoding: chunked" if call.length is None else b"content-length: %d" % call.length)
        self._transport.write(b"\r\n".join(head) + b"\r\n\r\n")
        async for piece in call.body:
            if piece:
                await self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece, seconds)
            if self._head:
                self._owes = True
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
                raise StallError("the upstream took nothing for too long") from None

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
        """See `Answer`. A connection whose question and answer are complete carries the next one."""
        self._busy = False
        self._parser = None
        self._pieces = []
        whole = self._ended and not self._surplus and not self._until_close and not self._owes
        if whole and self._lost is None and self._keep_alive and not self._paused:
            self.idle_since = self._loop.time()
            while self._pool and not self._pool[0].usable:  # the newest are taken first, so the oldest lie at the left
                self._pool.popleft().abort()
            self._pool.append(self)
        elif self._lost is None:
            self._transport.abort()

    def abort(self) -> None:
        """Hang up."""
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
            reader.set_exception(StallError("the upstream said nothing for too long"))

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = why
            self._transport.abort()
