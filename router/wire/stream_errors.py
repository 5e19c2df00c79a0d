"""Streams that start with an error, because the upstream sent status 200 before it read the request. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from router.wire.sse import EventSplitter, event_data
from router.wire.text import DECODE_ERRORS

_STATUS_EVENTS = frozenset(("response.created", "response.queued", "response.in_progress"))  # without any content


def first_error(start: bytes) -> bytes | None:
    """The error that a stream starts with, as the body of an error response; None if it starts with content.

    >>> first_error(b'event: error\\ndata: {"type":"error","code":"server_error","message":"No."}\\n\\n')
    b'{"error":{"type":"error","code":"server_error","message":"No."}}'
    >>> first_error(b'data: {"choices":[]}\\n\\ndata: {"error":{"message":"Late."}}\\n\\n')
    """
    if b'"error"' not in start or not start.startswith((b"data:", b"event:")):
        return None
    for event in EventSplitter().feed(start):
        try:
            data = msgspec.json.decode(event_data(event))
        except DECODE_ERRORS:
            return None
        if not isinstance(data, dict):
            return None
        if data.get("type") in _STATUS_EVENTS:
            continue
        error = _error(data)
        return None if error is None else msgspec.json.encode({"error": error})
    return None


def _error(data: dict[str, Any]) -> dict[str, Any] | None:
    if data.get("type") == "response.failed" and isinstance(data.get("response"), dict):
        data = data["response"]
    error = data.get("error")
    if isinstance(error, dict):
        return error
    return data if data.get("type") == "error" else None
