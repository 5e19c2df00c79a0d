"""Exports the journal to one sink, at the pace of the sink, and retries for ever.

A sink either stores a whole batch of entries or raises. Storing a batch must be idempotent, because a batch is marked
as exported only after it was stored. An outage is retried; an entry that the sink rejects permanently is set aside.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from router.journal.redaction import without_passwords
from router.journal.refused import RefusedError, park
from router.journal.segments import Cursor
from router.journal.writer import Entry

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 15.0
FOLLOW_UP_SECONDS = 1.0
SAVE_EVERY_SECONDS = 5.0


class Sink(Protocol):
    """A store that entries are exported to."""

    @property
    def batch(self) -> int: ...  # the largest number of entries of one write

    def write(self, entries: Sequence[Entry]) -> None: ...


class Progress(msgspec.Struct, omit_defaults=True):
    """The state of one exporter thread, in a file beside its cursor, for `/ready` and `/metrics`."""

    exported: int = 0  # entries since the exporter started
    failures: int = 0  # consecutive failed attempts
    error: str = ""
    failing_since_unix: float = 0.0
    updated_unix: float = 0.0


class Shipper:
    """Exports the journal to one sink, in order."""

    def __init__(self, directory: Path, name: str, sink: Sink, follow_up: Callable[[], object] | None = None) -> None:
        """`follow_up` is further work at the same sink, done about once a second."""
        self.name = name
        self._follow_up = follow_up
        self._next_follow_up = 0.0
        self.follow_up_error: Exception | None = None  # of the last attempt
        self.cursor = Cursor(directory, name)
        self.progress = Progress()
        self._sink = sink
        self._path = directory / f"{name}.progress"

    def step(self) -> bool:
        """Export one batch and return whether there was one. Errors of the sink are raised.

        The follow-up work runs after the batch. Its failures are retried separately and block no entry.
        """
        found = self.cursor.batch(self._sink.batch)
        if found is not None:
            segment, entries, end = found
            self._export(entries)
            self.cursor.advance(segment, end)
            self.progress.exported += len(entries)
        due = time.monotonic() >= self._next_follow_up or (found is None and self.follow_up_error is None)
        if self._follow_up is not None and due:
            self._run_follow_up(self._follow_up)
        return found is not None

    def _run_follow_up(self, follow_up: Callable[[], object]) -> None:
        try:
            follow_up()
        except Exception as error:  # retried, as a batch is
            self.follow_up_error = error
            self._next_follow_up = time.monotonic() + MAX_BACKOFF_SECONDS
            log.warning("%s: follow-up work failed and is retried: %s", self.name, _message(error))
        else:
            self.follow_up_error = None
            self._next_follow_up = time.monotonic() + FOLLOW_UP_SECONDS

    def _export(self, entries: Sequence[Entry]) -> None:
        """Store the entries. If the sink rejects the batch, bisect it and set the rejected entries aside."""
        try:
            self._sink.write(entries)
        except RefusedError as refusal:
            if len(entries) > 1:
                half = len(entries) // 2
                self._export(entries[:half])
                self._export(entries[half:])
            else:
                park(self.cursor.directory, self.name, entries[0], without_passwords(str(refusal))[:300])

    def retry(self, entry: Entry) -> None:
        """Export an entry that was set aside.

        Raises:
            RefusedError: the sink rejects it again.
        """
        self._sink.write([entry])

    def run(self, stopping: threading.Event, drain_seconds: float) -> None:
        """Export until `stopping` is set, then export the rest for up to `drain_seconds`."""
        deadline = float("inf")
        while time.monotonic() < deadline:
            is_draining = stopping.is_set()  # read before the journal, so that everything written until now is exported
            if is_draining and deadline == float("inf"):
                deadline = time.monotonic() + drain_seconds
            if self._try_step():
                continue
            if is_draining and not self.progress.failures:
                return
            pause = self._backoff() if self.progress.failures else IDLE_SECONDS
            if is_draining:
                time.sleep(min(pause, max(deadline - time.monotonic(), 0.0)))
            else:
                stopping.wait(pause)

    def _try_step(self) -> bool:
        try:
            shipped = self.step()
        except Exception as error:  # every failure of a sink is retried: the journal keeps the entries
            self._record_failure(error)
            return False
        if self.progress.failures:
            log.warning("%s: works again after %d failed attempts", self.name, self.progress.failures)
            self.progress.failures, self.progress.error, self.progress.failing_since_unix = 0, "", 0.0
            self._save()
        elif shipped or time.time() - self.progress.updated_unix > SAVE_EVERY_SECONDS:
            self._save()
        return shipped

    def _record_failure(self, error: Exception) -> None:
        self.progress.failures += 1
        self.progress.error = _message(error)
        self.progress.failing_since_unix = self.progress.failing_since_unix or time.time()
        log.log(
            logging.WARNING if self.progress.failures < 3 else logging.ERROR,
            "%s: attempt %d failed; it is retried and no entry is lost: %s",
            self.name,
            self.progress.failures,
            self.progress.error,
        )
        self._save()

    def _backoff(self) -> float:
        ceiling = min(0.5 * 2.0 ** min(self.progress.failures, 10), MAX_BACKOFF_SECONDS)
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311  jitter, not a secret

    def _save(self) -> None:
        self.progress.updated_unix = time.time()
        new = self._path.with_suffix(".progress.new")
        with contextlib.suppress(OSError):  # a full disk must not stop the exporter, which frees space
            new.write_bytes(msgspec.json.encode(self.progress))
            new.replace(self._path)


def _message(error: Exception) -> str:
    return without_passwords(f"{type(error).__name__}: {error}")[:300]
