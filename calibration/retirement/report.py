"""The report of a retirement, as terminal output, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibration.comparison.tradeoffs import ALL
from calibration.comparison.verdict import format_percent
from calibration.reporting.numbers import format_interval
from calibration.retirement.comparison import NEW_ROUTED, OLD_ROUTED, StrategyResult, find_result, worse_types
from calibration.retirement.probes import ProbeResult
from calibration.retirement.shutdown_dates import Shutdown
from calibration.traffic.recorded_answers import RECORDED


@dataclass(frozen=True, slots=True)
class RetirementReport:
    """The findings of a retirement."""

    today: date
    old: Sequence[str]  # models, from cheap to strong
    new: Sequence[str]
    shutdowns: Sequence[Shutdown]  # of the old models and the judge
    judge: str
    rejudged: int  # old answers that only other judges had judged before
    results: Sequence[StrategyResult]
    traffic_results: Sequence[StrategyResult]  # recorded answers and those of the new models, judged by completeness
    probes: Sequence[ProbeResult]
    targets: tuple[float | None, float | None]  # of the old and the new policy, each relative to its own strong model
    unrouted_requests: Mapping[str, int]  # of the last 30 days that named an old model directly, by model
    in_sample: bool  # the old policy was learnt from these questions and could not be cross-fitted
    policy_version: str  # of the challenger; "" if none was learnt
    spent_usd: float

    @property
    def rejected_probes(self) -> list[ProbeResult]:
        """The probes that a new model does not answer even after adaptation."""
        return [probe for probe in self.probes if not probe.answered]

    def as_json(self) -> dict[str, Any]:
        """The content of `retirement.json`."""
        return {
            "today": self.today.isoformat(),
            "old": list(self.old),
            "new": list(self.new),
            "leaving": [
                {"model": shutdown.model, "day": shutdown.day and shutdown.day.isoformat(), "source": shutdown.source}
                for shutdown in self.shutdowns
            ],
            "judge": self.judge,
            "rejudged": self.rejudged,
            "ways": [asdict(result) for result in self.results],
            "on_traffic": [asdict(result) for result in self.traffic_results],
            "probed": [asdict(probe) for probe in self.probes],
            "targets": list(self.targets),
            "named": dict(self.unrouted_requests),
            "in_sample": self.in_sample,
            "policy_version": self.policy_version,
            "spent_usd": self.spent_usd,
        }


HEADINGS = (
    *("strategy", "% right", "difference to the old strong model, points", "USD per 1,000", "tokens per answer"),
    *("seconds", "refused", "cut off", "malformed"),
)


def format_cells(result: StrategyResult, baseline: str) -> tuple[str, ...]:
    """A result as the cells of a table row; the strategy named `baseline` has no difference."""
    seconds = "–" if math.isnan(result.seconds) else f"{result.seconds:.1f}"
    usd, tokens = f"{result.usd_per_1000:.3f}", f"{result.output_tokens:.0f}"
    counts = (str(result.refused), str(result.cut_off), str(result.malformed))
    difference = "–" if result.name == baseline else format_interval(result.difference, signed=True)
    return (result.name, format_interval(result.quality), difference, usd, tokens, seconds, *counts)


def format_terminal(report: RetirementReport) -> RenderableType:
    """The terminal output: shutdown dates, results on all questions, findings and next steps."""
    n = find_result(report.results, ALL, OLD_ROUTED).n
    overall = [result for result in report.results if result.question_type == ALL]
    title = f"{n:,} questions, judged by {report.judge} (95 % intervals)"
    tables: list[RenderableType] = [_results_table(title, overall, report.old[-1])]
    if report.traffic_results:
        title = f"{_traffic_size(report):,} recorded requests, judged by completeness alone"
        tables += [Text(), _results_table(title, report.traffic_results, RECORDED)]
    shutdowns = [Text(shutdown.describe(report.today)) for shutdown in report.shutdowns]
    items = [Text(f"- {line}") for line in (*findings(report), *next_steps(report))]
    return Group(*shutdowns, Text(), *tables, Text(), *items)


def _results_table(title: str, results: Sequence[StrategyResult], baseline: str) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("strategy", "% right", "difference to old", "USD/1,000", "tokens", "unusable"):
        table.add_column(heading, justify="left" if heading == "strategy" else "right", no_wrap=True)
    for result in results:
        table.add_row(*format_cells(result, baseline)[:5], str(result.failures))
    return table


def _traffic_size(report: RetirementReport) -> int:
    return find_result(report.traffic_results, ALL, RECORDED).n


def findings(report: RetirementReport) -> list[str]:
    """How quality and cost change, and which requests the new models reject."""
    lines = []
    if report.policy_version:
        old, new = (find_result(report.results, ALL, name) for name in (OLD_ROUTED, NEW_ROUTED))
        change = new.usd_per_1000 / old.usd_per_1000 - 1 if old.usd_per_1000 else math.nan
        lines.append(
            f"With the new policy a question costs ${new.usd_per_1000 / 1000:.6f} ({change:+.0%}), and quality is "
            f"{new.difference.estimate * 100:+.1f} points ({new.difference.low * 100:+.1f} to "
            f"{new.difference.high * 100:+.1f}) relative to {report.old[-1]} alone."
        )
        lines += [
            f"{result.question_type} loses {-result.difference.estimate * 100:.0f} points "
            f"({-result.difference.high * 100:.0f} to {-result.difference.low * 100:.0f}) on {result.n} questions."
            for result in worse_types(report.results)
        ]
    else:
        lines.append("No policy was learnt for the new models: too few questions have an answer of each.")
    lines += [f"{probe.model} rejects requests with {probe.shape}: {probe.refused}" for probe in report.rejected_probes]
    if report.in_sample:
        lines.append(
            "The results of the old policy are optimistic, because it was learnt from these questions. "
            "Calibrate on more questions to evaluate it on held-out ones."
        )
    return lines


def next_steps(report: RetirementReport) -> list[str]:
    """What the operator of the router has to do."""
    lines = []
    if report.policy_version:
        lines.append(f"Promote policy {report.policy_version}: python -m calibration promote")
    changes = dict.fromkeys(change for probe in report.probes if probe.answered for change in probe.changed.split("; "))
    changes.pop("", None)
    if changes:
        lines.append(
            f"The router adapts requests for auto: {', '.join(changes)}. "
            "Clients that name a new model directly must do the same."
        )
    for model, count in report.unrouted_requests.items():
        lines.append(
            f"{count:,} requests of the last 30 days named {model} directly and fail after its shutdown. "
            f"ROUTER_ROUTED_MODELS={model} routes them without a change in the clients."
        )
    judge = next((shutdown for shutdown in report.shutdowns if shutdown.model == report.judge), None)
    if judge is not None and judge.day is not None:
        lines.append(
            f"The judge {report.judge} shuts down on {judge.day}. "
            "Choose another one with --judge, which judges the old and new answers again."
        )
    if report.rejudged:
        lines.append(
            f"{report.judge} judged {report.rejudged:,} old answers again that had verdicts of another judge, "
            "so all results are of one judge."
        )
    return lines


def format_markdown(report: RetirementReport) -> str:
    """The whole report as Markdown."""
    old, new = ", ".join(report.old), ", ".join(report.new)
    targets = [
        "sends every request to the strong model"
        if target is None
        else f"keeps {format_percent(target)} of the quality of {models[-1]}"
        for target, models in zip(report.targets, (report.old, report.new), strict=True)
    ]
    lines = [
        f"# From {old} to {new}",
        "",
        f"Created on {report.today}. This retirement cost ${report.spent_usd:.4f}.",
        "",
    ]
    lines += [f"- {shutdown.describe(report.today)}" for shutdown in report.shutdowns]
    lines += ["", f"The old policy {targets[0]}. The new policy {targets[1]}."]
    lines += ["", "## Findings", "", *(f"- {line}" for line in findings(report))]
    lines += ["", "## Next steps", "", *(f"- {line}" for line in next_steps(report))]
    for name in dict.fromkeys(result.question_type for result in report.results):
        results = [result for result in report.results if result.question_type == name]
        title = "All questions" if name == ALL else name
        rows = [format_cells(result, report.old[-1]) for result in results]
        lines += ["", f"## {title} ({results[0].n:,})", "", *_markdown_table(HEADINGS, rows)]
    if report.traffic_results:
        title = f"## {_traffic_size(report):,} recorded requests, judged by completeness alone"
        rows = [format_cells(result, RECORDED) for result in report.traffic_results]
        lines += ["", title, "", *_markdown_table(HEADINGS, rows)]
    probe_rows = [
        (
            *(probe.shape, probe.model, str(probe.requests or "–")),
            *("yes" if probe.answered else "no", probe.changed or "nothing"),
        )
        for probe in report.probes
    ]
    headings = ("shape", "model", "requests", "answered", "changed")
    lines += ["", "## Probes of request shapes", "", *_markdown_table(headings, probe_rows)]
    return "\n".join([*lines, ""])


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    alignment = ["---", *("---:" for _ in headings[1:])]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (headings, alignment, *escaped)]
