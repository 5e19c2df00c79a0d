"""The commands of calibration: `python -m calibration --help`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from calibration import commands, reprice_command, retire_command, traffic, watch_command, workers
from calibration.background import read_background
from calibration.certificate import CONFIDENCE, MIN_TYPE_QUESTIONS, TYPE_MARGIN
from calibration.learning import LearningError, learn
from calibration.looking import with_answers
from calibration.mix import types_of
from calibration.options import Confidence, Jobs, Prices, PromiseOption, Ray, TypeMargin
from calibration.outcomes import InputError, read_outcomes
from calibration.policies import load_prices, models_named, read_policy, write_policy
from calibration.scoring import evaluate as evaluated
from calibration.scoring import score_rows
from calibration.spending import StoppedError
from calibration.usage import mix_of
from router.policy.decision import Promise, Rule
from router.policy.distribution import DATA, NAME, version
from router.policy.document import Policy, PolicyError
from router.policy.prices import PriceError

app = typer.Typer(
    help="Learn from answers of both models which questions the cheap one is good enough for.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console()
TYPES = DATA / "types.json"
Outcomes = Annotated[list[Path], typer.Option("--outcomes", help="Outcomes, JSON lines, gzipped or not; repeatable.")]
PolicyFolder = Annotated[Path, typer.Option("--policy", help="The folder of a policy.")]
LEARN_EXAMPLES = """
Examples:

  python -m calibration learn --outcomes answers.jsonl.gz --out my-policy

  python -m calibration learn --outcomes answers.jsonl.gz --out my-policy --promise expected --type-margin 0.05
"""
Seed = Annotated[int, typer.Option(help="Chance is an argument: the same seed gives the same policy.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options of every command."""


@app.command("learn", epilog=LEARN_EXAMPLES)
def learn_command(
    outcomes: Outcomes,
    out: Annotated[Path, typer.Option(help="The folder to write the policy to.")],
    cheap: Annotated[str, typer.Option(help="The cheap model.")] = "gpt-4o-mini",
    strong: Annotated[str, typer.Option(help="The strong model, whose quality is to be kept.")] = "gpt-4o",
    models: Annotated[str, typer.Option(help="Instead of the two: all models, cheap to strong, comma-separated.")] = "",
    prices: Prices = None,
    questions: Annotated[list[Path], typer.Option(help="Typed questions, which teach to tell types apart.")] = [],  # noqa: B006
    types: Annotated[Path, typer.Option(help="How types are named, and what was published of them.")] = TYPES,
    published: Annotated[Path | None, typer.Option(help="Published results, for types without outcomes.")] = None,
    confidence: Confidence = CONFIDENCE,
    promise: PromiseOption = Promise.CERTIFIED,
    type_margin: TypeMargin = TYPE_MARGIN,
    jobs: Jobs = 1,
    ray: Ray = None,
    seed: Seed = 0,
) -> None:
    """Write a policy learnt from outcomes. No network, but to the workers of --ray.

    What was computed is kept beside --out until the policy is written: after an interruption the same command goes on.
    """
    names = [name.strip() for name in models.split(",")] if models else [cheap, strong]
    rows = read_outcomes(outcomes, names, answers=len(names) == 2)  # of a pair it is learnt which answers hold
    about = {"made_at": _now().isoformat(timespec="seconds"), "outcomes": [path.name for path in outcomes]}
    with console.status(f"learning from {len(rows):,} questions"):
        background = read_background(questions, types, published, names) if questions else None
        its = models_named(names, load_prices(prices))
        with workers.opened(jobs, ray) as hands:
            learnt = learn(
                rows,
                its,
                seed,
                about,
                background,
                confidence=confidence,
                promise=promise,
                type_margin=type_margin,
                workers=hands,
                folder=out.with_name(out.name + ".learning"),
            )
        policy = with_answers(learnt, seed, confidence, promise, type_margin).policy
    write_policy(policy, out)
    table = Table(title=f"policy in {out}", title_justify="left")
    looked = {rule.target: rule for rule in policy.answers.targets} if policy.answers else {}
    headings = ["target", "promise", "cost saved (95 % interval)", "more questions needed"]
    for title in [*headings, *(["saved with answers looked at"] if looked else [])]:
        table.add_column(title)
    for rule in policy.rules.targets:
        saving, routes = rule.expected_saving, rule.quality_per_usd is not None
        table.add_row(
            f"{rule.target:.1%}",
            _promised(rule) if routes else "none: always strong",
            f"{saving.estimate:.0%} ({saving.low:.0%} to {saving.high:.0%})" if routes else "-",
            f"{rule.more_questions_needed:,}" if rule.more_questions_needed else "-",
            *([_saved(looked[rule.target])] if looked else []),
        )
    console.print(table)
    if policy.answers:
        types_looked_at = ", ".join(sorted(policy.answers.types))
        console.print(f"answers are worth a look on: {types_looked_at}", highlight=False, soft_wrap=True, markup=False)
    console.print(_auto(policy), highlight=False, soft_wrap=True)


def _now() -> datetime:
    """The time; SOURCE_DATE_EPOCH stops it, so that equal outcomes give equal bytes (reproducible-builds.org)."""
    stopped = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(stopped), UTC) if stopped else datetime.now(UTC)


def _saved(rule: Rule) -> str:
    """What a rule saves with answers looked at, both calls counted."""
    saving = rule.expected_saving
    if rule.quality_per_usd is None:
        return "-"
    return f"{saving.estimate:.0%} ({saving.low:.0%} to {saving.high:.0%}), {rule.promise.value}"


def _auto(policy: Policy) -> str:
    """What `auto` keeps, and how to ask for another target: the strictest other one that the policy routes by."""
    default = policy.default_target
    if policy.rules.rule(default) is None:
        return f"auto keeps {default * 100:g} % by the strong model alone: no threshold is shown to keep so much"
    others = [r.target for r in policy.rules.targets if r.quality_per_usd is not None and r.target != default]
    above = [target for target in others if target > default]
    another = min(above) if above else max(others, default=None)
    asking = f" or ask for auto@{another:g}" if another is not None else ""
    return f"auto keeps {default * 100:g} % (set ROUTER_DEFAULT_TARGET{asking} for another)"


def _promised(rule: Rule) -> str:
    if rule.falls_short is None:
        return rule.promise.value
    return f"{rule.promise.value}; fell short in {rule.falls_short:.0%} of resplits"


@app.command(
    "score", epilog="Example: python -m calibration score --policy data/policy --requests r.jsonl --out s.jsonl"
)
def score_command(
    policy: PolicyFolder,
    requests: Annotated[Path, typer.Option(help="Requests, JSON lines with id, messages and tools.")],
    out: Annotated[Path, typer.Option(help="Where the scores go, one JSON line a request.")],
) -> None:
    """Write what a policy says of each request: type, quality, gap, novelty, cost and decisions."""
    partial = out.with_name(out.name + ".partial")
    loaded = read_policy(policy)
    with partial.open("w", encoding="utf-8") as file:
        count = 0
        for row in score_rows(loaded, requests):
            file.write(json.dumps(row) + "\n")
            count += 1
    partial.replace(out)
    console.print(f"scored {count:,} requests with policy {loaded.version} into {out}")


EVALUATE_EXAMPLES = """
Examples:

  python -m calibration evaluate --policy data/policy --outcomes held-out.jsonl.gz

  python -m calibration evaluate --policy data/policy --outcomes held-out.jsonl.gz --mix mine.json

  python -m calibration evaluate --policy data/policy --outcomes held-out.jsonl.gz --mix ledger:7d
"""


@app.command("evaluate", epilog=EVALUATE_EXAMPLES)
def evaluate_command(
    policy: PolicyFolder,
    outcomes: Outcomes,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    mix: Annotated[
        str | None,
        typer.Option(
            help='Shares of types: a file, JSON {"type": share} or CSV with type,share; or ledger:7d for your traffic.'
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of the bootstrap behind each interval.")] = 500,
    seed: Seed = 0,
) -> None:
    """Measure a policy on outcomes: APGR, CPT, saved cost, and what its promises gave, with 95 % intervals."""
    loaded = read_policy(policy)
    rows = read_outcomes(outcomes, [model.name for model in loaded.rules.models])
    shares = None if mix is None else mix_of(mix, set(types_of(rows)), datetime.now(UTC), commands.home())
    figures = evaluated(loaded, rows, rounds, seed, shares)
    if shares is not None:
        _warn_of(figures["mix"])
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    pooled = figures["pooled"]
    table = Table(title=f"policy {loaded.version} on {pooled['n']:,} questions", title_justify="left")
    for heading in ("type", "n", "APGR", "CPT 50 %", "saved at 97 %"):
        table.add_column(heading, justify="left" if heading == "type" else "right")
    for name, part in (("all", pooled), *figures["by_type"].items()):
        values = (part["apgr"], part["cpt50"], part["saved_cost"]["0.97"])
        table.add_row(name, f"{part['n']:,}", *(f"{v.estimate:.3f} ({v.low:.3f} to {v.high:.3f})" for v in values))
    console.print(table)
    if "answers" in figures:
        console.print(_answers_table(figures["answers"], figures["targets"]))
    if shares is not None:
        console.print(_mix_table(figures["mix"]))


def _answers_table(answers: Mapping[str, Any], targets: Mapping[str, Any]) -> Table:
    """What each promise gives with answers looked at, and without."""
    pooled, without = answers["apgr"].estimate, answers["apgr_without"].estimate
    title = f"with answers looked at: APGR {pooled:.3f}, without {without:.3f}"
    table = Table(title=title, title_justify="left")
    for heading in (
        "target",
        "certified",
        "quality kept",
        "cost saved",
        "quality kept, without",
        "cost saved, without",
    ):
        table.add_column(heading)
    for target, its in answers["targets"].items():
        values = [its[k] for k in ("quality_kept", "saved_cost")] + [
            targets[target][k] for k in ("quality_kept", "saved_cost")
        ]
        shown = [f"{v.estimate:.1%} ({v.low:.1%} to {v.high:.1%})" for v in values]
        table.add_row(f"{float(target):.1%}", "yes" if its["certified"] else "no", *shown)
    return table


def _warn_of(mix: Mapping[str, Any]) -> None:
    """Tell on stderr what a mix asks for that outcomes do not tell."""
    warnings, missing = Console(stderr=True), mix["missing"]
    if missing["types"]:
        text = (
            f"warning: {missing['share']:.1%} of the mix is of types without outcomes, and counts as sent to the "
            f"strong model: {', '.join(missing['types'])}"
        )
        warnings.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if mix["few"]:
        text = f"warning: fewer than {MIN_TYPE_QUESTIONS} outcomes, which say little: {', '.join(mix['few'])}"
        warnings.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _mix_table(mix: Mapping[str, Any]) -> Table:
    """What each promise gives for a mix."""
    table = Table(title=f"for the mix, by {mix['n']:,} questions of its types", title_justify="left")
    for heading in ("target", "promise", "quality kept (95 % interval)", "cost saved (95 % interval)", "still holds"):
        table.add_column(heading)
    for target, its in mix["targets"].items():
        values = (its["quality_kept"], its["saved_cost"])
        shown = [f"{v.estimate:.1%} ({v.low:.1%} to {v.high:.1%})" for v in values]
        table.add_row(f"{float(target):.1%}", its["promise"], *shown, its["holds"])
    return table


app.command("run", epilog=commands.EXAMPLES)(commands.run_command)
app.command("report", epilog="Example: python -m calibration report --out reports")(commands.report_command)
app.command("promote", epilog='Example: python -m calibration promote --force "prices fell"')(commands.promote_command)
app.command("from-traces", epilog="Example: python -m calibration from-traces --since 7d --sample 500")(
    traffic.from_traces_command
)
app.command("retire", epilog=retire_command.EXAMPLES)(retire_command.retire_command)
app.command("reprice", epilog=reprice_command.EXAMPLES)(reprice_command.reprice_command)
app.command("watch", epilog=watch_command.EXAMPLES)(watch_command.watch_command)
app.command("rollback", epilog="Example: python -m calibration rollback")(commands.rollback_command)


def main() -> None:
    """Run a command; a fault of the input is one line and exit code 2."""
    try:
        app()
    except StoppedError as reason:
        Console(stderr=True).print(f"stopped: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(commands.STOPPED) from reason
    except (InputError, LearningError, PolicyError, PriceError, traffic.TrafficError, *commands.FAULTS) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
