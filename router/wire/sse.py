"""Server-sent events: bytes in, bytes out. A stream is read while it passes, and may be cut anywhere. No I/O."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(rb"\r?\n\r?\n|\r\r")
MAX_EVENT_BYTES = 16 * 2**20
_LINE = re.compile(rb"\r\n|\n|\r")


MAX_KEPT_BYTES = 2**20  # of what a stream said; more is passed on and not kept


class Splitter:
    """Cuts a stream into whole events, each with the blank line that ends it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of an event whose end has not come
        self._tail = b""  # its last bytes, in which a boundary may have begun
        self._size = 0

    @property
    def waiting_bytes(self) -> int:
        """How much is held of an event whose end has not come."""
        return self._size

    @property
    def rest(self) -> bytes:
        """The beginning of an event whose end has not come."""
        return b"".join(self._pieces)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are complete with `chunk`."""
        first = _BOUNDARY.search(self._tail + chunk) if self._tail else _BOUNDARY.search(chunk)
        if first is None:
            self._keep(chunk)
            if self._size > MAX_EVENT_BYTES:  # no event as we know them: passed on in pieces, unread
                return self._emptied()
            return []
        data = b"".join((*self._pieces, chunk)) if self._pieces else chunk
        events, at = [], 0
        for boundary in _BOUNDARY.finditer(data, max(self._size - len(self._tail), 0)):
            events.append(data[at : boundary.end()])
            at = boundary.end()
        self._emptied()
        self._keep(data[at:])
        return events

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            self._tail = (self._tail + piece)[-3:]

    def _emptied(self) -> list[bytes]:
        pieces, self._pieces, self._tail, self._size = self._pieces, [], b"", 0
        return pieces


def data_of(event: bytes) -> bytes:
    """The data of an event; empty for a comment."""
    if event.startswith(b"data: ") and event.find(b"\n", 6, -2) < 0:
        return event[6:].rstrip(b"\r\n")
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)


KEEP_ALIVE = b": keep-alive\n\n"


def error_event(body: bytes) -> bytes:
    """An error object as an event of a stream."""
    return b"data: " + body + b"\n\n"
