"""`score` and `evaluate`: the decisions of a policy on requests, and its results on outcomes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from calibration.commands.options import Outcomes, PolicyFolder, Seed
from calibration.comparison.scoring import evaluate as evaluate_policy
from calibration.comparison.scoring import score_rows
from calibration.learning.certificate import MIN_TYPE_QUESTIONS
from calibration.locations import home
from calibration.outcomes import question_types, read_outcomes
from calibration.policies import read_policy
from calibration.traffic.mix import load_mix
from router.policy.rules import Interval

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
    requests: Annotated[Path, typer.Option(help="Request file: JSON lines with id, messages and tools.")],
    out: Annotated[Path, typer.Option(help="Output file: one JSON line per request.")],
) -> None:
    """Write what a policy predicts and decides for each request.

    Each line has the question type, the quality and cost of each model, the gap, the novelty and the decisions.
    """
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
    as_json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
    mix: Annotated[
        str | None,
        typer.Option(
            help="Shares of question types: a JSON or CSV file with a share per type, or ledger:7d for your traffic."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Number of bootstrap rounds per interval.")] = 500,
    seed: Seed = 0,
) -> None:
    """Evaluate a policy on outcomes: APGR, CPT, saved cost and kept targets, with 95 % intervals."""
    loaded = read_policy(policy)
    rows = read_outcomes(outcomes, [model.name for model in loaded.rules.models])
    shares = None if mix is None else load_mix(mix, set(question_types(rows)), datetime.now(UTC), home())
    results = evaluate_policy(loaded, rows, rounds, seed, shares)
    if shares is not None:
        _print_mix_warnings(results["mix"])
    if as_json:
        sys.stdout.write(json.dumps(results) + "\n")
        return
    console.print(_types_table(f"policy {loaded.version}", results))
    if "answers" in results:
        console.print(_verification_table(results["answers"], results["targets"]))
    if shares is not None:
        console.print(_mix_table(results["mix"]))


def _types_table(policy_name: str, results: Mapping[str, Any]) -> Table:
    pooled = results["pooled"]
    table = Table(title=f"{policy_name} on {pooled['n']:,} questions", title_justify="left")
    for heading in ("type", "n", "APGR", "CPT 50 %", "saved at 97 %"):
        table.add_column(heading, justify="left" if heading == "type" else "right")
    for name, part in (("all", pooled), *results["by_type"].items()):
        values = (part["apgr"], part["cpt50"], part["saved_cost"]["0.97"])
        table.add_row(name, f"{part['n']:,}", *(f"{v.estimate:.3f} ({v.low:.3f} to {v.high:.3f})" for v in values))
    return table


def _verification_table(verified: Mapping[str, Any], unverified: Mapping[str, Any]) -> Table:
    """The result of each target with answer verification, and without."""
    apgr, apgr_without = verified["apgr"].estimate, verified["apgr_without"].estimate
    title = f"APGR {apgr:.3f} with answer verification, {apgr_without:.3f} without"
    table = Table(title=title, title_justify="left")
    for heading in ("target", "certified", "quality kept", "cost saved", "kept without", "saved without"):
        table.add_column(heading)
    for target, result in verified["targets"].items():
        without = unverified[target]
        values = (result["quality_kept"], result["saved_cost"], without["quality_kept"], without["saved_cost"])
        certified = "yes" if result["certified"] else "no"
        table.add_row(f"{float(target):.1%}", certified, *_format_shares(values))
    return table


def _print_mix_warnings(mix: Mapping[str, Any]) -> None:
    """Warn on stderr about types of the mix that have no or few outcomes."""
    lines, missing = [], mix["missing"]
    if missing["types"]:
        lines.append(
            f"warning: {missing['share']:.1%} of the mix are types without outcomes, counted as sent to the strong "
            f"model: {', '.join(missing['types'])}"
        )
    if mix["few"]:
        lines.append(
            f"warning: types with fewer than {MIN_TYPE_QUESTIONS} outcomes, so their results are uncertain: "
            f"{', '.join(mix['few'])}"
        )
    for line in lines:
        Console(stderr=True).print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _mix_table(mix: Mapping[str, Any]) -> Table:
    """The result of each target for a mix."""
    table = Table(title=f"the mix, on {mix['n']:,} questions of its types", title_justify="left")
    for heading in ("target", "promise", "quality kept (95 % interval)", "cost saved (95 % interval)", "still holds"):
        table.add_column(heading)
    for target, result in mix["targets"].items():
        values = _format_shares((result["quality_kept"], result["saved_cost"]))
        table.add_row(f"{float(target):.1%}", result["promise"], *values, result["holds"])
    return table


def _format_shares(intervals: Iterable[Interval]) -> list[str]:
    return [f"{value.estimate:.1%} ({value.low:.1%} to {value.high:.1%})" for value in intervals]
