"""`score` and `evaluate`: what a policy says of requests, and what it is worth on outcomes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from calibration.commands.options import Outcomes, PolicyFolder, Seed
from calibration.comparison.scoring import evaluate as evaluated
from calibration.comparison.scoring import score_rows
from calibration.learning.certificate import MIN_TYPE_QUESTIONS
from calibration.locations import home
from calibration.outcomes import question_types, read_outcomes
from calibration.policies import read_policy
from calibration.traffic.mix import mix_of

console = Console()
SCORE_EXAMPLE = "Example: python -m calibration score --policy data/policy --requests r.jsonl --out s.jsonl"
EXAMPLES = """
Examples:

  python -m calibration evaluate --policy data/policy --outcomes held-out.jsonl.gz

  python -m calibration evaluate --policy data/policy --outcomes held-out.jsonl.gz --mix mine.json

  python -m calibration evaluate --policy data/policy --outcomes held-out.jsonl.gz --mix ledger:7d
"""


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
    shares = None if mix is None else mix_of(mix, set(question_types(rows)), datetime.now(UTC), home())
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
