"""Server-sent events: bytes in, bytes out. A stream is read while it passes, and may be cut anywhere. No I/O."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(rb"\r?\n\r?\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")


class Splitter:
    """Cuts a stream into whole events, each with the blank line that ends it."""

    def __init__(self) -> None:
        self.rest = b""  # the beginning of an event whose end has not come

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are complete with `chunk`."""
        data = self.rest + chunk if self.rest else chunk
        search_from = max(len(self.rest) - 3, 0)
        events, at = [], 0
        for boundary in _BOUNDARY.finditer(data, search_from):
            events.append(data[at : boundary.end()])
            at = boundary.end()
        self.rest = data[at:] if at else data
        return events


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
