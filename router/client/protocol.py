"""uvicorn's HTTP protocol with limits on the size of request headers and on the time they may take."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from router.errors import error_body

MAX_HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30.0
MAX_IGNORED_BYTES = 2**20  # per connection, of bodies whose requests were already answered

_TOO_LARGE = (431, "Request Header Fields Too Large", "The headers of the request are larger than 64 kB.")
_TOO_SLOW = (408, "Request Timeout", "The headers of the request did not arrive in time.")


class CoalescingTransport:
    """A transport that sends response headers together with the data of the same pass of the event loop."""

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data`. Response headers wait for the start of the body."""
        if self._transport.is_closing():
            self._head = b""
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/1."):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send the waiting headers, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._head = b""


class BoundedProtocol(HttpToolsProtocol):
    """Rejects request headers that are too large or too slow, and closes the connection."""

    _head_bytes = 0  # of the incomplete headers
    _reading_head = True
    _is_rejected = False
    _ignored_bytes = 0  # of bodies whose requests were already answered
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout for the headers of the first request."""
        self._cycles: deque[RequestResponseCycle] = deque()  # unanswered requests; pipelining clients have several
        super().connection_made(CoalescingTransport(transport, self.loop))  # type: ignore[arg-type]
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._reject, *_TOO_SLOW)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all unanswered requests that the client disconnected."""
        self._stop_timer()
        for cycle in self._cycles:  # other requests may wait behind the current one
            cycle.disconnected = True
            cycle.message_event.set()
        self._cycles.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Limit the size and the duration of incomplete headers."""
        if self._is_rejected:
            return
        self._head_bytes = self._head_bytes + len(data) if self._reading_head else len(data)
        super().data_received(data)
        if self._reading_head:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._reject(*_TOO_LARGE)
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._reject, *_TOO_SLOW)

    def on_message_begin(self) -> None:
        """Count the bytes of the headers from here on."""
        self._reading_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the size of the complete headers without the body that may have arrived with them."""
        self._reading_head = False
        self._stop_timer()
        if self._head_bytes > MAX_HEAD_BYTES:
            size = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
            if size > MAX_HEAD_BYTES:
                self._reject(*_TOO_LARGE)
                return
        self.scope["router.is_disconnected"] = self.transport.is_closing  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        if self.cycle is not None:
            self.scope["router.is_data_waiting"] = self.cycle.message_event.is_set  # type: ignore[typeddict-unknown-key]
        while self._cycles and self._cycles[0].response_complete:
            self._cycles.popleft()
        if self.cycle is not None:
            self._cycles.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of a body, unless its request was rejected."""
        if self._is_rejected:
            return
        if self.cycle is not None and self.cycle.response_complete:  # answered before the body was read
            self._ignored_bytes += len(body)
            if self._ignored_bytes > MAX_IGNORED_BYTES:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Pass on the end of a request, unless it was rejected."""
        if not self._is_rejected:
            super().on_message_complete()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _reject(self, status: int, phrase: str, message: str) -> None:
        self._stop_timer()
        if self._is_rejected or self.transport.is_closing():
            return
        self._is_rejected = True
        body = error_body(message, "invalid_request_error", None, phrase.lower().replace(" ", "_"))
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, phrase.encode(), len(body)) + body)
        self.transport.close()
