"""A stream that begins with an error, where the upstream had said 200 before it read the request. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from router.wire.sse import Splitter, data_of
from router.wire.text import UNREADABLE

_BEGUN = frozenset(("response.created", "response.queued", "response.in_progress"))  # events that say nothing yet


def first_error(beginning: bytes) -> bytes | None:
    """The error that a stream begins with, as the body of an answer with that error; None where it begins otherwise.

    >>> first_error(b'event: error\\ndata: {"type":"error","code":"server_error","message":"No."}\\n\\n')
    b'{"error":{"type":"error","code":"server_error","message":"No."}}'
    >>> first_error(b'data: {"choices":[]}\\n\\ndata: {"error":{"message":"Late."}}\\n\\n')
    """
    if b'"error"' not in beginning or not beginning.startswith((b"data:", b"event:")):
        return None
    for event in Splitter().feed(beginning):
        try:
            said = msgspec.json.decode(data_of(event))
        except UNREADABLE:
            return None
        if not isinstance(said, dict):
            return None
        if said.get("type") in _BEGUN:
            continue
        error = _error(said)
        return None if error is None else msgspec.json.encode({"error": error})
    return None


def _error(said: dict[str, Any]) -> dict[str, Any] | None:
    if said.get("type") == "response.failed" and isinstance(said.get("response"), dict):
        said = said["response"]
    error = said.get("error")
    if isinstance(error, dict):
        return error
    return said if said.get("type") == "error" else None
