"""`watch`: the sentinel, once or for as long as it is left running."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calibration.answers import tracking
from calibration.commands.endpoints import endpoint_of, parameters_of, places_of
from calibration.commands.options import (
    EndpointOption,
    Judge,
    MaxOutputTokens,
    Parameters,
    Prices,
    TypeMargin,
    UsageError,
    share_option,
)
from calibration.interruption import InterruptionError, interruptible
from calibration.judging.judgements import COMPLETENESS, CORRECTNESS, Scorers
from calibration.learning.certificate import TYPE_MARGIN
from calibration.locations import home, tracking_uri
from calibration.policies import default_judge, load_prices, models_named, read_policy
from calibration.sentinel import inspection
from calibration.sentinel.rows import FOLDER, Rows
from calibration.spending import StoppedError, record_spending
from calibration.traffic.traffic import TrafficError, read_since
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
    share: Annotated[float, share_option("--share", "Share of the routed requests that is looked at.")] = 0.005,
    usd_a_day: Annotated[
        float, typer.Option(min=0, help="Dollars of a day (UTC), answers and judge together; never crossed.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One look, as from cron; else look for ever.")] = False,
    every: Annotated[str, typer.Option(help="Between two looks: a number with m, h, d or w.")] = "1h",
    since: Annotated[str, typer.Option(help="How far back a look reads the traffic.")] = "2d",
    target: Annotated[
        float | None,
        share_option("--target", "The promise that is watched. Default: ROUTER_DEFAULT_TARGET, else the policy's."),
    ] = None,
    type_margin: TypeMargin = TYPE_MARGIN,
    policy: Annotated[
        Path | None, typer.Option(help="The folder of the policy. Default: ROUTER_POLICY, else the one that serves.")
    ] = None,
    judge: Judge = "",
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="completeness or package.module:name; repeatable. Default: completeness."),
    ] = None,
    endpoint: EndpointOption = None,
    parameters: Parameters = "{}",
    max_output_tokens: MaxOutputTokens = 2000,
    batch: Annotated[bool, typer.Option("--batch", help="OpenAI's Batch API: half the price, within a day.")] = False,
    prices: Prices = None,
) -> None:
    """Ask the strong model a share of what the cheap one answered, and watch that every type keeps its promise.

    A type that is shown to keep less goes to the strong model, in every router that follows, until it is recalibrated.
    """
    seconds = read_since(every).total_seconds()
    given = scorer or [COMPLETENESS]
    if CORRECTNESS in given:
        raise UsageError("--scorer correctness needs expected facts, which traffic lacks: give completeness or yours")
    table, judged_by = load_prices(prices), judge or default_judge()
    places = places_of(endpoint or [])
    tracking.prepare(tracking_uri())
    stop = threading.Event()
    while True:
        served = _served(policy)
        strong = served.rules.strong.name
        models_named([strong, judged_by], table)
        plan = inspection.Plan(
            policy=served,
            target=target or _default_target(served),
            margin=type_margin,
            strong=endpoint_of(strong, places, max_output_tokens, parameters_of(parameters)),
            judge=endpoint_of(judged_by, places, 2000, {"temperature": 0}),
            scorers=Scorers.load(given, f"openai:/{judged_by}"),
            prices=table,
            tracking_uri=tracking_uri(),
            share=share,
            usd_a_day=usd_a_day,
            since=since,
            batch=batch,
        )
        try:
            _look(plan)
        except InterruptionError:
            raise
        except (StoppedError, TrafficError) as reason:
            if once:
                raise
            console.print(f"{reason}; the next look goes on", style="yellow", markup=False, highlight=False)
        if once:
            return
        with interruptible(lambda _: stop.set()):
            if stop.wait(seconds):
                return


def _look(plan: inspection.Plan) -> None:
    file = home() / FILE
    with Rows(home() / "calibration" / FOLDER) as rows:
        before_usd = rows.spent_ever_usd()
        try:
            done = inspection.look(plan, rows, _before(file))
        finally:
            record_spending(home() / "spending.jsonl", rows.spent_ever_usd() - before_usd)
    content = dump(done.sentinel)
    inspection.write(file, content)
    if not plan.tracking_uri.startswith("sqlite:"):
        tracking.publish(EXPERIMENT, FILE, content, plan.policy.version)
    _show(done, plan)


def _before(file: Path) -> Sentinel | None:
    try:
        return parse(file.read_bytes())
    except (OSError, SentinelError):
        return None


def _served(folder: Path | None) -> Policy:
    """The policy that the routers serve: as set, else the one of this home folder, else the champion or shipped one."""
    named = folder or (Path(os.environ["ROUTER_POLICY"]) if os.environ.get("ROUTER_POLICY") else None)
    if named is not None:
        return read_policy(named)
    promoted = home() / "policy"
    if (promoted / DOCUMENT).exists():
        return read_policy(promoted)
    if tracking_uri().startswith("sqlite:"):
        return read_policy(SHIPPED)
    from calibration.retirement.migration import old_policy  # which reads the registry

    return old_policy().policy


def _default_target(policy: Policy) -> float:
    given = os.environ.get("ROUTER_DEFAULT_TARGET")
    try:
        return float(given) if given else policy.default_target
    except ValueError as error:
        raise UsageError(f"ROUTER_DEFAULT_TARGET {given!r} is not a number") from error


def _show(done: inspection.Looked, plan: inspection.Plan) -> None:
    found = done.sentinel
    table = Table(title=f"policy {found.policy} at {found.target:.1%}", title_justify="left")
    for heading in ("type", "pairs", "keeps (band that holds at all looks)", "floor", "evidence against it", "state"):
        table.add_column(heading)
    for name, its in found.types.items():
        low, estimate, high = its.kept
        band = f"{estimate:.1%} ({low:.1%} to {high:.1%})"
        table.add_row(name, f"{its.pairs:,}", band, f"{its.floor:.1%}", f"{its.evidence:.0%}", its.state)
    console.print(table)
    for signal in found.significant_signals:
        console.print(
            f"changed since the calibration: {signal.name}, {signal.value:.3g} where the limit is {signal.limit:.3g} "
            f"(n = {signal.n:,})",
            highlight=False,
            soft_wrap=True,
        )
    if found.drifted:
        console.print(
            f"drifted, and sent to {plan.strong_model} until recalibrated: {', '.join(sorted(found.drifted))}. "
            "Next: python -m calibration run --from-traffic",
            highlight=False,
            soft_wrap=True,
        )
    if found.better:
        console.print(
            f"keeps more than it was trusted with: {', '.join(found.better)}. A recalibration may send more of it to "
            "the cheap model: python -m calibration run --from-traffic",
            highlight=False,
            soft_wrap=True,
        )
    left = f"; {done.waiting:,} wait for the next day's dollars" if done.waiting else ""
    dear = f"; {done.too_dear:,} cost more than a day has" if done.too_dear else ""
    failed = f"; {done.unjudged:,} got no answer or verdict" if done.unjudged else ""
    console.print(
        f"{done.new_requests:,} new requests, {done.new_pairs:,} new pairs, ${done.spent_usd:.4f} of "
        f"${found.usd_a_day:g} a day (${found.spent_usd:.4f} today){left}{dear}{failed}",
        highlight=False,
        soft_wrap=True,
    )
