"""What the exporter does: one exporter at a time takes the journal to every sink (`shipper.py`)."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from router.exporter.process import DRAIN_SECONDS
from router.exporter.shipper import Shipper
from router.journal.redaction import without_passwords
from router.journal.refused import FILE, Refused, RefusedError, park, parked, replace_parked
from router.journal.segments import remove_finished
from router.journal.writer import Entry
from router.lifetime import END_SECONDS

if TYPE_CHECKING:
    from router.exporter.assessments import Assessments
    from router.settings import Settings
    from router.usage.counterfactual import Lengths

log = logging.getLogger(__name__)

KEEP_SECONDS = 3600.0
FEEDBACK_BATCH = 100
FEEDBACK = "feedback"  # the name of assessments beside those of the sinks
TIDY_EVERY_SECONDS = 5.0


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
    for shipper in shippers:
        if shipper.trouble is not None:
            raise shipper.trouble


def again(directory: Path, ways: Mapping[str, Callable[[Entry], object]]) -> int:
    """Ship once more what was put aside; how many entries are left.

    `ways` says by the name of a sink how one entry gets there. Entries of other sinks stay where they are.
    """
    refused = list(parked(directory))
    left: list[Refused] = []
    for each in refused:
        if each.sink not in ways:
            log.warning("no sink is called %s; its entry stays in %s", each.sink, directory / FILE)
            left.append(each)
            continue
        try:
            ways[each.sink](each.entry)
        except RefusedError as refusal:
            left.append(Refused(each.sink, without_passwords(str(refusal))[:300], each.unix, each.entry))
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
    from router.policy.network import BundleError
    from router.serving import champion, sentinel
    from router.settings import SettingsError, load, with_home

    logging.basicConfig(level=logging.INFO, format="%(asctime)s exporter %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = with_home(load())
    try:
        settings.network.check()
    except BundleError as error:
        raise SettingsError(f"setting {error}") from None
    settings.network.prepare(os.environ)  # which MLflow's client reads
    directory = settings.home / "journal"
    stopping = threading.Event()
    _stop_on_signals(stopping)
    if attached:
        _stop_with_parent(stopping)
    with only_one(directory, stopping) as held:
        if not held:
            return 0
        shippers, assessments = shippers_for(settings)
        if once:
            drain(shippers)
            if refused:
                ways = {shipper.name: shipper.ship_again for shipper in shippers}
                return int(again(directory, ways | {FEEDBACK: assessments.assess_again}) > 0)
        else:
            for followed in (champion, sentinel):
                threading.Thread(target=followed.keep_fetching, args=(settings, stopping), daemon=True).start()
            run(directory, shippers, stopping, DRAIN_SECONDS)
    return 0


def shippers_for(settings: Settings) -> tuple[list[Shipper], Assessments]:
    """The usage tables first, since feedback goes from them to MLflow; and what takes it there."""
    from router.exporter.assessments import Assessments
    from router.exporter.tracestore import TraceStore
    from router.serving.policy import prices
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
        lambda feedback, why: park(directory, FEEDBACK, feedback, without_passwords(why)[:300]),
    )
    shippers = [
        Shipper(directory, "usage", ledger, spending.book),
        Shipper(directory, "tallies", tallies),
        Shipper(directory, "mlflow", store, assessments.post),
    ]
    return shippers, assessments


class Answers:
    """How long the models' answers are, by the version of the policy that chose."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, Lengths | None] = {}

    def lengths(self, version: str) -> Lengths | None:
        """The lengths in the policy of that version; in the one that is served now, where that is gone."""
        from router.policy.document import DOCUMENT
        from router.serving.policy import policy_folder
        from router.settings import SettingsError
        from router.usage.counterfactual import read_lengths

        if version not in self._known:
            try:
                self._known[version] = read_lengths((policy_folder(self._settings) / DOCUMENT).read_bytes())
            except (OSError, msgspec.DecodeError, SettingsError) as error:
                log.error("what always-strong would have cost is not known: policy %s: %s", version, error)
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
        time.sleep(DRAIN_SECONDS + END_SECONDS)  # a store that does not answer keeps it no longer
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()
