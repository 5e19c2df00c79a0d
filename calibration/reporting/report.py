"""A calibration as people read it: tables on the terminal, CSV, and one HTML page that needs nothing else."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from calibration.comparison.tradeoffs import ALL, ModelSummary, Tradeoff
from calibration.comparison.verdict import describe_tradeoffs
from calibration.learning.intervals import CONFIDENCE
from calibration.pipeline.calibration import Calibration
from calibration.reporting import plots
from calibration.spending import ExpectedCost
from router.policy.answers import Answers
from router.policy.rules import Interval, Promise, Rule

TEMPLATE = Path(__file__).with_name("report.html")
COLUMNS = ("model", "correctness", "completeness", "total_tokens", "cost_usd", "cost_per_correct_pct")


def interval(value: Interval | None, signed: bool = False) -> str:
    """An estimate with its 95 % interval, in points."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    return f"{value.estimate * 100:{sign}.0f} [{value.low * 100:{sign}.0f}, {value.high * 100:{sign}.0f}]"


def share(value: Interval | None) -> str:
    """An estimate as the document prints it."""
    return "–" if value is None else f"{value.estimate:.2f}"


def usd(value: float, digits: int = 6) -> str:
    """Dollars; `–` where there are none to tell."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def cost_table(expected: Sequence[ExpectedCost]) -> Table:
    """What is about to be asked, before it is."""
    table = Table(title="Before the first call", title_justify="left", title_style="bold", box=None)
    for heading in ("model", "calls", "kept", "input tokens", "output tokens", "expected USD"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for each in expected:
        name = each.model if each.purpose == "answers" else f"{each.model} (judge)"
        counts = (each.calls, each.cached, each.usage.input_tokens, each.usage.output_tokens)
        table.add_row(name, *(f"{count:,}" for count in counts), f"{each.cost_usd:.4f}")
    total = sum(each.cost_usd for each in expected)
    table.add_row("total", f"{sum(each.calls for each in expected):,}", "", "", "", f"{total:.4f}", style="bold")
    return table


def printed(found: Calibration) -> RenderableType:
    """The report on the terminal: the document's table first."""
    table = _table("Comparison on all questions", COLUMNS, found.n)
    for row in found.summaries:
        if row.question_type == ALL:
            table.add_row(*_document_cells(row))
    headings = ("type", "n", *found.models, "difference", "cheaper")
    by_type = _table("By type: % right, with 95 % intervals", headings, found.n)
    said = describe_tradeoffs(found.tradeoffs)
    for pair in found.tradeoffs:
        scores = [interval(row_of(found.summaries, pair.question_type, model).score) for model in found.models]
        difference = interval(pair.quality_difference, signed=True)
        words = said[pair.question_type, pair.model]
        by_type.add_row(_pair_name(found, pair), str(pair.n), *scores, difference, words)
    result = Panel(Text("\n".join(found.verdict.reasons)), title=Text(found.verdict.headline, style="bold"))
    return Group(table, Text(), by_type, Text(), *_problems(found), Text(spent(found)), result)


def _table(title: str, headings: Sequence[str], n: int) -> Table:
    table = Table(title=f"{title} ({n:,})", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    return table


def _pair_name(found: Calibration, pair: Tradeoff) -> str:
    return pair.question_type if len(found.models) == 2 else f"{pair.question_type}: {pair.model}"


def _problems(found: Calibration) -> list[Text]:
    problems = []
    for what, failures in (("got no answer", found.unanswered), ("got no verdict", found.unjudged)):
        if failures:
            (question, model), why = next(iter(failures.items()))
            text = (
                f"{len(failures)} {what} and are left out of every table; the first is {question} with {model}: {why}"
            )
            problems.append(Text(text, style="bold red"))
    return problems


def spent(found: Calibration) -> str:
    """What this run cost, the judge apart."""
    meter, parts = found.meter, []
    for purpose, name in (("answers", "answers"), ("judge", "the judge")):
        usages = [usage for (p, _), usage in meter.usage.items() if p == purpose]
        tokens = sum(u.input_tokens + u.output_tokens for u in usages)
        calls = sum(count for (p, _), count in meter.calls.items() if p == purpose)
        parts.append(f"{name} ${meter.spent_usd(purpose):.6f} ({calls:,} calls, {tokens:,} tokens)")
    kept, cost = found.judge_spending
    before = f" All {kept:,} of the judge's replies that are kept: ${cost:.6f}." if kept else ""
    return f"This run: {' and '.join(parts)}.{before}"


def row_of(rows: Iterable[ModelSummary], question_type: str, model: str) -> ModelSummary:
    """The row of one model on one type."""
    return next(row for row in rows if (row.question_type, row.model) == (question_type, model))


def _document_cells(row: ModelSummary) -> tuple[str, ...]:
    return (
        row.model,
        share(row.correctness),
        share(row.completeness),
        str(row.total_tokens),
        usd(row.cost_usd),
        usd(row.cost_per_correct_pct),
    )


def as_csv(found: Calibration) -> str:
    """The comparison, a line for each type and model."""
    out = io.StringIO()
    writer = csv.writer(out)
    bounds = [f"{name}{end}" for name in ("correctness", "completeness", "score") for end in ("", "_low", "_high")]
    tokens_told = ("input_tokens", "output_tokens", "total_tokens", "mean_output_tokens")
    costs_told = ("cost_usd", "cost_per_correct_pct", "cost_per_correct_answer_usd")
    writer.writerow(["question_type", "model", "n", *bounds, *tokens_told, *costs_told])
    for row in found.summaries:
        values: list[float | str] = []
        for value in (row.correctness, row.completeness, row.score):
            values += ["", "", ""] if value is None else [value.estimate, value.low, value.high]
        costs = (row.cost_usd, row.cost_per_correct_pct, row.cost_per_correct_answer_usd)
        tokens = (row.input_tokens, row.output_tokens, row.total_tokens, round(row.mean_output_tokens, 1))
        told = ["" if math.isnan(cost) else f"{cost:.9f}" for cost in costs]
        writer.writerow([row.question_type, row.model, row.n, *values, *tokens, *told])
    return out.getvalue()


def as_html(found: Calibration) -> str:
    """The report as one page: its style and pictures are in it, and it asks no server for anything."""
    rules = found.policy.rules.targets if found.policy else ()
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=escape(found.verdict.headline),
        mark="go" if found.verdict.route else "stop",
        reasons="".join(f"<p>{escape(reason)}</p>" for reason in found.verdict.reasons),
        figures=_figures(found),
        comparison=_html_table(
            (*COLUMNS, "USD per correct answer", "n"),
            [
                (*_document_cells(row), usd(row.cost_per_correct_answer_usd), str(row.n))
                for row in found.summaries
                if row.question_type == ALL
            ],
        ),
        plot=plots.cost_quality(found.held_out, found.summaries, found.models, found.policy),
        plot_note=_plot_note(found),
        by_type=_cards(found),
        differences=plots.differences(found.tradeoffs),
        targets=_targets(found),
        confidence=f"{(rules[0].confidence if rules else CONFIDENCE) * 100:g} %",
        problems="".join(f"<p class='problem'>{escape(text.plain)}</p>" for text in _problems(found)),
        about=escape(_about(found)),
        spent=escape(spent(found)),
    )


def _figures(found: Calibration) -> str:
    rows = [row_of(found.summaries, ALL, model) for model in found.models]
    cheap, strong = rows[0], rows[-1]
    figures = [
        *((f"{row.score.estimate:.0%}", f"right: {row.model}") for row in rows),
        (f"{strong.cost_usd / cheap.cost_usd:.1f}×" if cheap.cost_usd else "–", f"cost of {strong.model}"),
        (f"${found.verdict.saving_per_1000_usd:.2f}", "saved per 1,000 requests by routing"),
    ]
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in figures)


def _html_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        f"<tr>{''.join(_cell(heading, cell) for heading, cell in zip(headings, row, strict=True))}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(heading: str, cell: str) -> str:
    return f"<td data-name='{escape(heading)}'>{escape(cell)}</td>"


def _cards(found: Calibration) -> str:
    said = describe_tradeoffs(found.tradeoffs)
    headings = ["type", "n", *(f"{model}, % right" for model in found.models), "difference, points", "cost ratio"]
    headings += [*(f"{model}, output tokens" for model in found.models), "the cheaper one"]
    lines = []
    for pair in found.tradeoffs:
        rows = [row_of(found.summaries, pair.question_type, model) for model in found.models]
        lines.append(
            [
                _pair_name(found, pair),
                str(pair.n),
                *(interval(row.score) for row in rows),
                interval(pair.quality_difference, signed=True),
                "–" if math.isnan(pair.cost_ratio) else f"{pair.cost_ratio:.0%}",
                *(f"{row.mean_output_tokens:.0f}" for row in rows),
                said[pair.question_type, pair.model],
            ]
        )
    return _html_table(headings, lines)


def _targets(found: Calibration) -> str:
    if found.policy is None or found.held_out is None:
        return "<p>No policy was learnt.</p>"
    lines = []
    answers = found.policy.answers
    looked = {rule.target: rule for rule in answers.targets} if answers else {}
    for rule in found.policy.rules.targets:
        point, gain = found.held_out.points[f"{rule.target:g}"], found.held_out.gain_over_mix[rule.target]
        lines.append(
            (
                f"{rule.target:.0%}" if rule.target * 100 % 1 == 0 else f"{rule.target:.1%}",
                _promised(rule),
                interval(rule.expected_saving) if rule.quality_per_usd is not None else "–",
                f"{point.strong_share:.0%}",
                interval(point.quality),
                interval(gain, signed=True),
                *([interval(looked[rule.target].expected_saving)] if looked else []),
            )
        )
    headings: tuple[str, ...] = (
        "target",
        "promise",
        "saves, %",
        "to the strong model",
        "held-out % right",
        "above a coin toss, points",
        *(["saves with answers looked at, %"] if looked else []),
    )
    return _html_table(headings, lines) + (_looked_at(answers) if answers else "")


def _looked_at(answers: Answers) -> str:
    """The types whose answers are worth a look."""
    lines = [
        (name, str(its.n), f"{its.apgr:.2f}", f"{its.apgr_without:.2f}") for name, its in sorted(answers.types.items())
    ]
    return _html_table(("answers worth a look", "n", "APGR with the answer", "without"), lines)


def _promised(rule: Rule) -> str:
    """What stands behind a target, and what would certify it."""
    if rule.certified:
        return Promise.CERTIFIED.value
    more = f"ask {rule.more_questions_needed:,} more" if rule.more_questions_needed else "more would not help"
    if rule.quality_per_usd is None:
        return f"no; {more}"
    short = f", fell short in {rule.falls_short:.0%} of resplits" if rule.falls_short is not None else ""
    return f"expected{short}; {more}"


def _plot_note(found: Calibration) -> str:
    if found.held_out is None:
        return "Measured on all questions; there are too few to keep some apart."
    return f"Measured on {found.held_out.n} questions that the predictor was not fitted on. Crosses are 95 % intervals."


def _about(found: Calibration) -> str:
    types = len({question.question_type for question in found.questions})
    text = f"{len(found.questions)} questions of {types} types, judged by {found.about.get('judge')}, "
    version = f"policy {found.policy.version}" if found.policy else "no policy"
    return text + f"{found.about.get('made_at')}, {version}."


def write(found: Calibration, folder: Path) -> Mapping[str, Path]:
    """Write the page and the CSV."""
    files = {"report.html": as_html(found), "comparison.csv": as_csv(found)}
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return {name: folder / name for name in files}
