"""The exporter: one process at a time exports the journal to every sink (`shipper.py`)."""

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
    """Lock the journal for this exporter, waiting for another exporter to end.

    Yields False if `stopping` is set in the meantime.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "exporter.lock").open("w") as lock:
        is_logged = False
        while True:  # at least one attempt: an exporter that is stopped during its start still exports the journal
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
                return
            if not is_logged:
                log.warning("another exporter is running, perhaps that of `serve`; this one waits until it ends")
                is_logged = True
            if stopping.wait(0.2):
                yield False
                return


def run(directory: Path, shippers: Sequence[Shipper], stopping: threading.Event, drain_seconds: float) -> None:
    """Export to every sink until `stopping` is set; remove the segments that every sink has stored."""
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
    """Export everything once. Errors of a sink are raised."""
    for shipper in shippers:
        while shipper.step():
            pass
    for shipper in shippers:
        if shipper.follow_up_error is not None:
            raise shipper.follow_up_error


def retry_refused(directory: Path, retries: Mapping[str, Callable[[Entry], object]]) -> int:
    """Export the entries that were set aside again, and return how many are left.

    `retries` holds, by the name of a sink, the function that exports one entry. Entries of other sinks are kept.
    """
    refused = list(parked(directory))
    left: list[Refused] = []
    for each in refused:
        if each.sink not in retries:
            log.warning("unknown sink %s: its entry stays in %s", each.sink, directory / FILE)
            left.append(each)
            continue
        try:
            retries[each.sink](each.entry)
        except RefusedError as refusal:
            left.append(Refused(each.sink, without_passwords(str(refusal))[:300], each.unix, each.entry))
    if refused:
        replace_parked(directory, left)
    log.info("exported %d of %d entries that were set aside", len(refused) - len(left), len(refused))
    return len(left)


def _tidy(directory: Path, shippers: Sequence[Shipper]) -> None:
    try:
        remove_finished(directory, [shipper.cursor for shipper in shippers], KEEP_SECONDS)
    except OSError as error:
        log.warning("journal: cannot remove old segments: %s", error)


def main(*, once: bool = False, attached: bool = False, refused: bool = False) -> int:
    """Run the exporter and return the exit code."""
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
    settings.network.export_to(os.environ)  # read by MLflow's client
    directory = settings.home / "journal"
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    if attached:
        _stop_with_parent(stopping)
    else:
        signal.signal(signal.SIGINT, lambda *_: stopping.set())
    with only_one(directory, stopping) as held:
        if not held:
            return 0
        shippers, assessments = shippers_for(settings)
        if once:
            drain(shippers)
            if refused:
                retries = {shipper.name: shipper.retry for shipper in shippers}
                return int(retry_refused(directory, retries | {FEEDBACK: assessments.retry}) > 0)
        else:
            for followed in (champion, sentinel):
                threading.Thread(target=followed.keep_fetching, args=(settings, stopping), daemon=True).start()
            run(directory, shippers, stopping, DRAIN_SECONDS)
    return 0


def shippers_for(settings: Settings) -> tuple[list[Shipper], Assessments]:
    """A shipper for each sink, and the assessments. The usage tables come first: feedback goes from them to MLflow."""
    from router.exporter.assessments import Assessments
    from router.exporter.tracestore import TraceStore
    from router.serving.policy import prices
    from router.usage.ledger import CalibrationSpending, Ledger, pending_feedback, settle_feedback
    from router.usage.tallies import Tallies

    directory, book = settings.home / "journal", prices(settings)
    lengths = AnswerLengths(settings).lengths
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


class AnswerLengths:
    """The lengths of the models' answers, by policy version."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, Lengths | None] = {}

    def lengths(self, version: str) -> Lengths | None:
        """The lengths in the policy that is served now, read once for each version that records name."""
        from router.policy.document import DOCUMENT
        from router.serving.policy import policy_folder
        from router.settings import SettingsError
        from router.usage.counterfactual import read_lengths

        if version not in self._known:
            try:
                self._known[version] = read_lengths((policy_folder(self._settings) / DOCUMENT).read_bytes())
            except (OSError, msgspec.DecodeError, SettingsError) as error:
                log.error("cannot compute the cost of always using the strong model: policy %s: %s", version, error)
                self._known[version] = None
        return self._known[version]


def _stop_with_parent(stopping: threading.Event) -> None:
    """Stop when the parent dies, even by `kill -9`: standard input is a pipe that then ends."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        stopping.set()
        time.sleep(DRAIN_SECONDS + END_SECONDS)  # a store that does not answer must not keep the process alive
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()
