"""Append-only files of rows by key: a paid result is stored immediately, and never requested again."""

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
    """A ledger is damaged or in use by another process."""


class Ledger:
    """A JSON-lines file of rows by key, locked by one process; the last row of a key is valid.

    Each row is one `write` to a file opened for appending, so it survives `kill -9`. An unfinished line after a power
    failure is removed when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise LedgerError(
                f"{path}: in use by another calibration; wait for it to end, or choose another --out"
            ) from error
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
        """Append a row to the file.

        Raises:
            StoppedError: the write failed, for example because the disk is full. The file is unchanged.
        """
        # models sometimes write unpaired surrogates; surrogatepass stores them so that `json.loads` restores them
        line = json.dumps({"key": key, **row}, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
        with self._lock:
            size = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) != len(line):
                    os.ftruncate(self._file, size)  # remove the incomplete line
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                problem = f"{self.path}: {error.strerror}; free disk space and run the same command again"
                raise StoppedError(problem) from error
            self._rows[key] = row

    def _read(self) -> dict[str, Mapping[str, Any]]:
        with self.path.open("rb") as file:
            content = file.read()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(self._file, complete)
        rows: dict[str, Mapping[str, Any]] = {}
        for number, line in enumerate(content[:complete].splitlines(), 1):
            try:
                row = json.loads(line)
                rows[row.pop("key")] = row
            except (ValueError, KeyError, AttributeError, RecursionError, TypeError) as error:
                raise LedgerError(
                    f"{self.path}:{number}: the line is damaged; delete it to request the result again"
                ) from error
        return rows
