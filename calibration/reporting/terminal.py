"""The report of a calibration on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from calibration.comparison.verdict import describe_tradeoffs
from calibration.pipeline.calibration import Calibration
from calibration.reporting.numbers import format_interval
from calibration.reporting.summary import (
    COLUMNS,
    comparison_rows,
    describe_failures,
    describe_spending,
    find_row,
    pair_name,
)
from calibration.spending import ExpectedCost


def cost_table(expected: Sequence[ExpectedCost]) -> Table:
    """The expected calls and costs, shown before the first call."""
    table = Table(title="Expected calls and cost", title_justify="left", title_style="bold", box=None)
    for heading in ("model", "calls", "stored", "input tokens", "output tokens", "expected USD"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for cost in expected:
        name = cost.model if cost.purpose == "answers" else f"{cost.model} (judge)"
        counts = (cost.calls, cost.cached, cost.usage.input_tokens, cost.usage.output_tokens)
        table.add_row(name, *(f"{count:,}" for count in counts), f"{cost.cost_usd:.4f}")
    calls, total_usd = sum(cost.calls for cost in expected), sum(cost.cost_usd for cost in expected)
    table.add_row("total", f"{calls:,}", "", "", "", f"{total_usd:.4f}", style="bold")
    return table


def format_terminal(calibration: Calibration) -> RenderableType:
    """The comparison of the models, the comparison by type, the cost and the verdict."""
    comparison = _table(f"Comparison on all questions ({calibration.n:,})", COLUMNS)
    for _, cells in comparison_rows(calibration):
        comparison.add_row(*cells)
    headings = ("type", "n", *calibration.models, "difference", "cheaper model")
    by_type = _table("Quality by type: % right, with 95 % intervals", headings)
    descriptions = describe_tradeoffs(calibration.tradeoffs)
    for pair in calibration.tradeoffs:
        scores = [
            format_interval(find_row(calibration.summaries, pair.question_type, model).score)
            for model in calibration.models
        ]
        difference = format_interval(pair.quality_difference, signed=True)
        description = descriptions[pair.question_type, pair.model]
        by_type.add_row(pair_name(calibration, pair), str(pair.n), *scores, difference, description)
    failures = [Text(line, style="bold red") for line in describe_failures(calibration)]
    verdict = Panel(
        Text("\n".join(calibration.verdict.reasons)), title=Text(calibration.verdict.headline, style="bold")
    )
    return Group(comparison, Text(), by_type, Text(), *failures, Text(describe_spending(calibration)), verdict)


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    return table
