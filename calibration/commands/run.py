"""`run`: a calibration from questions to a registered policy."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from calibration.answers import tracking
from calibration.commands.progress import progress_with
from calibration.commands.run_options import RunOptions
from calibration.commands.run_plan import build_plan
from calibration.locations import home
from calibration.pipeline import rounds, run, stopping
from calibration.pipeline.calibration import Calibration
from calibration.pipeline.costs import expected_costs
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.pipeline.rounds import RoundPlan
from calibration.pipeline.stopping import RoundsResult
from calibration.registry import registration
from calibration.reporting.report import write_report
from calibration.reporting.terminal import cost_table, format_terminal
from calibration.spending import Meter, record_spending
from router.policy.document import REGISTERED_MODEL

STOPPED = 3  # the exit code of a calibration that can be resumed
console = Console()


EXAMPLES = """
Examples:

  python -m calibration run --yes

  python -m calibration run --questions mine.csv --models gpt-4.1-nano,gpt-4.1 --budget-usd 5

  python -m calibration run --questions mine.csv --until 0.97 --budget-usd 5

  python -m calibration run --questions mine.csv --from-traffic

  python -m calibration run --questions mine.csv --promise expected --confidence 0.9 --type-margin 0.05

  python -m calibration run --models small,large --endpoint small=http://localhost:11434/v1 --prices mine.json
"""


def run_command(options: RunOptions) -> None:
    """Collect and judge answers of all models, compare the models, and learn a policy (the challenger).

    The command shows the expected cost before the first request. It stores every answer and verdict: an interrupted run
    resumes where it stopped, and a rerun costs nothing. With --until, it asks in rounds and stops at the target.
    """
    plan, round_plan = build_plan(options)
    if plan.traffic:
        console.print(f"Outcomes that `watch` recorded: {len(plan.traffic):,}", highlight=False)
    meter = Meter(plan.prices, options.budget_usd)
    with Ledgers(plan.folder) as ledgers:
        costs = expected_costs(plan, ledgers)
        console.print(cost_table(costs))
        if round_plan is not None:
            console.print(rounds.describe_plan(round_plan), highlight=False)
        if not options.yes and any(cost.calls for cost in costs):
            typer.confirm("Continue?", abort=True)
        result = _calibrate(plan, round_plan, ledgers, meter)
    _publish(result.calibration, plan.folder, plan.seed)
    if result.explanation:
        console.print(result.explanation, highlight=False)
    if result.stop is rounds.Stop.BUDGET:
        raise typer.Exit(STOPPED)


def _calibrate(plan: Plan, round_plan: RoundPlan | None, ledgers: Ledgers, meter: Meter) -> RoundsResult:
    with progress_with(meter, console) as progress:
        try:
            if round_plan is not None:
                return stopping.run_until(plan, round_plan, ledgers, meter, progress)
            return RoundsResult(run.run(plan, ledgers, meter, progress))
        finally:
            record_spending(home() / "spending.jsonl", meter.spent_usd())  # also after an error


def _publish(calibration: Calibration, folder: Path, seed: int) -> None:
    """Write and print the report, and register the policy."""
    written = write_report(calibration, folder)
    console.print(format_terminal(calibration))
    registration.log_calibration(calibration)
    version = registration.register(calibration, seed)
    tracking.close_runs(calibration.runs)
    console.print(f"Report: {written['report.html']} and {written['comparison.csv']}")
    if version is None or calibration.policy is None:
        return
    console.print(
        f"Policy {calibration.policy.version} is version {version} of {REGISTERED_MODEL!r} in MLflow, with alias "
        f"{registration.CHALLENGER!r}. Next: python -m calibration promote"
    )
