"""A calibration from questions to a policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from calibration.answers import tracking
from calibration.pipeline.calibration import Calibration
from calibration.pipeline.collection import collect
from calibration.pipeline.conclusion import conclude
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.pipeline.progress import Progress
from calibration.spending import Meter


def run(plan: Plan, ledgers: Ledgers, meter: Meter, progress: Progress) -> Calibration:
    """Run all stages of a calibration.

    Raises:
        StoppedError: by budget, outage, refusal or interruption. The ledgers keep what was received before.
    """
    with open_runs(plan) as runs:
        return run_stages(plan, ledgers, meter, progress, runs)


@contextmanager
def open_runs(plan: Plan) -> Iterator[tracking.Runs]:
    """The MLflow runs of a calibration. After an error, the same command resumes them."""
    experiment = tracking.prepare(plan.tracking_uri)
    name = f"calibration {datetime.now(UTC):%Y-%m-%d %H:%M}"
    params = {"models": ",".join(plan.models), "judge": plan.scorers.judge, "questions": len(plan.questions)}
    runs = tracking.open_runs(experiment, name, plan.models, params, plan.folder / "run.json")
    try:
        yield runs
    except BaseException:
        tracking.close_runs(runs, "KILLED")
        raise


def run_stages(plan: Plan, ledgers: Ledgers, meter: Meter, progress: Progress, runs: tracking.Runs) -> Calibration:
    """Collect and judge the answers to the plan's questions, compare the models, and learn a policy."""
    return conclude(plan, collect(plan, ledgers, meter, progress, runs), ledgers, meter, progress, runs)
