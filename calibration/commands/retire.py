"""`retire`: compare retiring models with new models, and learn a policy for the new ones."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from calibration.answers import tracking
from calibration.commands.endpoints import build_endpoint, build_judge_endpoint, parse_addresses, parse_parameters
from calibration.commands.options import (
    BudgetUsd,
    Concurrency,
    EndpointOption,
    Judge,
    MaxOutputTokens,
    Parameters,
    Prices,
    Seed,
    SystemPrompt,
    UsageError,
    Yes,
    parse_models,
    parse_names,
)
from calibration.commands.progress import progress_with
from calibration.judging import judgements
from calibration.ledger import Ledger
from calibration.locations import home, tracking_uri
from calibration.pipeline.calibration import Calibration
from calibration.pipeline.costs import expected_costs
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.policies import default_judge, load_prices, models_named
from calibration.questions.questions import DEFAULT_SYSTEM_PROMPT, read
from calibration.registry import registration
from calibration.reporting.report import write_report
from calibration.reporting.terminal import cost_table
from calibration.retirement import migration, probes
from calibration.retirement import report as retirement_report
from calibration.retirement.report import RetirementReport
from calibration.retirement.shutdown_dates import find_shutdowns
from calibration.spending import Meter, record_spending
from calibration.traffic.recorded_answers import sample_recorded_answers
from calibration.traffic.traffic import recorded_bodies
from router.policy.distribution import QUESTIONS

console = Console()
EXAMPLES = """
Examples:

  python -m calibration retire --to gpt-6-luna,gpt-6-sol --dry-run

  python -m calibration retire --to gpt-6-luna:none,gpt-6-sol:low --budget-usd 5 --traffic 30d

  python -m calibration retire --from gpt-5-mini,gpt-5 --to gpt-6-luna,gpt-6-sol --on 2026-12-11
"""


def retire_command(
    to: Annotated[str, typer.Option("--to", help="New models, from cheap to strong, comma-separated.")],
    leave: Annotated[
        str,
        typer.Option("--from", help="Retiring models, from cheap to strong. Default: the models of the champion."),
    ] = "",
    on: Annotated[
        str,
        typer.Option(help="Shutdown date of the retiring models. Default: the date in their upstream's model list."),
    ] = "",
    questions: Annotated[str, typer.Option(help="Questions of the last calibration.")] = str(QUESTIONS),
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of the last calibration. Default: ROUTER_HOME/calibration.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report. Default: ROUTER_HOME/retirement.")] = None,
    traffic: Annotated[
        str, typer.Option(help="Probe the request shapes in the recorded traffic of this period, such as 30d.")
    ] = "",
    traffic_sample: Annotated[
        int, typer.Option(min=0, help="Number of recorded requests, with their content, to send to the new models.")
    ] = 0,
    ask_old: Annotated[
        bool, typer.Option("--ask-old", help="Ask the retiring models the questions that they have not answered yet.")
    ] = False,
    judge: Judge = "",
    endpoint: EndpointOption = None,
    system: SystemPrompt = DEFAULT_SYSTEM_PROMPT,
    parameters: Parameters = "{}",
    max_output_tokens: MaxOutputTokens = 2000,
    budget_usd: BudgetUsd = None,
    prices: Prices = None,
    concurrency: Concurrency = 16,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the expected calls and costs and exit.")] = False,
    yes: Yes = False,
    seed: Seed = 0,
) -> None:
    """Compare retiring models with new models, and learn a policy for the new models: the challenger.

    Stored answers are reused, so the retiring models cost nothing. One judge scores the answers of old and new models.
    Each new model gets one probe per request shape, which shows the parameters that it rejects. An interrupted command
    continues where it stopped.
    """
    today = datetime.now(UTC).date()
    table = load_prices(prices)
    tracking.prepare(tracking_uri())
    old_policy = migration.load_old_policy()
    old = parse_names(leave) or [model.name for model in old_policy.policy.rules.models]
    new = parse_models("--to", to)
    if traffic_sample and not traffic:
        raise UsageError(f"--traffic-sample {traffic_sample}: give the period with --traffic, such as 30d")
    judge = judge or default_judge(today)
    models_named([*new, *old, judge], table)  # raises if a model has no price
    addresses, sent = parse_addresses(endpoint), parse_parameters(parameters)
    folder = out or home() / "retirement"
    plan = Plan(
        questions=read(questions, system),
        endpoints={
            name: build_endpoint(name, addresses, max_output_tokens, sent) for name in dict.fromkeys((*new, *old))
        },
        judge=build_judge_endpoint(judge, addresses),
        scorers=judgements.Scorers.load(judgements.DEFAULT_SCORERS, f"openai:/{judge}"),
        prices=table,
        folder=folder,
        tracking_uri=tracking_uri(),
        seed=seed,
        concurrency=concurrency,
        about={
            "questions_from": questions.rsplit("/", 1)[-1],
            "prices_as_of": table.as_of,
            "retires": old,
            **migration.transferred_prior(old_policy, old, new, table),
        },
    )
    retiring = {**{name: plan.endpoints[name] for name in old}, judge: plan.judge}
    bodies = recorded_bodies(traffic, tracking_uri()) if traffic else []
    task = migration.Task(
        plan=plan,
        old_policy=old_policy,
        old=old,
        new=new,
        shapes=[*probes.standard_shapes(), *probes.extract_shapes(bodies)],
        shutdowns=find_shutdowns(retiring, _parse_date(on)),
        today=today,
        traffic=sample_recorded_answers(traffic, tracking_uri(), traffic_sample, seed) if traffic_sample else [],
    )
    folder.mkdir(parents=True, exist_ok=True)
    meter = Meter(table, budget_usd)
    with (
        Ledgers(calibration or home() / "calibration") as ledgers,
        Ledger(folder / "probes.jsonl") as probe_ledger,
    ):
        task, unanswered = (task, 0) if ask_old else migration.restrict_to_answered(task, ledgers.answers)
        _print_expected(task, ledgers, unanswered)
        if dry_run:
            return
        if not yes:
            typer.confirm("Continue?", abort=True)
        try:
            with progress_with(meter, console) as progress:
                report, new_calibration = migration.run_retirement(task, ledgers, probe_ledger, meter, progress)
        finally:
            record_spending(home() / "spending.jsonl", meter.spent_usd())  # billed even if the command stops
    _write_results(report, new_calibration, folder, seed)


def _print_expected(task: migration.Task, ledgers: Ledgers, unanswered: int) -> None:
    """Print the shutdown dates, and the expected calls and costs."""
    new = ", ".join(task.new)
    for shutdown in task.shutdowns:
        console.print(shutdown.describe(task.today), highlight=False)
    console.print(cost_table(expected_costs(task.plan, ledgers)))
    probes_usd = probes.expected_probes_usd(task.shapes, task.new, task.plan.prices)
    lines = [f"plus {len(task.shapes)} probes of request shapes to each of {new}, about ${probes_usd:.4f}"]
    if task.traffic:
        lines.append(
            f"plus {len(task.traffic):,} recorded requests, with their content, to each of {new}, "
            "judged by completeness"
        )
    if unanswered:
        lines.append(
            f"{unanswered:,} questions without a stored answer of {' and '.join(task.old)} are left out; "
            "--ask-old asks them"
        )
    for line in lines:
        console.print(line, highlight=False)


def _write_results(report: RetirementReport, calibration: Calibration, folder: Path, seed: int) -> None:
    """Write and print the report, and register the policy for the new models."""
    written = write_report(calibration, folder)
    page = folder / "retirement.md"
    page.write_text(retirement_report.format_markdown(report), encoding="utf-8")
    (folder / "retirement.json").write_text(json.dumps(report.as_json()), encoding="utf-8")
    console.print(retirement_report.format_terminal(report))
    registration.log_calibration(calibration, [page, folder / "retirement.json"])
    version = registration.register(calibration, seed)
    tracking.close_runs(calibration.runs)
    console.print(f"Report: {page}; calibration of the new models: {written['report.html']}", highlight=False)
    if version is not None:
        console.print(
            f"The policy for {', '.join(report.new)} is version {version}, with alias {registration.CHALLENGER!r}. "
            "Next: python -m calibration promote",
            highlight=False,
            soft_wrap=True,
        )


def _parse_date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise UsageError(f"--on {text}: expected a date such as 2027-01-14") from error
