"""Reads the journal: the segments in order, the position of each reader, and the removal of exported segments."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from router.journal.writer import Entry, Feedback, Gap, Record
from router.wire.text import DECODE_ERRORS

log = logging.getLogger(__name__)

CHUNK_BYTES = 4 * 2**20

_decoder = msgspec.json.Decoder(Record | Feedback | Gap)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_offsets = msgspec.json.Decoder(dict[str, int])


def listed(directory: Path) -> list[Path]:
    """The segments of a journal, oldest first. Files with other names are ignored."""
    numbered = ((path.name.partition("-")[0], path) for path in directory.glob("*-*.jsonl"))
    found = [
        (int(number), path.name, path)
        for number, path in numbered
        if number.isascii() and number.isdigit() and path.is_file()
    ]
    return [path for _, _, path in sorted(found)]


def is_complete(segment: Path) -> bool:
    """Whether `segment` can no longer grow, because its writer closed it or died."""
    with contextlib.suppress(FileNotFoundError), segment.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def read(segment: Path, offset: int, limit: int) -> tuple[list[bytes], int]:
    """Up to `limit` complete lines from `offset` on, and the offset after them."""
    with segment.open("rb") as file:
        file.seek(offset)
        chunk = file.read(CHUNK_BYTES)
        while chunk and b"\n" not in chunk and (more := file.read(CHUNK_BYTES)):
            chunk += more
    lines = chunk.split(b"\n", limit)
    lines.pop()  # the text after the last newline or after the limit
    return lines, offset + sum(len(line) + 1 for line in lines)


def parsed(lines: Sequence[bytes]) -> list[Entry]:
    """The entries in `lines`. Unreadable content is dropped from its record; lines that are no entries are skipped."""
    entries: list[Entry] = []
    for line in lines:
        try:
            entries.append(_decoder.decode(line))
        except DECODE_ERRORS as error:
            try:
                entries.append(_decoder.decode(_without_content(line)))
            except DECODE_ERRORS:
                log.error("journal: skipped an unreadable line of %d bytes: %s", len(line), error)
            else:
                log.warning("journal: dropped the unreadable content of a request: %s", error)
    return entries


def _without_content(line: bytes) -> bytes:
    """The line of a record without its content, which may hold numbers that no decoder accepts."""
    fields = _fields.decode(line)
    return msgspec.json.encode({name: value for name, value in fields.items() if name not in ("request", "response")})


class Cursor:
    """The position of one reader in each segment, kept in a file that is replaced atomically. Thread-safe."""

    def __init__(self, directory: Path, reader: str) -> None:
        self.directory = directory
        self.path = directory / f"{reader}.cursor"
        self._offsets = self._loaded()
        self._saving = threading.Lock()

    def offset(self, segment: Path) -> int:
        return self._offsets.get(segment.name, 0)

    def batch(self, limit: int) -> tuple[Path, list[Entry], int] | None:
        """The next entries of the oldest segment that has any: segment, entries and the offset after them; or None."""
        for segment in listed(self.directory):
            with contextlib.suppress(FileNotFoundError):
                lines, end = read(segment, self.offset(segment), limit)
                if lines:
                    return segment, parsed(lines), end
        return None

    def advance(self, segment: Path, offset: int) -> None:
        """Record that everything before `offset` is processed."""
        with self._saving:
            self._offsets[segment.name] = offset
            self._save()

    def forget(self, segments: Sequence[Path]) -> None:
        with self._saving:
            for segment in segments:
                self._offsets.pop(segment.name, None)
            self._save()

    def behind_bytes(self) -> int:
        """Bytes still to be processed. The partial record that a killed writer left is not counted."""
        return sum(self._rest(segment, size) for segment, size in _sizes(self.directory))

    def oldest(self) -> Record | Feedback | Gap | None:
        """The first entry that is not processed yet."""
        found = self.batch(1)
        return found[1][0] if found and found[1] else None

    def _rest(self, segment: Path, size: int) -> int:
        offset = self.offset(segment)
        with contextlib.suppress(FileNotFoundError):
            if 0 < size - offset < CHUNK_BYTES and is_complete(segment) and not read(segment, offset, 1)[0]:
                return 0
        return size - offset

    def _loaded(self) -> dict[str, int]:
        try:
            offsets = _offsets.decode(self.path.read_bytes())
            return {name: offset for name, offset in offsets.items() if self._fits(name, offset)}
        except FileNotFoundError:
            return {}
        except (OSError, *DECODE_ERRORS) as error:  # exporting again is harmless: every store keeps one row per id
            log.error("journal: cannot read %s, so every segment is exported again: %s", self.path, error)
            return {}

    def _fits(self, name: str, offset: int) -> bool:
        """Whether an offset is the end of a line of its segment. A damaged offset is ignored."""
        segment = self.directory / name
        try:
            if offset <= 0 or segment.stat().st_size < offset:
                return False
            with segment.open("rb") as file:
                file.seek(offset - 1)
                return file.read(1) == b"\n"
        except (OSError, OverflowError, ValueError):  # the segment was removed
            return False

    def _save(self) -> None:
        new = self.path.with_suffix(".cursor.new")
        new.write_bytes(msgspec.json.encode(self._offsets))
        new.replace(self.path)


def _sizes(directory: Path) -> Iterator[tuple[Path, int]]:
    for segment in listed(directory):
        with contextlib.suppress(FileNotFoundError):
            yield segment, segment.stat().st_size


def remove_finished(directory: Path, cursors: Sequence[Cursor], keep_seconds: float) -> list[Path]:
    """Remove and return the segments that are complete, processed by every reader and unchanged for `keep_seconds`."""
    removed = []
    for segment in listed(directory):
        if time.time() - segment.stat().st_mtime < keep_seconds or not is_complete(segment):
            continue
        size = segment.stat().st_size
        lines, _ = read(segment, min(cursor.offset(segment) for cursor in cursors), 1)
        if lines:
            continue
        torn = size - min(cursor.offset(segment) for cursor in cursors)
        if torn:  # the writer was killed during a write, before it sent the last byte of that answer
            log.warning("journal: %s ends with %d bytes of an unfinished record", segment.name, torn)
        segment.unlink()
        removed.append(segment)
    if removed:
        for cursor in cursors:
            cursor.forget(removed)
    return removed
