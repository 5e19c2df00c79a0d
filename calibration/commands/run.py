"""`run`, `report`, `promote` and `rollback`: what they ask for, what they show, and how they end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from calibration.answers import tracking
from calibration.commands.endpoints import build_endpoint, build_judge_endpoint, parse_addresses, parse_parameters
from calibration.commands.options import (
    Confidence,
    EndpointOption,
    Jobs,
    Judge,
    MaxOutputTokens,
    Parameters,
    Prices,
    PromiseOption,
    Ray,
    TypeMargin,
    Until,
    UsageError,
)
from calibration.commands.progress import progress_with
from calibration.judging.judgements import DEFAULT_SCORERS, Scorers
from calibration.learning.certificate import CONFIDENCE, TYPE_MARGIN
from calibration.locations import home, tracking_uri
from calibration.outcomes import Outcome
from calibration.pipeline import rounds, run, stopping
from calibration.policies import default_judge, load_prices, models_named, read_policy
from calibration.questions.questions import DEFAULT_SYSTEM_PROMPT, read
from calibration.questions.sources import MLFLOW_DATASET
from calibration.registry import registration
from calibration.reporting.report import write_report
from calibration.reporting.terminal import cost_table, format_terminal
from calibration.sentinel.ledgers import FOLDER, SentinelLedgers
from calibration.spending import Meter, book
from router.policy.decision import Promise
from router.policy.distribution import QUESTIONS, SHIPPED
from router.policy.document import REGISTERED_MODEL

STOPPED = 3  # the exit code of a calibration that can go on
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


def run_command(
    questions: Annotated[
        str,
        typer.Option(
            help="A file (.jsonl, .csv, .parquet, ...) or mlflow:NAME for a dataset of MLflow.",
            show_default="the 640 shipped ones",
        ),
    ] = str(QUESTIONS),
    models: Annotated[str, typer.Option(help="Two models or more, cheap to strong, comma-separated.")] = (
        "gpt-4o-mini,gpt-4o"
    ),
    out: Annotated[Path | None, typer.Option(help="Where everything goes. Default: ROUTER_HOME/calibration.")] = None,
    judge: Judge = "",
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="correctness, completeness or package.module:name; repeatable. Default: both."),
    ] = None,
    endpoint: EndpointOption = None,
    system: Annotated[str, typer.Option(help="The system prompt of questions that have none.")] = DEFAULT_SYSTEM_PROMPT,
    parameters: Parameters = "{}",
    max_output_tokens: MaxOutputTokens = 2000,
    from_traffic: Annotated[
        bool, typer.Option("--from-traffic", help="Learn from what the sentinel compared too (`watch`); costs nothing.")
    ] = False,
    until: Until = None,
    budget_usd: Annotated[float | None, typer.Option(min=0, help="Stop before this is crossed.")] = None,
    prices: Prices = None,
    types_from: Annotated[
        Path | None,
        typer.Option(help="A policy that tells the type of questions without one; else they are clustered."),
    ] = None,
    prior: Annotated[
        bool, typer.Option("--prior/--no-prior", help="Start from what the shipped policy knows of each type.")
    ] = True,
    confidence: Confidence = CONFIDENCE,
    promise: PromiseOption = Promise.CERTIFIED,
    type_margin: TypeMargin = TYPE_MARGIN,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Questions under way at once.")] = 16,
    batch: Annotated[bool, typer.Option("--batch", help="OpenAI's Batch API: half the price, within a day.")] = False,
    jobs: Jobs = 1,
    ray: Ray = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")] = False,
    seed: Annotated[int, typer.Option(help="Chance is an argument: the same seed gives the same policy.")] = 0,
) -> None:
    """Ask the models, judge their answers, compare them, and learn a policy: the challenger.

    The expected cost is shown before the first call. What was answered and judged is kept, so that an interrupted run
    goes on where it was and a rerun costs nothing. With --until it asks in rounds, no further than the target takes.
    """
    names = [name.strip() for name in models.split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"--models {models!r}: name two models or more, each once")
    if until is not None and promise is Promise.EXPECTED:
        raise UsageError("--until asks for a certified target: leave --promise expected out")
    judge = judge or default_judge()
    folder = out or home() / "calibration"
    table = load_prices(prices)
    models_named([*names, judge], table)  # a model without a price is refused before anything is asked
    addresses = parse_addresses(endpoint)
    sent = parse_parameters(parameters)
    if questions.startswith(MLFLOW_DATASET):
        tracking.prepare(tracking_uri())
    traffic = _traffic(names) if from_traffic else []
    plan = run.Plan(
        questions=read(questions, system),
        endpoints={name: build_endpoint(name, addresses, max_output_tokens, sent) for name in names},
        judge=build_judge_endpoint(judge, addresses),
        scorers=Scorers.load(scorer or DEFAULT_SCORERS, f"openai:/{judge}"),
        prices=table,
        folder=folder,
        tracking_uri=tracking_uri(),
        seed=seed,
        concurrency=concurrency,
        batch=batch,
        jobs=jobs,
        ray=ray,
        known_types=read_policy(types_from) if types_from else None,
        confidence=confidence,
        promise=promise,
        type_margin=type_margin,
        about={
            "questions_from": questions.rsplit("/", 1)[-1],
            "prices_as_of": table.as_of,
            **({"prior": read_policy(SHIPPED).version} if prior else {}),
            **({"from_traffic": len(traffic)} if from_traffic else {}),
        },
        traffic=traffic,
    )
    meter = Meter(table, budget_usd)
    looks = None
    if until is not None:
        plan, looks = stopping.planned(plan, until)
    with run.Ledgers(folder) as ledgers:
        expected = run.expected(plan, ledgers)
        console.print(cost_table(expected))
        if looks is not None:
            console.print(rounds.plan_told(looks), highlight=False)
        if not yes and any(each.calls for each in expected):
            typer.confirm("Go on?", abort=True)
        ended = _calibrated(plan, looks, ledgers, meter)
    _show(ended.found, folder, plan.seed)
    if ended.told:
        console.print(ended.told, highlight=False)
    if ended.stop is rounds.Stop.BUDGET:
        raise typer.Exit(STOPPED)


def _traffic(models: Sequence[str]) -> list[Outcome]:
    """What the sentinel compared of these models.

    Raises:
        UsageError: there is nothing.
    """
    folder = home() / "calibration" / FOLDER
    found = []
    if folder.is_dir():
        with SentinelLedgers(folder) as ledgers:
            found = ledgers.outcomes(models)
    if not found:
        raise UsageError(
            f"--from-traffic: the sentinel has compared nothing of {' and '.join(models)} yet; run `watch`"
        )
    console.print(f"{len(found):,} pairs that the sentinel compared are learnt from too", highlight=False)
    return found


def _calibrated(plan: run.Plan, looks: rounds.Looks | None, ledgers: run.Ledgers, meter: Meter) -> stopping.Ended:
    with progress_with(meter, console) as progress:
        try:
            if looks is not None:
                return stopping.run_until(plan, looks, ledgers, meter, progress)
            return stopping.Ended(run.run(plan, ledgers, meter, progress))
        finally:
            book(home() / "spending.jsonl", meter.spent_usd())  # paid, whatever became of it


def _show(found: run.Calibration, folder: Path, seed: int) -> None:
    """Write and print the report, and register the policy."""
    written = write_report(found, folder)
    console.print(format_terminal(found))
    registration.log_calibration(found)
    version = registration.register(found, seed)
    tracking.close_runs(found.runs)
    console.print(f"Report: {written['report.html']} and {written['comparison.csv']}")
    if version is None:
        return
    console.print(
        f"Policy {found.policy.version if found.policy else ''} is version {version} of {REGISTERED_MODEL!r} in "
        f"MLflow, with alias {registration.CHALLENGER!r}. Next: python -m calibration promote"
    )
