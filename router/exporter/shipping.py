"""What the exporter does: takes the journal to every sink, each at its own pace, and retries for ever.

A sink takes a batch of entries and either keeps all of them or raises. Writing again must change nothing, since a batch
is marked as done only after it was kept. An outage is waited for; an entry that can never be kept is put aside.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from router.exporter.process import DRAIN_SECONDS
from router.journal.redaction import without_keys
from router.journal.refused import Refused, RefusedError, park, parked, replace_parked
from router.journal.segments import Cursor, remove_finished
from router.journal.writer import Entry

if TYPE_CHECKING:
    from router.settings import Settings
    from router.usage.counterfactual import Lengths

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 15.0
AFTERWARDS_SECONDS = 1.0
KEEP_SECONDS = 3600.0
_LOGIN = re.compile(r"//[^/\s@]+@")
FEEDBACK_BATCH = 100
TIDY_EVERY_SECONDS = 5.0


def without_passwords(text: str) -> str:
    """A message without keys, and without who logs in where an address says so.

    >>> without_passwords("no answer from https://ada:secret@mlflow.example.org/v1")
    'no answer from https://[login]@mlflow.example.org/v1'
    """
    return without_keys(_LOGIN.sub("//[login]@", text))


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
        self.cursor = Cursor(directory, name)
        self.progress = Progress()
        self._sink = sink
        self._path = directory / f"{name}.progress"

    def step(self) -> bool:
        """Ship one batch; whether there was one. What the sink raises is raised."""
        found = self.cursor.batch(self._sink.batch)
        if self._afterwards is not None and (found is None or time.monotonic() >= self._next_afterwards):
            self._afterwards()
            self._next_afterwards = time.monotonic() + AFTERWARDS_SECONDS
        if found is None:
            return False
        segment, entries, end = found
        self._ship(entries)
        self.cursor.advance(segment, end)
        self.progress.exported += len(entries)
        return True

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

    def try_again(self, refused: Sequence[Refused]) -> list[Refused]:
        """Ship what was put aside; those that are refused once more are given back."""
        left = []
        for each in refused:
            try:
                self._sink.write([each.entry])
            except RefusedError as refusal:
                left.append(Refused(each.sink, without_passwords(str(refusal))[:300], each.unix, each.entry))
        return left

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
        elif shipped or time.time() - self.progress.updated_unix > TIDY_EVERY_SECONDS:
            self._save()
        return shipped

    def _failed(self, error: Exception) -> None:
        self.progress.failures += 1
        self.progress.error = without_passwords(f"{type(error).__name__}: {error}")[:300]
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


@contextlib.contextmanager
def only_one(directory: Path, stopping: threading.Event) -> Iterator[bool]:
    """Hold the journal for this exporter; waits for another one to end. False where it is told to stop meanwhile."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "exporter.lock").open("w") as lock:
        told = False
        while True:  # tried at least once: who is told to stop while it starts has still to export what is there
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
                return
            if not told:
                log.warning("another exporter is running, that of `serve` perhaps; this one begins when it ends")
                told = True
            if stopping.wait(0.2):
                yield False
                return


def run(directory: Path, shippers: Sequence[Shipper], stopping: threading.Event, drain_seconds: float) -> None:
    """Ship to every sink until told to stop; remove what every sink has and nobody needs any more."""
    threads = [
        threading.Thread(target=shipper.run, args=(stopping, drain_seconds), name=shipper.name) for shipper in shippers
    ]
    for thread in threads:
        thread.start()
    while not stopping.wait(TIDY_EVERY_SECONDS):
        _tidy(directory, shippers)
    for thread in threads:
        thread.join()


def drain(shippers: Sequence[Shipper]) -> None:
    """Ship all there is, once; what a sink raises is raised."""
    for shipper in shippers:
        while shipper.step():
            pass


def again(directory: Path, shippers: Sequence[Shipper]) -> int:
    """Ship once more what was put aside; how many are left."""
    refused = list(parked(directory))
    left: list[Refused] = []
    for shipper in shippers:
        left += shipper.try_again([each for each in refused if each.sink == shipper.name])
    if refused:
        replace_parked(directory, left)
    log.info("%d of %d entries that were put aside were shipped", len(refused) - len(left), len(refused))
    return len(left)


def _tidy(directory: Path, shippers: Sequence[Shipper]) -> None:
    try:
        remove_finished(directory, [shipper.cursor for shipper in shippers], KEEP_SECONDS)
    except OSError as error:
        log.warning("journal: old segments could not be removed: %s", error)


def main(*, once: bool = False, attached: bool = False, refused: bool = False) -> int:
    """Run the exporter; the exit code."""
    from router.champion import keep_fetching
    from router.settings import load, with_home

    logging.basicConfig(level=logging.INFO, format="%(asctime)s exporter %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = with_home(load())
    directory = settings.home / "journal"
    stopping = threading.Event()
    _stop_on_signals(stopping)
    if attached:
        _stop_with_parent(stopping)
    with only_one(directory, stopping) as held:
        if not held:
            return 0
        shippers = shippers_for(settings)
        if once:
            drain(shippers)
            if refused:
                return int(again(directory, shippers) > 0)
        else:
            threading.Thread(target=keep_fetching, args=(settings, stopping), name="champion", daemon=True).start()
            run(directory, shippers, stopping, DRAIN_SECONDS)
    return 0


def shippers_for(settings: Settings) -> list[Shipper]:
    """The usage tables first, since feedback goes from them to MLflow."""
    from router.exporter.tracestore import Assessments, TraceStore
    from router.serving import prices
    from router.usage.ledger import CalibrationSpending, Ledger, pending_feedback, settle_feedback
    from router.usage.tallies import Tallies

    directory, book = settings.home / "journal", prices(settings)
    lengths = Answers(settings).lengths
    ledger = Ledger(settings.usage_url, book, lengths)
    spending = CalibrationSpending(ledger.engine, settings.home / "spending.jsonl")
    tallies = Tallies(settings.home / "tallies.db", book, lengths)
    store = TraceStore(settings, book)
    assessments = Assessments(
        store,
        lambda: pending_feedback(ledger.engine, FEEDBACK_BATCH),
        lambda ids, state: settle_feedback(ledger.engine, ids, state),
    )
    return [
        Shipper(directory, "usage", ledger, spending.book),
        Shipper(directory, "tallies", tallies),
        Shipper(directory, "mlflow", store, assessments.post),
    ]


class Answers:
    """How long the models' answers are, by the version of the policy that chose."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, Lengths | None] = {}

    def lengths(self, version: str) -> Lengths | None:
        """The lengths in the policy of that version; in the one that is served now, where that is gone."""
        from router.policy.document import DOCUMENT
        from router.serving import policy_folder
        from router.usage.counterfactual import read_lengths

        if version not in self._known:
            path = policy_folder(self._settings) / DOCUMENT
            try:
                self._known[version] = read_lengths(path.read_bytes())
            except (OSError, msgspec.DecodeError) as error:
                log.error("what always-strong would have cost is not known: %s: %s", path, error)
                self._known[version] = None
        return self._known[version]


def _stop_on_signals(stopping: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())


def _stop_with_parent(stopping: threading.Event) -> None:
    """Standard input is a pipe whose other end dies with the parent, even by `kill -9`."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        stopping.set()

    threading.Thread(target=wait, name="parent", daemon=True).start()
