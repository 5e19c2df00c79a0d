"""uvicorn's HTTP protocol with what it lacks: a bound on the bytes of a head, and on the time it may take."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from router.errors import error_body

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30.0
MAX_IGNORED_BYTES = 2**20  # of bodies that nobody reads, on one connection

_TOO_LARGE = (431, "Request Header Fields Too Large", "The headers of the request are larger than 64 kB.")
_TOO_SLOW = (408, "Request Timeout", "The headers of the request did not arrive in time.")


class Gathering:
    """A transport that sends the head of an answer together with what follows in the same turn of the event loop."""

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, but for a head: that waits for its body."""
        if self._transport.is_closing():
            self._head = b""  # there is nobody to read it
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/1."):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what waits, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""


class BoundedProtocol(HttpToolsProtocol):
    """Hangs up on heads that are too long or too slow, after saying so."""

    _head_bytes = 0  # of a head that is not complete
    _reading_head = True
    _ended = False
    _ignored_bytes = 0  # of a body whose request is answered
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came: it has so long to say what it wants."""
        self._cycles: deque[RequestResponseCycle] = deque()  # that are not answered, as pipelining clients make them
        super().connection_made(Gathering(transport, self.loop))  # type: ignore[arg-type]
        self._clock = self.loop.call_later(HEAD_SECONDS, self._end, *_TOO_SLOW)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._stop_clock()
        for cycle in self._cycles:  # the one that is being answered may have others behind it
            cycle.disconnected = True
            cycle.message_event.set()
        self._cycles.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        if self._ended:
            return
        self._head_bytes = self._head_bytes + len(data) if self._reading_head else len(data)
        super().data_received(data)
        if self._reading_head:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._end(*_TOO_LARGE)
            elif self._clock is None:
                self._clock = self.loop.call_later(HEAD_SECONDS, self._end, *_TOO_SLOW)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._reading_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is complete; where a body came with its last piece, the head alone is measured."""
        self._reading_head = False
        self._stop_clock()
        if self._head_bytes > MAX_HEAD_BYTES:
            size = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
            if size > MAX_HEAD_BYTES:
                self._end(*_TOO_LARGE)
                return
        self.scope["router.left"] = self.transport.is_closing  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        while self._cycles and self._cycles[0].response_complete:
            self._cycles.popleft()
        if self.cycle is not None:
            self._cycles.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """A piece of a body, unless its head was refused."""
        if self._ended:
            return
        if self.cycle is not None and self.cycle.response_complete:  # refused before it was read
            self._ignored_bytes += len(body)
            if self._ignored_bytes > MAX_IGNORED_BYTES:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete, unless its head was refused."""
        if not self._ended:
            super().on_message_complete()

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _end(self, status: int, phrase: str, message: str) -> None:
        self._stop_clock()
        if self._ended or self.transport.is_closing():
            return
        self._ended = True
        body = error_body(message, "invalid_request_error", None, phrase.lower().replace(" ", "_"))
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, phrase.encode(), len(body)) + body)
        self.transport.close()
