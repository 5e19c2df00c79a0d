"""Edits of one event of a stream. All other bytes of the event stay unchanged. No I/O."""

from __future__ import annotations

import re

import msgspec

from router.errors import BadRequestError
from router.wire import bodies
from router.wire.sse import event_data
from router.wire.text import DECODE_ERRORS, repair_text

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_COMMA = re.compile(rb"\s*,\s*")


def remove_null_usage(event: bytes, data: bytes) -> bytes:
    """The event without the field `"usage":null`, which an upstream adds if the router requests usage."""
    at, text = event.find(data), repair_text(data)  # the repaired text has the same length
    try:
        fields = _fields.decode(text)
        if at < 0 or bytes(fields.get("usage", b"")) != b"null":
            return event
        value, stop = bodies.locate_fields(text, fields)["usage"]
    except (*DECODE_ERRORS, BadRequestError):
        return event
    start = data.rfind(b'"', 0, value)
    start = data.rfind(b'"', 0, start)  # the name contains no escaped quote
    before = data[:start].rstrip()
    if before.endswith(b","):
        start = len(before) - 1
    else:  # the first field: remove the comma after it
        comma = _COMMA.match(data, stop)
        stop = comma.end() if comma else stop
    return event[:at] + data[:start] + data[stop:] + event[at + len(data) :]


def replace_model(event: bytes, name: bytes, within: str | None = None) -> bytes:
    """The event with `name` as its model; see `bodies.replace_model`."""
    data = event_data(event)
    at = event.find(data) if data else -1
    if at < 0 or b'"model"' not in data:
        return event
    return event[:at] + bodies.replace_model(data, name, within) + event[at + len(data) :]
