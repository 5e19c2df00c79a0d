"""Whose a trace is, of requests that no store has yet: looked up in the journal itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from router.journal.segments import listed
from router.wire.text import DECODE_ERRORS

MOST_BYTES = 64 * 2**20  # of the newest segments that are looked through
_CHUNK_BYTES = 2**20  # no other thread runs while one is searched


class _Owned(msgspec.Struct, tag_field="kind", tag="request"):
    trace_id: str
    key_id: str = ""


_decoder = msgspec.json.Decoder(_Owned)


def is_of_key(directory: Path, trace_id: str, key_id: str) -> bool:
    """Whether a request of this key is in that trace, as far as the newest segments of the journal tell."""
    mark = b'"trace_id":"' + trace_id.encode() + b'"'
    left = MOST_BYTES
    for segment in reversed(listed(directory)):
        with contextlib.suppress(FileNotFoundError):  # it was exported and removed meanwhile
            size = segment.stat().st_size
            if any(_is_of(line, trace_id, key_id) for line in _lines(segment, max(size - left, 0), mark)):
                return True
            left -= size
        if left <= 0:
            break
    return False


def _lines(segment: Path, offset: int, mark: bytes) -> Iterator[bytes]:
    """The whole lines from `offset` on that have `mark` in them."""
    with segment.open("rb") as file:
        file.seek(offset)
        rest = b""
        while chunk := file.read(_CHUNK_BYTES):
            whole, newline, tail = chunk.rpartition(b"\n")
            if not newline:
                rest += chunk
                continue
            text, rest = rest + whole, tail
            if mark in text:
                yield from (line for line in text.split(b"\n") if mark in line)


def _is_of(line: bytes, trace_id: str, key_id: str) -> bool:
    try:
        owned = _decoder.decode(line)
    except DECODE_ERRORS:  # half a line, or an entry of another kind
        return False
    return owned.trace_id == trace_id and owned.key_id == key_id
