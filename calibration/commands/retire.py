"""`retire`: what changes when the models of a policy leave, and the policy for those that follow."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from calibration.answers import tracking
from calibration.commands.endpoints import endpoint_of, parameters_of, places_of
from calibration.commands.options import Judge, MaxOutputTokens, Parameters, UsageError
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
from calibration.reporting import report
from calibration.retirement import migration
from calibration.retirement import report as retirement_report
from calibration.retirement.probes import probes_usd, shapes_of, standard_shapes
from calibration.retirement.shutdown_dates import leaving
from calibration.spending import Meter, record_spending
from calibration.traffic.answered import sampled
from calibration.traffic.traffic import bodies_since
from router.policy.distribution import QUESTIONS

console = Console()
EXAMPLES = """
Examples:

  python -m calibration retire --to gpt-6-luna,gpt-6-sol --dry-run

  python -m calibration retire --to gpt-6-luna:none,gpt-6-sol:low --budget-usd 5 --traffic 30d

  python -m calibration retire --from gpt-5-mini,gpt-5 --to gpt-6-luna,gpt-6-sol --on 2026-12-11
"""


def retire_command(
    to: Annotated[str, typer.Option("--to", help="The models that follow, cheap to strong, comma-separated.")],
    leave: Annotated[
        str, typer.Option("--from", help="The models that leave, cheap to strong. Default: those of the policy.")
    ] = "",
    on: Annotated[str, typer.Option(help="The day on which they leave. Default: as their upstream says.")] = "",
    questions: Annotated[
        str, typer.Option(help="The questions of the last calibration, whose answers are kept.")
    ] = str(QUESTIONS),
    calibration: Annotated[
        Path | None, typer.Option(help="The folder of the last calibration. Default: ROUTER_HOME/calibration.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the report goes. Default: ROUTER_HOME/retirement.")] = None,
    traffic: Annotated[str, typer.Option(help="Read the shapes of requests from traffic that far back, as 30d.")] = "",
    traffic_sample: Annotated[
        int, typer.Option(min=0, help="So many of these requests are answered by the new models too, and compared.")
    ] = 0,
    ask_old: Annotated[
        bool, typer.Option("--ask-old", help="Ask the leaving models what they have not answered yet.")
    ] = False,
    judge: Judge = "",
    endpoint: Annotated[
        list[str] | None, typer.Option(help="MODEL=URL, or MODEL=URL,KEY_VARIABLE, for a model that lives elsewhere.")
    ] = None,
    system: Annotated[str, typer.Option(help="The system prompt of questions that have none.")] = DEFAULT_SYSTEM_PROMPT,
    parameters: Parameters = "{}",
    max_output_tokens: MaxOutputTokens = 2000,
    budget_usd: Annotated[float | None, typer.Option(min=0, help="Stop before this is crossed.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Prices that add to or replace data/prices.json.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Questions under way at once.")] = 16,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked and cost; ask nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending.")] = False,
    seed: Annotated[int, typer.Option(help="Chance is an argument: the same seed gives the same policy.")] = 0,
) -> None:
    """Compare the models that leave with those that follow, and learn a policy for these: the challenger.

    Answers that are kept are not asked again, so the leaving models cost nothing. One judge judges old and new. Every
    shape of request is sent once to each new model, to see what it refuses. An interrupted run goes on where it was.
    """
    today = datetime.now(UTC).date()
    table = load_prices(prices)
    tracking.prepare(tracking_uri())
    before = migration.old_policy()
    old = _names(leave) or [model.name for model in before.policy.rules.models]
    new = _names(to)
    if len(new) < 2 or len(set(new)) < len(new):
        raise UsageError(f"--to {to!r}: name two models or more, each once, from cheap to strong")
    judge = judge or default_judge(today)
    models_named([*new, *old, judge], table)
    places, sent = places_of(endpoint or []), parameters_of(parameters)
    endpoints = {name: endpoint_of(name, places, max_output_tokens, sent) for name in dict.fromkeys((*new, *old))}
    judged_by = endpoint_of(judge, places, 2000, {"temperature": 0})
    folder, kept_in = out or home() / "retirement", calibration or home() / "calibration"
    gone = leaving({**{name: endpoints[name] for name in old}, judge: judged_by}, _day(on))
    asked = read(questions, system)
    plan = Plan(
        questions=asked,
        endpoints=endpoints,
        judge=judged_by,
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
            **migration.prior_of(before, old, new, table),
        },
    )
    shapes = [*standard_shapes(), *shapes_of(bodies_since(traffic, tracking_uri()) if traffic else [])]
    if traffic_sample and not traffic:
        raise UsageError(f"--traffic-sample {traffic_sample}: say how far back with --traffic, such as 30d")
    samples = sampled(traffic, tracking_uri(), traffic_sample, seed) if traffic_sample else []
    folder.mkdir(parents=True, exist_ok=True)
    meter = Meter(table, budget_usd)
    with Ledgers(kept_in) as ledgers, Ledger(folder / "probes.jsonl") as probes:
        plan, without = (plan, 0) if ask_old else migration.answered(plan, old, ledgers.answers)
        for each in gone:
            console.print(each.told(today), highlight=False)
        console.print(report.cost_table(expected_costs(plan, ledgers)))
        console.print(
            f"and {len(shapes)} shapes of requests to each of {', '.join(new)}, about "
            f"${probes_usd(shapes, new, table):.4f}",
            highlight=False,
        )
        if samples:
            console.print(
                f"and {len(samples):,} requests of your traffic to each of {', '.join(new)}, words included, judged by "
                "completeness",
                highlight=False,
            )
        if without:
            console.print(
                f"{without:,} questions are left out, which {' and '.join(old)} have not answered: --ask-old asks them",
                highlight=False,
            )
        if dry_run:
            return
        if not yes:
            typer.confirm("Continue?", abort=True)
        try:
            with progress_with(meter, console) as progress:
                task = migration.Task(plan, before, old, new, shapes, gone, today, samples)
                found, made = migration.run(task, ledgers, probes, meter, progress)
        finally:
            record_spending(home() / "spending.jsonl", meter.spent_usd())  # paid, whatever became of it
    _show(found, made, folder, seed)


def _show(found: retirement_report.Found, made: Calibration, folder: Path, seed: int) -> None:
    """Write and print the report, and register the policy for the new models."""
    written = report.write(made, folder)
    page = folder / "retirement.md"
    page.write_text(retirement_report.as_markdown(found), encoding="utf-8")
    (folder / "retirement.json").write_text(json.dumps(found.as_json()), encoding="utf-8")
    console.print(retirement_report.printed(found))
    registration.log(made, [page, folder / "retirement.json"])
    version = registration.register(made, seed)
    tracking.close_runs(made.runs)
    console.print(f"Report: {page}; the new models by themselves: {written['report.html']}", highlight=False)
    if version is not None:
        console.print(
            f"The policy for {', '.join(found.new)} is version {version}, with alias {registration.CHALLENGER!r}. "
            "Next: python -m calibration promote",
            highlight=False,
            soft_wrap=True,
        )


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise UsageError(f"--on {text}: expected a day such as 2027-01-14") from error
