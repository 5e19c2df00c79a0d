"""`learn`: learn a policy from outcomes."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calibration import workers
from calibration.commands.options import (
    Confidence,
    Jobs,
    Outcomes,
    Prices,
    PromiseOption,
    Ray,
    Seed,
    TypeMargin,
    parse_names,
)
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
    out: Annotated[Path, typer.Option(help="Folder for the policy.")],
    cheap: Annotated[str, typer.Option(help="Cheap model.")] = "gpt-4o-mini",
    strong: Annotated[str, typer.Option(help="Strong model, whose quality a target refers to.")] = "gpt-4o",
    models: Annotated[
        str, typer.Option(help="Two or more models, from cheap to strong, instead of --cheap and --strong.")
    ] = "",
    prices: Prices = None,
    questions: Annotated[
        list[Path], typer.Option(help="Questions with types that train the type predictor. Repeatable.")
    ] = [],  # noqa: B006
    types: Annotated[Path, typer.Option(help="Names of question types, and sources of published results.")] = TYPES,
    published: Annotated[Path | None, typer.Option(help="Published results for types without outcomes.")] = None,
    confidence: Confidence = CONFIDENCE,
    promise: PromiseOption = Promise.CERTIFIED,
    type_margin: TypeMargin = TYPE_MARGIN,
    jobs: Jobs = 1,
    ray: Ray = None,
    seed: Seed = 0,
) -> None:
    """Learn a policy from outcomes. Uses no network, except for the workers of --ray.

    Intermediate results are stored next to --out until the policy is written, so an interrupted command continues
    where it stopped.
    """
    names = parse_names(models) if models else [cheap, strong]
    rows = read_outcomes(outcomes, names, answers=len(names) == 2)  # answer verification is learnt for two models only
    about = {"made_at": _now().isoformat(timespec="seconds"), "outcomes": [path.name for path in outcomes]}
    with console.status(f"learning from {len(rows):,} questions"):
        background = read_prior(questions, types, published, names) if questions else None
        priced_models = models_named(names, load_prices(prices))
        with workers.open_workers(jobs, ray) as pool:
            learnt = learn(
                rows,
                priced_models,
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
    console.print(_targets_table(f"policy in {out}", policy))
    if policy.answers:
        verified_types = ", ".join(sorted(policy.answers.types))
        console.print(f"answer verification pays on: {verified_types}", highlight=False, soft_wrap=True, markup=False)
    console.print(_default_target(policy), highlight=False, soft_wrap=True)


def _now() -> datetime:
    """The current time, or SOURCE_DATE_EPOCH for reproducible files (reproducible-builds.org)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)


def _targets_table(title: str, policy: Policy) -> Table:
    table = Table(title=title, title_justify="left")
    verified = {rule.target: rule for rule in policy.answers.targets} if policy.answers else {}
    headings = ["target", "promise", "cost saved (95 % interval)", "more questions needed"]
    for heading in [*headings, *(["cost saved with answer verification"] if verified else [])]:
        table.add_column(heading)
    for rule in policy.rules.targets:
        saving, routes = rule.expected_saving, rule.quality_per_usd is not None
        table.add_row(
            f"{rule.target:.1%}",
            _format_promise(rule) if routes else "none: always strong",
            f"{saving.estimate:.0%} ({saving.low:.0%} to {saving.high:.0%})" if routes else "-",
            f"{rule.more_questions_needed:,}" if rule.more_questions_needed else "-",
            *([_format_verified_saving(verified[rule.target])] if verified else []),
        )
    return table


def _format_promise(rule: Rule) -> str:
    if rule.falls_short is None:
        return rule.promise.value
    return f"{rule.promise.value}; missed in {rule.falls_short:.0%} of resplits"


def _format_verified_saving(rule: Rule) -> str:
    """The cost saved with answer verification, including the cost of discarded answers."""
    saving = rule.expected_saving
    if rule.quality_per_usd is None:
        return "-"
    return f"{saving.estimate:.0%} ({saving.low:.0%} to {saving.high:.0%}), {rule.promise.value}"


def _default_target(policy: Policy) -> str:
    """The target of `auto`, and how to choose the strictest other target that the policy routes by."""
    default = policy.default_target
    if policy.rules.rule_for(default) is None:
        return f"auto targets {default * 100:g} %, which only the strong model keeps: no threshold is shown to keep it"
    others = [r.target for r in policy.rules.targets if r.quality_per_usd is not None and r.target != default]
    stricter = [target for target in others if target > default]
    another = min(stricter) if stricter else max(others, default=None)
    request = f"request auto@{another:g} or " if another is not None else ""
    return f"auto targets {default * 100:g} %; {request}set ROUTER_DEFAULT_TARGET for another target"
