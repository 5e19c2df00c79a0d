"""Append-only files of rows by key: what was paid for once is written at once and never asked for again."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from calibration.spending import StoppedError


class LedgerError(RuntimeError):
    """A ledger cannot be used; says which file, and what to do."""


class Ledger:
    """A JSON-lines file of rows by key; a key's last row counts. One process at a time.

    A row is one `write` to a file opened for appending, so it is there after `kill -9`; a line that a power cut left
    unfinished is cut off when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise LedgerError(f"{path}: in use by another calibration; wait for it or choose another --out") from error
        self._lock = threading.Lock()
        self._rows = self._read()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The last row written under `key`."""
        return self._rows.get(key)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Write a row; it is in the file when this returns.

        Raises:
            StoppedError: there is no room for it; the file is as it was.
        """
        # half of a character, which models write now and then, is kept as it is: `json.loads` reads it back
        line = json.dumps({"key": key, **row}, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
        with self._lock:
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) != len(line):
                    os.ftruncate(self._file, size)  # no half line may stay where the next one begins
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                problem = f"{self.path}: {error.strerror}; make room and run the same command again"
                raise StoppedError(problem) from error
            self._rows[key] = row

    def _read(self) -> dict[str, Mapping[str, Any]]:
        with self.path.open("rb") as file:
            content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._file, whole)
        rows: dict[str, Mapping[str, Any]] = {}
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                row = json.loads(line)
                rows[row.pop("key")] = row
            except (ValueError, KeyError, AttributeError, RecursionError, TypeError) as error:
                raise LedgerError(f"{self.path}:{number}: damaged; delete the line to have it asked again") from error
        return rows
