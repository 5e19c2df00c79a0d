"""Parts of a calibration that every form of the report shows."""

from __future__ import annotations

from collections.abc import Iterable

from calibration.comparison.tradeoffs import ALL, ModelSummary, Tradeoff
from calibration.pipeline.calibration import Calibration
from calibration.reporting.numbers import format_share, format_usd

COLUMNS = ("model", "correctness", "completeness", "total_tokens", "cost_usd", "cost_per_correct_pct")


def comparison_rows(calibration: Calibration) -> list[tuple[ModelSummary, tuple[str, ...]]]:
    """The summary of each model on all questions, and its cells for `COLUMNS`."""
    return [(row, _comparison_cells(row)) for row in calibration.summaries if row.question_type == ALL]


def _comparison_cells(row: ModelSummary) -> tuple[str, ...]:
    return (
        row.model,
        format_share(row.correctness),
        format_share(row.completeness),
        str(row.total_tokens),
        format_usd(row.cost_usd),
        format_usd(row.cost_per_correct_pct),
    )


def find_row(rows: Iterable[ModelSummary], question_type: str, model: str) -> ModelSummary:
    """The summary of one model on one type."""
    return next(row for row in rows if (row.question_type, row.model) == (question_type, model))


def pair_name(calibration: Calibration, pair: Tradeoff) -> str:
    """The type of a pair, and its cheaper model if there are several."""
    return pair.question_type if len(calibration.models) == 2 else f"{pair.question_type}: {pair.model}"


def describe_failures(calibration: Calibration) -> list[str]:
    """Sentences about questions that lack an answer or a verdict."""
    lines = []
    for missing, failures in (("answer", calibration.unanswered), ("verdict", calibration.unjudged)):
        if failures:
            (question, model), reason = next(iter(failures.items()))
            lines.append(
                f"No {missing} for {len(failures)} answers, which are excluded from all tables; "
                f"the first is {question} with {model}: {reason}"
            )
    return lines


def describe_spending(calibration: Calibration) -> str:
    """A sentence about the cost of this run: answers, and the judge."""
    meter, parts = calibration.meter, []
    for purpose, name in (("answers", "answers"), ("judge", "the judge")):
        usages = [usage for (p, _), usage in meter.usage.items() if p == purpose]
        tokens = sum(usage.input_tokens + usage.output_tokens for usage in usages)
        calls = sum(count for (p, _), count in meter.calls.items() if p == purpose)
        parts.append(f"{name} ${meter.spent_usd(purpose):.6f} ({calls:,} calls, {tokens:,} tokens)")
    replies, cost_usd = calibration.judge_spending
    total = f" All {replies:,} stored replies of the judge together cost ${cost_usd:.6f}." if replies else ""
    return f"Cost of this run: {' and '.join(parts)}.{total}"
