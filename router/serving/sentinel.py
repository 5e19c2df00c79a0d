"""The sentinel's report: the exporter downloads it to the home folder, and every worker applies it.

The sentinel is a command of calibration (`python -m calibration watch`), which writes `sentinel.json`. When that file
changes, a worker replaces its policy by one whose rules name the drifted question types, so that a request costs
nothing more. An invalid file is logged and changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from router.alerts.alert import Field
from router.alerts.alerts import Alerts
from router.lifetime import repeating
from router.policy.document import Policy
from router.policy.sentinel import EXPERIMENT, FILE, Sentinel, SentinelError, apply_drift, parse
from router.serving.champion import fetch_repeatedly, import_mlflow
from router.serving.policy import Serving
from router.settings import Settings
from router.shared_file import Signature, replace, signature

log = logging.getLogger("router")
CHECK_EVERY_SECONDS = 1.0
FETCH_EVERY_SECONDS = 30.0


class Collaborators(Protocol):
    """What the report is applied to, and who is alerted."""

    settings: Settings
    serving: Serving
    alerts: Alerts


def read_sentinel(home: Path) -> Sentinel | None:
    """The sentinel's report; None if there is no file.

    Raises:
        SentinelError: the file cannot be read or is invalid. The message names it.
    """
    path = home / FILE
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SentinelError(f"{path} cannot be read: {error.strerror}") from error
    except SentinelError as error:
        raise SentinelError(f"{path}: {error}") from error


class SentinelWatch:
    """Applies the sentinel's report to the policy of a worker whenever its file changes."""

    def __init__(self, worker: Collaborators) -> None:
        self._worker = worker
        self._signature: Signature = None
        self._report: Sentinel | None = None
        self.problem = ""  # why the file cannot be read; "" if it can

    @property
    def report(self) -> Sentinel | None:
        """The report, if it is about the policy that is served."""
        report, version = self._report, self._worker.serving.policy.version
        return report if report is not None and report.policy == version else None

    def check(self) -> None:
        """Read the file if it changed, and apply the report to the policy that is served."""
        current = signature(self._worker.settings.home / FILE)
        is_new = current != self._signature
        if is_new:
            self._signature = current
            self._read()
        serving = self._worker.serving
        before, after = serving.policy, apply_drift(serving.policy, self._report)
        if after is not before:
            serving.policy = after  # one assignment, so that a request sees either policy as a whole
        if is_new or after is not before:
            self._alert(sorted(after.rules.drifted))

    def _read(self) -> None:
        try:
            self._report = read_sentinel(self._worker.settings.home)
        except SentinelError as error:
            self.problem = str(error)
            log.error("the sentinel's previous report remains in use: %s", error)
        else:
            self.problem = ""

    def _alert(self, types: list[str]) -> None:
        """Alert the operator that these types go to the strong model; once for each type and policy."""
        version = self._worker.serving.policy.version
        for name in types:
            fields: dict[str, Field] = {"question_type": name, "policy": version}
            status = self.report.types.get(name) if self.report is not None else None
            if status is not None:
                fields |= {"quality_kept": status.kept[1], "floor": status.floor, "judged_pairs": status.pairs}
            self._worker.alerts.alert("drifted", name, self.drift_message(name), fields, occasion=version)

    def drift_message(self, name: str) -> str:
        """A sentence about a question type that drifted."""
        rules, report = self._worker.serving.policy.rules, self.report
        status = report.types.get(name) if report is not None else None
        message = f"{name} drifted and goes to {rules.strong.name} until it is recalibrated"
        if status is None:
            return message
        low, estimate, high = status.kept
        return (
            f"{message}: it keeps {estimate:.1%} of the strong model's quality ({low:.1%} to {high:.1%}, "
            f"{status.pairs:,} judged pairs), below its floor of {status.floor:.1%}"
        )

    def warnings(self) -> list[str]:
        """Warnings for the operator."""
        warnings = [self.problem] if self.problem else []
        warnings += [self.drift_message(name) for name in sorted(self._worker.serving.policy.rules.drifted)]
        report = self.report
        if report is None:
            return warnings
        warnings += [
            f"requests changed since the calibration: {signal.name} is {signal.value:.3g}, above its limit of "
            f"{signal.limit:.3g}, over {signal.n:,} requests"
            for signal in report.significant_signals
        ]
        if report.better:
            warnings.append(
                f"{', '.join(report.better)} keep more quality than the calibration promised; a recalibration may send "
                "more of these requests to the cheap model"
            )
        return warnings


def policy_with_drift(policy: Policy, home: Path) -> Policy:
    """A policy with the drifted question types of the report in `home`, if that is valid."""
    try:
        return apply_drift(policy, read_sentinel(home))
    except SentinelError as error:
        log.error("the sentinel's report is not applied: %s", error)
        return policy


@contextlib.asynccontextmanager
async def following_sentinel(watch: SentinelWatch) -> AsyncIterator[None]:
    """Apply each new report while the context is open."""
    async with repeating(watch.check, CHECK_EVERY_SECONDS):
        yield


def keep_fetching(settings: Settings, stopping: threading.Event) -> None:
    """Download each new report of a sentinel on another machine until `stopping` is set. Runs in the exporter.

    If MLflow's store is SQLite in the home folder, the sentinel writes the file there itself.
    """
    if not settings.tracking_uri.startswith("sqlite:"):
        fetch_repeatedly(fetch, "sentinel", settings, FETCH_EVERY_SECONDS, stopping)


def fetch(settings: Settings, known_run: str = "") -> str:
    """Download the newest report of the sentinel's experiment, unless it is of the run `known_run`.

    Returns its run, or `known_run` if there is none. An invalid report is logged and not written.
    """
    import_mlflow()
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=settings.tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return known_run
    finished, newest = "attributes.status = 'FINISHED'", ["attributes.start_time DESC"]
    runs = client.search_runs([experiment.experiment_id], finished, order_by=newest, max_results=1)
    if not runs or runs[0].info.run_id == known_run:
        return known_run
    with tempfile.TemporaryDirectory() as folder:
        place = mlflow.artifacts.download_artifacts(
            run_id=runs[0].info.run_id, artifact_path=FILE, dst_path=folder, tracking_uri=settings.tracking_uri
        )
        content = Path(place).read_bytes()
    try:
        parse(content)
    except SentinelError as error:
        log.error("the sentinel's report %s", error)
    else:
        replace(settings.home / FILE, content)  # no lock: only the exporter writes a report from another machine
    return str(runs[0].info.run_id)
