"""A large body without its attachments: what is decoded is the skeleton, what is sent is the body.

20 MB of base64 take long to join, to copy, and to skip with a JSON decoder, again at every level of nesting,
while the event loop stands still. So a body stays in the pieces it came in, and attachments are left out of what is
decoded while those pieces come.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

ATTACHMENT_BYTES = 1024  # a shorter one is no trouble
_OPENING = re.compile(rb'"(?:data:|(?:data|file_data)"\s{0,8}:\s{0,8}")')
_LONGEST_OPENING = 40


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A body without the insides of long attachments."""

    text: bytes
    positions: tuple[int, ...] = ()  # in `text`, ascending, where something was left out
    removed: tuple[int, ...] = ()  # bytes left out up to and with each of these

    def original(self, position: int) -> int:
        """Where the byte at `position` of the skeleton lies in the body.

        >>> Skeleton(b'{"a":"data:","b":1}', (11,), (5000,)).original(12)
        5012
        """
        passed = bisect_left(self.positions, position)
        return position + (self.removed[passed - 1] if passed else 0)


class Stripping:
    """Makes a skeleton from the pieces of a body, as they come."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._tail = b""  # of what was looked through: an opening may have begun in it
        self._held: list[bytes] | None = None  # the inside of what may be an attachment
        self._held_bytes = 0
        self._positions: list[int] = []
        self._removed: list[int] = []

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        data, at = self._tail + piece, 0
        self._tail = b""
        while at < len(data):
            if self._held is not None:
                at = self._inside(data, at)
                continue
            opening = _OPENING.search(data, at)
            if opening is None:
                border = max(len(data) - _LONGEST_OPENING, at)
                self._keep(data[at:border])
                self._tail = data[border:]
                return
            self._keep(data[at : opening.end()])
            self._held, self._held_bytes = [], 0
            at = opening.end()

    def finish(self) -> Skeleton:
        """The skeleton of all that came."""
        self._keep(self._tail)
        self._release()
        return Skeleton(b"".join(self._kept), tuple(self._positions), tuple(self._removed))

    def _inside(self, data: bytes, at: int) -> int:
        """Go on inside an attachment, to its end if that is here; where it goes on."""
        assert self._held is not None
        quote = data.find(b'"', at)
        stop = len(data) if quote < 0 else quote
        if data.find(b"\\", at, stop) >= 0:  # an escape: a text of somebody's, and no attachment
            self._release()
            return at
        self._held.append(data[at:stop] if at or stop < len(data) else data)
        self._held_bytes += stop - at
        if quote >= 0:
            if self._held_bytes > ATTACHMENT_BYTES:
                self._positions.append(self._kept_bytes)
                self._removed.append(self._held_bytes + (self._removed[-1] if self._removed else 0))
                self._held = None
            else:
                self._release()
        return stop

    def _release(self) -> None:
        for piece in self._held or ():
            self._keep(piece)
        self._held = None

    def _keep(self, piece: bytes) -> None:
        self._kept.append(piece)
        self._kept_bytes += len(piece)
