"""Entries that a sink rejects. They are set aside, so that they do not block the entries after them."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from router.journal.writer import Entry, Feedback, Gap, Record
from router.wire.text import DECODE_ERRORS

log = logging.getLogger(__name__)

FILE = "refused.jsonl"
MAX_BYTES = 64 * 2**20  # beyond it, entries are only logged


class RefusedError(Exception):
    """A sink rejects an entry permanently. An outage raises other errors."""


@contextlib.contextmanager
def unfit_is_refused() -> Iterator[None]:
    """Raise `RefusedError` for an entry that cannot become a row or a span, such as a number out of range."""
    try:
        yield
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise RefusedError(f"{type(error).__name__}: {error}") from error


class Refused(msgspec.Struct):
    """An entry that a sink rejected, with the reason."""

    sink: str
    error: str
    unix: float
    entry: Record | Feedback | Gap


class _Sink(msgspec.Struct):
    sink: str


_decoder = msgspec.json.Decoder(Refused)
_sink = msgspec.json.Decoder(_Sink)


def park(directory: Path, sink: str, entry: Entry, error: str) -> None:
    """Set an entry aside.

    Raises:
        OSError: the file cannot be written; the entry is still in the journal.
    """
    line = msgspec.json.encode(Refused(sink, error, time.time(), entry)) + b"\n"
    path = directory / FILE
    log.error("%s rejects an entry; it is set aside in %s: %s", sink, path, error)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size + len(line) > MAX_BYTES:
            log.error("%s is full; trace %s is not exported to %s", path, getattr(entry, "trace_id", "none"), sink)
            return
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def parked(directory: Path) -> Iterator[Refused]:
    """The entries that were set aside, oldest first."""
    try:
        lines = (directory / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield _decoder.decode(line)
        except DECODE_ERRORS as error:
            log.error("%s: skipped an unreadable line of %d bytes: %s", directory / FILE, len(line), error)


def replace_parked(directory: Path, left: list[Refused]) -> None:
    """Keep only `left`."""
    new = directory / (FILE + ".new")
    new.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in left))
    new.chmod(0o600)
    new.replace(directory / FILE)


def counted(directory: Path) -> Mapping[str, int]:
    """The number of entries set aside, by sink. The file is read only when it changed."""
    path = directory / FILE
    try:
        now = path.stat()
    except OSError:
        return {}
    return _counted(path, now.st_mtime_ns, now.st_size)


@functools.lru_cache(maxsize=4)
def _counted(path: Path, *_version: int) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    with contextlib.suppress(OSError), path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(*DECODE_ERRORS):
                counts[_sink.decode(line).sink] += 1
    return counts
