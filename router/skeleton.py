"""A large body without its attachments: what is decoded is the skeleton, what is sent is the body.

Twenty megabytes of base64 take long to skip with a JSON decoder, again for every level of nesting, while the event loop
stands still. Found by their opening quote, they are left out before anything is decoded.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from dataclasses import dataclass

LARGE_BYTES = 128 * 1024  # a smaller body is decoded as it is
_ATTACHMENT_BYTES = 1024
_STRETCH = 512 * 1024  # looked through at once, before others have their turn
_OPENING = re.compile(rb'"(?:data:|(?:data|file_data)"\s{0,8}:\s{0,8}")')
_LONGEST_OPENING = 40


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A body without the insides of long attachments."""

    text: bytes | bytearray
    positions: tuple[int, ...] = ()  # in `text`, ascending, where something was left out
    removed: tuple[int, ...] = ()  # bytes left out up to and with each of these

    def original(self, position: int) -> int:
        """Where the byte at `position` of the skeleton lies in the body.

        >>> Skeleton(b'{"a":"data:","b":1}', (11,), (5000,)).original(12)
        5012
        """
        passed = bisect_left(self.positions, position)
        return position + (self.removed[passed - 1] if passed else 0)


async def skeleton(body: bytes | bytearray) -> Skeleton:
    """The skeleton of a body. A small one is its own."""
    if len(body) < LARGE_BYTES:
        return Skeleton(body)
    kept: list[memoryview] = []
    positions, removed = [], []
    view, at, copied, gone = memoryview(body), 0, 0, 0
    while at < len(body):
        opening = _OPENING.search(body, at, at + _STRETCH)
        if opening is None:
            at += _STRETCH - _LONGEST_OPENING
            await asyncio.sleep(0)
            continue
        start = opening.end()
        stop = body.find(b'"', start)
        if stop - start > _ATTACHMENT_BYTES and body.find(b"\\", start, stop) < 0:
            kept.append(view[copied:start])
            positions.append(start - gone)
            gone += stop - start
            removed.append(gone)
            copied = stop
            start = stop
        at = max(start, at + 1)
        await asyncio.sleep(0)
    kept.append(view[copied:])
    return Skeleton(b"".join(kept) if positions else body, tuple(positions), tuple(removed))
