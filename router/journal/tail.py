"""Reads a journal from its end: the newest lines first, without reading the rest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

BLOCK_BYTES = 256 * 1024  # read at once; no other thread runs while a block is searched


def newest_lines(segment: Path, containing: bytes, most_bytes: int) -> Iterator[bytes]:
    """The complete lines in the last `most_bytes` of a segment that contain these bytes, the newest first.

    A segment that was exported and removed in the meantime has none.
    """
    with contextlib.suppress(FileNotFoundError), segment.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        first = max(position - most_bytes, 0)
        data = b""  # from a line's beginning or middle to a line's end, but for a last line that is still being written
        while position > first:
            length = min(BLOCK_BYTES, position - first)
            position -= length
            file.seek(position)
            data = file.read(length) + data
            head, newline, lines = data.partition(b"\n")
            if newline:
                data = head + newline
                if containing in lines:
                    yield from (line for line in reversed(lines.split(b"\n")[:-1]) if containing in line)
        if position == 0 and data.endswith(b"\n") and containing in data:
            yield data[:-1]
