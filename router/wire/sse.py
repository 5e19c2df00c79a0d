"""Server-sent events: a stream that may be cut at any byte is split into events. No I/O."""

from __future__ import annotations

import re

KEEP_ALIVE = b": keep-alive\n\n"
MAX_EVENT_BYTES = 16 * 2**20
MAX_KEPT_BYTES = 2**20  # of a stream's content; more is forwarded and not kept for the record
_BOUNDARY = re.compile(rb"\r?\n\r?\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")


class EventSplitter:
    """Splits a stream into complete events, each with the blank line that ends it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the incomplete event
        self._tail = b""  # last bytes of the incomplete event, which may contain the start of a boundary
        self._size = 0

    @property
    def buffered_bytes(self) -> int:
        """Size of the incomplete event, in bytes."""
        return self._size

    @property
    def incomplete_event(self) -> bytes:
        """The bytes after the last complete event."""
        return b"".join(self._pieces)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes. An event over MAX_EVENT_BYTES is returned in pieces."""
        first = _BOUNDARY.search(self._tail + chunk) if self._tail else _BOUNDARY.search(chunk)
        if first is None:
            self._keep(chunk)
            if self._size > MAX_EVENT_BYTES:
                return self._take_all()
            return []
        data = b"".join((*self._pieces, chunk)) if self._pieces else chunk
        events, at = [], 0
        for boundary in _BOUNDARY.finditer(data, max(self._size - len(self._tail), 0)):
            events.append(data[at : boundary.end()])
            at = boundary.end()
        self._take_all()
        self._keep(data[at:])
        return events

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            self._tail = (self._tail + piece)[-3:]

    def _take_all(self) -> list[bytes]:
        pieces, self._pieces, self._tail, self._size = self._pieces, [], b"", 0
        return pieces


def event_data(event: bytes) -> bytes:
    """The data of an event; empty for a comment."""
    if event.startswith(b"data: ") and event.find(b"\n", 6, -2) < 0:
        return event[6:].rstrip(b"\r\n")
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)


def error_event(body: bytes) -> bytes:
    """An event that contains an error object."""
    return b"data: " + body + b"\n\n"
