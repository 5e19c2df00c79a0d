"""The report of a calibration as one self-contained HTML page, without external requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from calibration.comparison.tradeoffs import ALL
from calibration.comparison.verdict import describe_tradeoffs, format_percent
from calibration.learning.intervals import CONFIDENCE
from calibration.pipeline.calibration import Calibration
from calibration.reporting import plots
from calibration.reporting.numbers import MISSING, format_interval, format_promise, format_usd
from calibration.reporting.summary import (
    COLUMNS,
    comparison_rows,
    describe_failures,
    describe_spending,
    find_row,
    pair_name,
)
from router.policy.answers import Answers

TEMPLATE = Path(__file__).with_name("report.html")


def format_html(calibration: Calibration) -> str:
    """The page as a string."""
    rules = calibration.policy.rules.targets if calibration.policy else ()
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=escape(calibration.verdict.headline),
        mark="go" if calibration.verdict.route else "stop",
        reasons="".join(f"<p>{escape(reason)}</p>" for reason in calibration.verdict.reasons),
        figures=_key_figures(calibration),
        comparison=_comparison_table(calibration),
        plot=plots.plot_cost_quality(
            calibration.held_out, calibration.summaries, calibration.models, calibration.policy
        ),
        plot_note=_plot_note(calibration),
        by_type=_types_table(calibration),
        differences=plots.plot_differences(calibration.tradeoffs),
        targets=_targets_table(calibration),
        verification=_verification(calibration.policy.answers)
        if calibration.policy and calibration.policy.answers
        else "",
        confidence=f"{(rules[0].confidence if rules else CONFIDENCE) * 100:g} %",
        problems="".join(f"<p class='problem'>{escape(line)}</p>" for line in describe_failures(calibration)),
        about=escape(_describe_origin(calibration)),
        spent=escape(describe_spending(calibration)),
    )


def _key_figures(calibration: Calibration) -> str:
    rows = [find_row(calibration.summaries, ALL, model) for model in calibration.models]
    cheap, strong = rows[0], rows[-1]
    ratio = f"{strong.cost_usd / cheap.cost_usd:.1f}×" if cheap.cost_usd else MISSING
    figures = [
        *((f"{row.score.estimate:.0%}", f"right: {row.model}") for row in rows),
        (ratio, f"cost of {strong.model} relative to {cheap.model}"),
        (f"${calibration.verdict.saving_per_1000_usd:.2f}", "saved per 1,000 requests by routing"),
    ]
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in figures)


def _html_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(map(_cell, headings, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(heading: str, cell: str) -> str:
    """A cell with its heading as an attribute, which the style sheet shows on narrow screens."""
    return f"<td data-name='{escape(heading)}'>{escape(cell)}</td>"


def _comparison_table(calibration: Calibration) -> str:
    rows = [
        (*cells, format_usd(row.cost_per_correct_answer_usd), str(row.n)) for row, cells in comparison_rows(calibration)
    ]
    return _html_table((*COLUMNS, "USD per correct answer", "n"), rows)


def _types_table(calibration: Calibration) -> str:
    descriptions = describe_tradeoffs(calibration.tradeoffs)
    headings = ["type", "n", *(f"{model}, % right" for model in calibration.models), "difference, points", "cost ratio"]
    headings += [*(f"{model}, output tokens" for model in calibration.models), "cheaper model"]
    lines = []
    for pair in calibration.tradeoffs:
        rows = [find_row(calibration.summaries, pair.question_type, model) for model in calibration.models]
        lines.append(
            [
                pair_name(calibration, pair),
                str(pair.n),
                *(format_interval(row.score) for row in rows),
                format_interval(pair.quality_difference, signed=True),
                MISSING if math.isnan(pair.cost_ratio) else f"{pair.cost_ratio:.0%}",
                *(f"{row.mean_output_tokens:.0f}" for row in rows),
                descriptions[pair.question_type, pair.model],
            ]
        )
    return _html_table(headings, lines)


def _targets_table(calibration: Calibration) -> str:
    if calibration.policy is None or calibration.held_out is None:
        return "<p>No policy was learnt.</p>"
    answers = calibration.policy.answers
    verified = {rule.target: rule for rule in answers.targets} if answers else {}
    lines = []
    for rule in calibration.policy.rules.targets:
        point, gain = calibration.held_out.points[f"{rule.target:g}"], calibration.held_out.gain_over_mix[rule.target]
        lines.append(
            (
                format_percent(rule.target),
                format_promise(rule),
                format_interval(rule.expected_saving) if rule.quality_per_usd is not None else MISSING,
                f"{point.strong_share:.0%}",
                format_interval(point.quality),
                format_interval(gain, signed=True),
                *([format_interval(verified[rule.target].expected_saving)] if verified else []),
            )
        )
    headings = [
        *("target", "promise", "cost saved, %", "to the strong model", "held-out % right"),
        "gain over a random mix, points",
        *(["cost saved with answer verification, %"] if verified else []),
    ]
    return _html_table(headings, lines)


def _verification(answers: Answers) -> str:
    """The types on which answer verification pays."""
    rows = [
        (name, str(gain.n), *("-" if value is None else f"{value:.2f}" for value in (gain.apgr, gain.apgr_without)))
        for name, gain in sorted(answers.types.items())
    ]
    table = _html_table(("type with answer verification", "n", "APGR with", "APGR without"), rows)
    return f'<h2>Answer verification</h2><div class="card scroll">{table}</div>'


def _plot_note(calibration: Calibration) -> str:
    if calibration.held_out is None:
        return "Measured on all questions, because there are too few for a held-out set."
    return f"Measured on {calibration.held_out.n} held-out questions. Crosses are 95 % intervals."


def _describe_origin(calibration: Calibration) -> str:
    types = len({question.question_type for question in calibration.questions})
    policy = f"policy {calibration.policy.version}" if calibration.policy else "no policy"
    return (
        f"{len(calibration.questions)} questions of {types} types, judged by {calibration.about.get('judge')}, "
        f"{calibration.about.get('made_at')}, {policy}."
    )
