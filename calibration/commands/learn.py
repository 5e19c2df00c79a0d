"""`learn`: outcomes become a policy."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calibration import workers
from calibration.commands.options import Confidence, Jobs, Outcomes, Prices, PromiseOption, Ray, Seed, TypeMargin
from calibration.learning.certificate import TYPE_MARGIN
from calibration.learning.escalation import add_answer_rules
from calibration.learning.intervals import CONFIDENCE
from calibration.learning.learning import learn
from calibration.learning.prior import read_prior
from calibration.outcomes import read_outcomes
from calibration.policies import load_prices, models_named, write_policy
from router.policy.distribution import DATA
from router.policy.document import Policy
from router.policy.rules import Promise, Rule

console = Console()
TYPES = DATA / "types.json"
EXAMPLES = """
Examples:

  python -m calibration learn --outcomes answers.jsonl.gz --out my-policy

  python -m calibration learn --outcomes answers.jsonl.gz --out my-policy --promise expected --type-margin 0.05
"""


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
        background = read_prior(questions, types, published, names) if questions else None
        its = models_named(names, load_prices(prices))
        with workers.open_workers(jobs, ray) as pool:
            learnt = learn(
                rows,
                its,
                seed,
                about,
                background,
                confidence=confidence,
                promise=promise,
                type_margin=type_margin,
                workers=pool,
                folder=out.with_name(out.name + ".learning"),
            )
        policy = add_answer_rules(learnt, seed, confidence, promise, type_margin).policy
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
    if policy.rules.rule_for(default) is None:
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
