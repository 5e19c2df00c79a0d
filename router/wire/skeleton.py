"""A large request body without its attachments.

Joining, copying and decoding 20 MB of base64 would block the event loop. So the body stays in the pieces in which it
arrived and is forwarded as such. Only the skeleton, which omits long attachments, is decoded. It is built while the
pieces arrive.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

MIN_ATTACHMENT_BYTES = 1024  # shorter attachments stay in the skeleton
_OPENING = re.compile(rb'"(?:data:|(?:data|file_data)"\s{0,8}:\s{0,8}")')
_MAX_OPENING_BYTES = 40


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A body without the content of its long attachments."""

    text: bytes
    positions: tuple[int, ...] = ()  # in `text`, ascending: where content was removed
    removed: tuple[int, ...] = ()  # cumulative number of bytes removed, for each position

    def in_body(self, position: int) -> int:
        """The position in the body of the byte at `position` in the skeleton.

        >>> Skeleton(b'{"a":"data:","b":1}', (11,), (5000,)).in_body(12)
        5012
        """
        passed = bisect_left(self.positions, position)
        return position + (self.removed[passed - 1] if passed else 0)


class SkeletonBuilder:
    """Builds a skeleton from the pieces of a body as they arrive."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._tail = b""  # last bytes of the previous piece, which may contain the start of an attachment
        self._held: list[bytes] | None = None  # content of a possible attachment
        self._held_bytes = 0
        self._positions: list[int] = []
        self._removed: list[int] = []

    def feed(self, piece: bytes) -> None:
        """Add the next piece."""
        data, at = self._tail + piece, 0
        self._tail = b""
        while at < len(data):
            if self._held is not None:
                at = self._read_attachment(data, at)
                continue
            opening = _OPENING.search(data, at)
            if opening is None:
                border = max(len(data) - _MAX_OPENING_BYTES, at)
                self._keep(data[at:border])
                self._tail = data[border:]
                return
            self._keep(data[at : opening.end()])
            self._held, self._held_bytes = [], 0
            at = opening.end()

    def finish(self) -> Skeleton:
        """The skeleton of all pieces."""
        self._keep(self._tail)
        self._release()
        return Skeleton(b"".join(self._kept), tuple(self._positions), tuple(self._removed))

    def _read_attachment(self, data: bytes, at: int) -> int:
        """Read attachment content from `at` to its closing quote or the end of `data`. Returns where it stopped."""
        assert self._held is not None
        quote = data.find(b'"', at)
        stop = len(data) if quote < 0 else quote
        if data.find(b"\\", at, stop) >= 0:  # base64 has no escapes, so this is ordinary text
            self._release()
            return at
        self._held.append(data[at:stop] if at or stop < len(data) else data)
        self._held_bytes += stop - at
        if quote >= 0:
            if self._held_bytes > MIN_ATTACHMENT_BYTES:
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
