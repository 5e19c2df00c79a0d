"""Takes the journal to one sink, at the sink's own pace, and retries for ever.

A sink takes a batch of entries and either keeps all of them or raises. Writing again must change nothing, since a batch
is marked as done only after it was kept. An outage is waited for; an entry that can never be kept is put aside.
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
AFTERWARDS_SECONDS = 1.0
SAVE_EVERY_SECONDS = 5.0


class Sink(Protocol):
    """Where entries go."""

    @property
    def batch(self) -> int: ...  # how many at most at a time

    def write(self, entries: Sequence[Entry]) -> None: ...


class Progress(msgspec.Struct, omit_defaults=True):
    """How one reader of the journal fares; in a file beside its cursor, for `/ready` and metrics."""

    exported: int = 0  # entries since the exporter started
    failures: int = 0  # attempts that failed since the last that did not
    error: str = ""
    failing_since_unix: float = 0.0
    updated_unix: float = 0.0


class Shipper:
    """Takes the journal to one sink, in order."""

    def __init__(self, directory: Path, name: str, sink: Sink, afterwards: Callable[[], object] | None = None) -> None:
        """`afterwards` is what else there is to do at that sink, about once a second."""
        self.name = name
        self._afterwards = afterwards
        self._next_afterwards = 0.0
        self.trouble: Exception | None = None  # why what else there is to do failed the last time
        self.cursor = Cursor(directory, name)
        self.progress = Progress()
        self._sink = sink
        self._path = directory / f"{name}.progress"

    def step(self) -> bool:
        """Ship one batch; whether there was one. What the sink raises is raised.

        What else there is to do at the sink comes after it and has failures of its own: it holds up no entry.
        """
        found = self.cursor.batch(self._sink.batch)
        if found is not None:
            segment, entries, end = found
            self._ship(entries)
            self.cursor.advance(segment, end)
            self.progress.exported += len(entries)
        due = time.monotonic() >= self._next_afterwards or (found is None and self.trouble is None)
        if self._afterwards is not None and due:
            self._do_afterwards(self._afterwards)
        return found is not None

    def _do_afterwards(self, afterwards: Callable[[], object]) -> None:
        try:
            afterwards()
        except Exception as error:  # it is tried again, as a batch is
            self.trouble = error
            self._next_afterwards = time.monotonic() + MAX_BACKOFF_SECONDS
            log.warning("%s: what comes after the entries failed and is tried again: %s", self.name, _said(error))
        else:
            self.trouble = None
            self._next_afterwards = time.monotonic() + AFTERWARDS_SECONDS

    def _ship(self, entries: Sequence[Entry]) -> None:
        """Write all that the sink takes; what it refuses is found by halves and put aside."""
        try:
            self._sink.write(entries)
        except RefusedError as refusal:
            if len(entries) > 1:
                half = len(entries) // 2
                self._ship(entries[:half])
                self._ship(entries[half:])
            else:
                park(self.cursor.directory, self.name, entries[0], without_passwords(str(refusal))[:300])

    def ship_again(self, entry: Entry) -> None:
        """Ship an entry that was put aside.

        Raises:
            RefusedError: the sink refuses it once more.
        """
        self._sink.write([entry])

    def run(self, stopping: threading.Event, drain_seconds: float) -> None:
        """Ship until `stopping`, then what is left for up to `drain_seconds`."""
        deadline = float("inf")
        while time.monotonic() < deadline:
            is_draining = stopping.is_set()  # asked before it looks: what was written until then is found
            if is_draining and deadline == float("inf"):
                deadline = time.monotonic() + drain_seconds
            if self._tried():
                continue
            if is_draining and not self.progress.failures:
                return
            pause = self._backoff() if self.progress.failures else IDLE_SECONDS
            if is_draining:
                time.sleep(min(pause, max(deadline - time.monotonic(), 0.0)))
            else:
                stopping.wait(pause)

    def _tried(self) -> bool:
        try:
            shipped = self.step()
        except Exception as error:  # every failure of a sink is one to wait out: the journal keeps what it has
            self._failed(error)
            return False
        if self.progress.failures:
            log.warning("%s: works again after %d failed attempts", self.name, self.progress.failures)
            self.progress.failures, self.progress.error, self.progress.failing_since_unix = 0, "", 0.0
            self._save()
        elif shipped or time.time() - self.progress.updated_unix > SAVE_EVERY_SECONDS:
            self._save()
        return shipped

    def _failed(self, error: Exception) -> None:
        self.progress.failures += 1
        self.progress.error = _said(error)
        self.progress.failing_since_unix = self.progress.failing_since_unix or time.time()
        log.log(
            logging.WARNING if self.progress.failures < 3 else logging.ERROR,
            "%s: attempt %d failed, nothing is lost and it is tried again: %s",
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
        with contextlib.suppress(OSError):  # a full disk must not stop what frees it
            new.write_bytes(msgspec.json.encode(self.progress))
            new.replace(self._path)


def _said(error: Exception) -> str:
    return without_passwords(f"{type(error).__name__}: {error}")[:300]
