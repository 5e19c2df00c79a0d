"""`watch`: run the sentinel once, or repeatedly until it is stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calibration.answers import tracking
from calibration.commands.endpoints import build_endpoint, build_judge_endpoint, parse_addresses, parse_parameters
from calibration.commands.options import (
    Batch,
    EndpointOption,
    Judge,
    MaxOutputTokens,
    Parameters,
    Prices,
    TypeMargin,
    UsageError,
    share_option,
)
from calibration.interruption import InterruptibleWait, InterruptionError
from calibration.judging.judgements import COMPLETENESS, CORRECTNESS, Scorers
from calibration.learning.certificate import TYPE_MARGIN
from calibration.locations import home, tracking_uri
from calibration.policies import default_judge, load_prices, models_named, read_policy
from calibration.registry import registration
from calibration.sentinel.findings import replace_file
from calibration.sentinel.inspection import InspectionResult, inspect
from calibration.sentinel.ledgers import FOLDER, SentinelLedgers
from calibration.sentinel.plan import Plan
from calibration.spending import StoppedError, record_spending
from calibration.traffic.traffic import TrafficError, parse_duration
from router.policy.distribution import SHIPPED
from router.policy.document import DOCUMENT, Policy
from router.policy.sentinel import EXPERIMENT, FILE, Sentinel, SentinelError, dump, parse

console = Console()
EXAMPLES = """
Examples:

  python -m calibration watch --once

  python -m calibration watch --share 0.01 --usd-a-day 2 --every 6h --batch

  python -m calibration watch --once --scorer completeness --scorer my.module:correct
"""


def watch_command(
    share: Annotated[float, share_option("--share", "Share of the routed requests to sample.")] = 0.005,
    usd_a_day: Annotated[
        float, typer.Option(min=0, help="Limit in dollars per day (UTC) for answers and verdicts together.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Inspect once and exit, for example from cron.")] = False,
    every: Annotated[str, typer.Option(help="Interval between inspections: a number followed by m, h, d or w.")] = "1h",
    since: Annotated[str, typer.Option(help="Period of traffic that an inspection reads.")] = "2d",
    target: Annotated[
        float | None,
        share_option(
            "--target", "Target to monitor. Default: ROUTER_DEFAULT_TARGET, else the policy's default target."
        ),
    ] = None,
    type_margin: TypeMargin = TYPE_MARGIN,
    policy: Annotated[
        Path | None, typer.Option(help="Policy folder. Default: ROUTER_POLICY, else the serving policy.")
    ] = None,
    judge: Judge = "",
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="Scorer: completeness or package.module:name. Repeatable. Default: completeness."),
    ] = None,
    endpoint: EndpointOption = None,
    parameters: Parameters = "{}",
    max_output_tokens: MaxOutputTokens = 2000,
    batch: Batch = False,
    prices: Prices = None,
) -> None:
    """Check on recorded traffic that every question type still keeps its target.

    The strong model answers a sample of the requests that the cheap model answered, and the judge scores both answers.
    Routers send a type that has drifted below its target to the strong model until the next calibration.
    """
    interval_seconds = parse_duration(every, "--every").total_seconds()
    scorers = scorer or [COMPLETENESS]
    if CORRECTNESS in scorers:
        raise UsageError(
            "--scorer correctness: recorded traffic has no expected facts; use completeness or your own scorer"
        )
    table, judge = load_prices(prices), judge or default_judge()
    addresses = parse_addresses(endpoint)
    tracking.prepare(tracking_uri())
    while True:
        serving = _serving_policy(policy)
        strong = serving.rules.strong.name
        models_named([strong, judge], table)  # raises if a model has no price
        plan = Plan(
            policy=serving,
            target=target or _default_target(serving),
            margin=type_margin,
            strong=build_endpoint(strong, addresses, max_output_tokens, parse_parameters(parameters)),
            judge=build_judge_endpoint(judge, addresses),
            scorers=Scorers.load(scorers, f"openai:/{judge}"),
            prices=table,
            tracking_uri=tracking_uri(),
            share=share,
            usd_a_day=usd_a_day,
            since=since,
            batch=batch,
        )
        try:
            _inspect(plan)
        except InterruptionError:
            raise
        except (StoppedError, TrafficError) as reason:
            if once:
                raise
            console.print(f"{reason}; retrying in {every}", style="yellow", markup=False, highlight=False)
        if once:
            return
        try:
            with InterruptibleWait("stopped") as waiting:
                waiting.wait(interval_seconds)
        except InterruptionError:
            return


def _inspect(plan: Plan) -> None:
    """Run one inspection, write its findings for the routers, and print them."""
    file = home() / FILE
    with SentinelLedgers(home() / "calibration" / FOLDER) as ledgers:
        billed_before_usd = ledgers.total_billed_usd()
        try:
            result = inspect(plan, ledgers, _read_findings(file))
        finally:
            record_spending(home() / "spending.jsonl", ledgers.total_billed_usd() - billed_before_usd)
    content = dump(result.sentinel)
    replace_file(file, content)
    if not plan.tracking_uri.startswith("sqlite:"):
        tracking.publish(EXPERIMENT, FILE, content, plan.policy.version)
    _print_types(result.sentinel)
    _print_changes(result.sentinel, plan.strong_model)
    _print_counts(result)


def _read_findings(file: Path) -> Sentinel | None:
    try:
        return parse(file.read_bytes())
    except (OSError, SentinelError):
        return None


def _serving_policy(folder: Path | None) -> Policy:
    """The policy that the routers serve.

    It is the first of: `folder` or ROUTER_POLICY, the policy in ROUTER_HOME, the champion of an MLflow server, the
    shipped policy.
    """
    configured = folder or (Path(os.environ["ROUTER_POLICY"]) if os.environ.get("ROUTER_POLICY") else None)
    if configured is not None:
        return read_policy(configured)
    promoted = home() / "policy"
    if (promoted / DOCUMENT).exists():
        return read_policy(promoted)
    champion = None if tracking_uri().startswith("sqlite:") else registration.load_champion()
    return champion.policy if champion else read_policy(SHIPPED)


def _default_target(policy: Policy) -> float:
    text = os.environ.get("ROUTER_DEFAULT_TARGET")
    try:
        return float(text) if text else policy.default_target
    except ValueError as error:
        raise UsageError(f"ROUTER_DEFAULT_TARGET {text!r} is not a number") from error


def _print_types(findings: Sentinel) -> None:
    table = Table(title=f"policy {findings.policy} at target {findings.target:.1%}", title_justify="left")
    for heading in ("type", "pairs", "kept quality (anytime-valid band)", "floor", "evidence of drift", "state"):
        table.add_column(heading)
    for name, watched in findings.types.items():
        low, estimate, high = watched.kept
        band = f"{estimate:.1%} ({low:.1%} to {high:.1%})"
        evidence = f"{watched.evidence:.0%}"
        table.add_row(name, f"{watched.pairs:,}", band, f"{watched.floor:.1%}", evidence, watched.state)
    console.print(table)


def _print_changes(findings: Sentinel, strong_model: str) -> None:
    """Print the drift signals, and the types that drifted or became better."""
    lines = [
        f"changed since the calibration: {signal.name} is {signal.value:.3g}, the limit is {signal.limit:.3g} "
        f"(n = {signal.n:,})"
        for signal in findings.significant_signals
    ]
    next_step = "Next: python -m calibration run --from-traffic"
    if findings.drifted:
        names = ", ".join(sorted(findings.drifted))
        lines.append(f"drifted, sent to {strong_model} until the next calibration: {names}. {next_step}")
    if findings.better:
        names = ", ".join(findings.better)
        lines.append(f"better than calibrated, so a new calibration may save more: {names}. {next_step}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _print_counts(result: InspectionResult) -> None:
    findings = result.sentinel
    counts = [
        f"{result.new_requests:,} new requests, {result.new_pairs:,} new pairs, ${result.spent_usd:.4f} spent "
        f"(${findings.spent_usd:.4f} of ${findings.usd_a_day:g} today)"
    ]
    if result.deferred:
        counts.append(f"{result.deferred:,} deferred to the next day by --usd-a-day")
    if result.too_expensive:
        counts.append(f"{result.too_expensive:,} skipped, each costs more than --usd-a-day")
    if result.unjudged:
        counts.append(f"{result.unjudged:,} without an answer or verdict")
    console.print("; ".join(counts), highlight=False, soft_wrap=True)
