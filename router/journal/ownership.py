"""Which key a trace belongs to, for requests that are in the journal but not in the usage tables yet."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from router.journal.segments import listed
from router.journal.tail import newest_lines
from router.journal.writer import RequestSummary
from router.wire.text import DECODE_ERRORS

MAX_SEARCHED_BYTES = 64 * 2**20  # of the newest segments

_decoder = msgspec.json.Decoder(RequestSummary)


def is_of_key(directory: Path, trace_id: str, key_id: str) -> bool:
    """Whether the newest segments of the journal hold a request of this key in that trace."""
    containing = b'"trace_id":' + msgspec.json.encode(trace_id)
    left = MAX_SEARCHED_BYTES
    for segment in reversed(listed(directory)):
        if any(_is_of(line, trace_id, key_id) for line in newest_lines(segment, containing, left)):
            return True
        with contextlib.suppress(FileNotFoundError):  # exported and removed in the meantime
            left -= segment.stat().st_size
        if left <= 0:
            break
    return False


def _is_of(line: bytes, trace_id: str, key_id: str) -> bool:
    try:
        summary = _decoder.decode(line)
    except DECODE_ERRORS:  # an entry of another kind, or a damaged line
        return False
    return summary.trace_id == trace_id and summary.key_id == key_id
