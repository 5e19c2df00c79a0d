"""What is changed in an event of a stream; its other bytes stay as they came. No I/O."""

from __future__ import annotations

import re

import msgspec

from router.errors import BadRequestError
from router.wire import bodies
from router.wire.sse import data_of
from router.wire.text import UNREADABLE, mended

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COMMA = re.compile(rb"\s*,\s*")


def without_usage(event: bytes, data: bytes) -> bytes:
    """The event without the `"usage":null` that asking for usage adds to it."""
    at, text = event.find(data), mended(data)  # whose places are the same
    try:
        fields = _fields.decode(text)
        if at < 0 or bytes(fields.get("usage", b"")) != b"null":
            return event
        value, stop = bodies.spans(text, fields)["usage"]
    except (*UNREADABLE, BadRequestError):
        return event  # a key twice, say
    start = data.rfind(b'"', 0, value)
    start = data.rfind(b'"', 0, start)  # a quote that is escaped is written so that it cannot stand in this name
    before = data[:start].rstrip()
    if before.endswith(b","):
        start = len(before) - 1
    else:  # the first of the fields: the comma behind it goes
        comma = _COMMA.match(data, stop)
        stop = comma.end() if comma else stop
    return event[:at] + data[:start] + data[stop:] + event[at + len(data) :]


def renamed(event: bytes, name: bytes, within: str | None = None) -> bytes:
    """The event with another name in the place of its model's; see `bodies.renamed`."""
    data = data_of(event)
    at = event.find(data) if data else -1
    if at < 0 or b'"model"' not in data:
        return event
    return event[:at] + bodies.renamed(data, name, within) + event[at + len(data) :]
