"""A small file that several processes write and follow: it is replaced as a whole, by one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

Signature = tuple[int, ...] | None  # None: there is no file


def signature(path: Path) -> Signature:
    """What is another number whenever the file was replaced or written to."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Path]:
    """Be the only writer of a file; gives its path.

    Raises:
        OSError: the lock file cannot be opened.
    """
    fd = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(fd)


def replace(path: Path, content: bytes) -> None:
    """Replace a file, for its owner only, so that a reader never sees half of it; call it under `locked`.

    Raises:
        OSError: the file cannot be written; the one before stays.
    """
    partial = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123  of a descriptor
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
