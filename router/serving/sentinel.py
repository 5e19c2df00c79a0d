"""What the sentinel found: fetched into the home folder by the exporter, and taken up by every worker.

The sentinel itself is a command of calibration (`python -m calibration watch`), which writes `sentinel.json`. A worker
looks whether that file changed, and swaps the policy for the same one with the types that drifted. So a request costs
nothing more: what drifted is part of the rules. A file that is broken is logged, and what was known stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from router.alerts.alert import Field
from router.alerts.alerts import Alerts
from router.lifetime import running
from router.policy.document import Policy
from router.policy.sentinel import EXPERIMENT, FILE, Sentinel, SentinelError, guarded, parse
from router.serving.champion import fetch_again_and_again, import_mlflow
from router.serving.policy import Serving
from router.settings import Settings
from router.shared_file import Signature, replace, signature

log = logging.getLogger("router")
LOOK_EVERY_SECONDS = 1.0
FETCH_EVERY_SECONDS = 30.0


class Collaborators(Protocol):
    """What drift is acted on by."""

    settings: Settings
    serving: Serving
    alerts: Alerts


def read_sentinel(home: Path) -> Sentinel | None:
    """What the sentinel found; None where there is no file.

    Raises:
        SentinelError: the file cannot be read or does not fit its form; names it.
    """
    path = home / FILE
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SentinelError(f"{path}: cannot be read: {error.strerror}") from error
    except SentinelError as error:
        raise SentinelError(f"{path}: {error}") from error


class SentinelWatch:
    """Looks whether the sentinel's file changed, and has the policy of a router guard what drifted."""

    def __init__(self, worker: Collaborators) -> None:
        self._worker = worker
        self._seen: Signature = None
        self._found: Sentinel | None = None
        self.problem = ""  # why the file is not followed, or nothing

    @property
    def found(self) -> Sentinel | None:
        """What was found of the policy that is served."""
        version = self._worker.serving.policy.version
        return self._found if self._found is not None and self._found.policy == version else None

    def look(self) -> None:
        """Read the file if it is another one, and guard the policy that is served."""
        now = signature(self._worker.settings.home / FILE)
        is_new = now != self._seen
        if is_new:
            self._seen = now
            self._read()
        serving = self._worker.serving
        before, after = serving.policy, guarded(serving.policy, self._found)
        if after is not before:
            serving.policy = after  # one assignment: a request has the one or the other
        if is_new or after is not before:
            self._alert(sorted(after.rules.drifted))

    def _read(self) -> None:
        try:
            self._found = read_sentinel(self._worker.settings.home)
        except SentinelError as error:
            self.problem = str(error)
            log.error("what the sentinel found before stays: %s", error)
        else:
            self.problem = ""

    def _alert(self, types: list[str]) -> None:
        """Tell the owner that these types go to the strong model from now on; each is told once for a policy."""
        version = self._worker.serving.policy.version
        for name in types:
            fields: dict[str, Field] = {"question_type": name, "policy": version}
            its = self.found.types.get(name) if self.found is not None else None
            if its is not None:
                fields |= {"quality_kept": its.kept[1], "floor": its.floor, "judged_pairs": its.pairs}
            self._worker.alerts.alert("drifted", name, self.drift_told(name), fields, occasion=version)

    def drift_told(self, name: str) -> str:
        """A drift in a sentence."""
        rules, found = self._worker.serving.policy.rules, self.found
        its = found.types.get(name) if found is not None else None
        told = f"{name} drifted and goes to {rules.strong.name} until it is recalibrated"
        if its is None:
            return told
        low, estimate, high = its.kept
        return (
            f"{told}: it keeps {estimate:.1%} ({low:.1%} to {high:.1%}) where {its.floor:.1%} is the floor, by "
            f"{its.pairs:,} judged pairs"
        )

    def told(self) -> list[str]:
        """What the owner should know."""
        told = [self.problem] if self.problem else []
        told += [self.drift_told(name) for name in sorted(self._worker.serving.policy.rules.drifted)]
        found = self.found
        if found is None:
            return told
        told += [
            f"requests changed since the calibration: {signal.name} is {signal.value:.3g} where the limit is "
            f"{signal.limit:.3g}, by {signal.n:,} requests"
            for signal in found.shown
        ]
        if found.better:
            told.append(
                f"{', '.join(found.better)} keep more than they were trusted with: a recalibration may send more of "
                "them to the cheap model"
            )
        return told


def guarded_policy(policy: Policy, home: Path) -> Policy:
    """A policy with what drifted under it by the file in `home`; a file that is broken says nothing."""
    try:
        return guarded(policy, read_sentinel(home))
    except SentinelError as error:
        log.error("the sentinel's file is left out: %s", error)
        return policy


@contextlib.asynccontextmanager
async def following_sentinel(watch: SentinelWatch) -> AsyncIterator[None]:
    """Take up what the sentinel finds while the application runs."""
    async with running(_follow(watch)):
        yield


async def _follow(watch: SentinelWatch) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        try:
            watch.look()  # a small file, and rarely another one
        except Exception:  # whatever it is, the next file is looked for
            log.exception("the sentinel's file cannot be followed")


def keep_fetching(settings: Settings, stopping: threading.Event) -> None:
    """Fetch what a sentinel on another machine found, until told to stop. Runs in the exporter.

    Where MLflow's store is SQLite in the home folder, the sentinel writes its file there itself.
    """
    if not settings.tracking_uri.startswith("sqlite:"):
        fetch_again_and_again(fetch, "sentinel", settings, FETCH_EVERY_SECONDS, stopping)


def fetch(settings: Settings, seen: str = "") -> str:
    """Write the newest file of the sentinel's experiment into the home folder, unless it is of the run `seen`.

    Returns the run that it is of, or "" where there is none. A file that is broken is logged and left out.
    """
    import_mlflow()
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=settings.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return seen
    finished, newest = "attributes.status = 'FINISHED'", ["attributes.start_time DESC"]
    runs = client.search_runs([experiment.experiment_id], finished, order_by=newest, max_results=1)
    if not runs or runs[0].info.run_id == seen:
        return seen
    with tempfile.TemporaryDirectory() as folder:
        place = mlflow.artifacts.download_artifacts(
            run_id=runs[0].info.run_id, artifact_path=FILE, dst_path=folder, tracking_uri=settings.tracking_uri
        )
        content = Path(place).read_bytes()
    try:
        parse(content)
    except SentinelError as error:
        log.error("what the sentinel found %s", error)
    else:
        replace(settings.home / FILE, content)  # the exporter alone writes it where the sentinel is elsewhere
    return str(runs[0].info.run_id)
