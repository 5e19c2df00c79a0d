"""The report of a calibration as one self-contained HTML page, without external requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from calibration.comparison.tradeoffs import ALL
from calibration.comparison.verdict import of_types, percent
from calibration.learning.certificate import CONFIDENCE
from calibration.pipeline.run import Calibration
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


def format_html(found: Calibration) -> str:
    """The page as a string."""
    rules = found.policy.rules.targets if found.policy else ()
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        headline=escape(found.verdict.headline),
        mark="go" if found.verdict.route else "stop",
        reasons="".join(f"<p>{escape(reason)}</p>" for reason in found.verdict.reasons),
        figures=_key_figures(found),
        comparison=_comparison_table(found),
        plot=plots.plot_cost_quality(found.held, found.rows, found.models, found.policy),
        plot_note=_plot_note(found),
        by_type=_types_table(found),
        differences=plots.plot_differences(found.pairs),
        targets=_targets_table(found),
        verification=_verification(found.policy.answers) if found.policy and found.policy.answers else "",
        confidence=f"{(rules[0].confidence if rules else CONFIDENCE) * 100:g} %",
        problems="".join(f"<p class='problem'>{escape(line)}</p>" for line in describe_failures(found)),
        about=escape(_describe_origin(found)),
        spent=escape(describe_spending(found)),
    )


def _key_figures(found: Calibration) -> str:
    rows = [find_row(found.rows, ALL, model) for model in found.models]
    cheap, strong = rows[0], rows[-1]
    ratio = f"{strong.cost_usd / cheap.cost_usd:.1f}×" if cheap.cost_usd else MISSING
    figures = [
        *((f"{row.score.estimate:.0%}", f"right: {row.model}") for row in rows),
        (ratio, f"cost of {strong.model} relative to {cheap.model}"),
        (f"${found.verdict.saving_per_1000_usd:.2f}", "saved per 1,000 requests by routing"),
    ]
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in figures)


def _html_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(map(_cell, headings, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(heading: str, cell: str) -> str:
    """A cell with its heading as an attribute, which the style sheet shows on narrow screens."""
    return f"<td data-name='{escape(heading)}'>{escape(cell)}</td>"


def _comparison_table(found: Calibration) -> str:
    rows = [(*cells, format_usd(row.cost_per_correct_answer_usd), str(row.n)) for row, cells in comparison_rows(found)]
    return _html_table((*COLUMNS, "USD per correct answer", "n"), rows)


def _types_table(found: Calibration) -> str:
    descriptions = of_types(found.pairs)
    headings = ["type", "n", *(f"{model}, % right" for model in found.models), "difference, points", "cost ratio"]
    headings += [*(f"{model}, output tokens" for model in found.models), "cheaper model"]
    lines = []
    for pair in found.pairs:
        rows = [find_row(found.rows, pair.question_type, model) for model in found.models]
        lines.append(
            [
                pair_name(found, pair),
                str(pair.n),
                *(format_interval(row.score) for row in rows),
                format_interval(pair.quality_difference, signed=True),
                MISSING if math.isnan(pair.cost_ratio) else f"{pair.cost_ratio:.0%}",
                *(f"{row.mean_output_tokens:.0f}" for row in rows),
                descriptions[pair.question_type, pair.model],
            ]
        )
    return _html_table(headings, lines)


def _targets_table(found: Calibration) -> str:
    if found.policy is None or found.held is None:
        return "<p>No policy was learnt.</p>"
    answers = found.policy.answers
    verified = {rule.target: rule for rule in answers.targets} if answers else {}
    lines = []
    for rule in found.policy.rules.targets:
        point, gain = found.held.points[f"{rule.target:g}"], found.held.gain_over_mix[rule.target]
        lines.append(
            (
                percent(rule.target),
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
        (name, str(gain.n), f"{gain.apgr:.2f}", f"{gain.apgr_without:.2f}")
        for name, gain in sorted(answers.types.items())
    ]
    table = _html_table(("type with answer verification", "n", "APGR with", "APGR without"), rows)
    return f'<h2>Answer verification</h2><div class="card scroll">{table}</div>'


def _plot_note(found: Calibration) -> str:
    if found.held is None:
        return "Measured on all questions, because there are too few for a held-out set."
    return f"Measured on {found.held.n} held-out questions. Crosses are 95 % intervals."


def _describe_origin(found: Calibration) -> str:
    types = len({question.question_type for question in found.questions})
    policy = f"policy {found.policy.version}" if found.policy else "no policy"
    return (
        f"{len(found.questions)} questions of {types} types, judged by {found.about.get('judge')}, "
        f"{found.about.get('made_at')}, {policy}."
    )
