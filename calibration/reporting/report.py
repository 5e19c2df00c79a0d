"""The report files of a calibration: an HTML page and a CSV table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from calibration.pipeline.calibration import Calibration
from calibration.reporting.page import format_html


def format_csv(calibration: Calibration) -> str:
    """The comparison as CSV, one line per type and model."""
    out = io.StringIO()
    writer = csv.writer(out)
    intervals = [f"{name}{end}" for name in ("correctness", "completeness", "score") for end in ("", "_low", "_high")]
    tokens = ("input_tokens", "output_tokens", "total_tokens", "mean_output_tokens")
    costs = ("cost_usd", "cost_per_correct_pct", "cost_per_correct_answer_usd")
    writer.writerow(["question_type", "model", "n", *intervals, *tokens, *costs])
    for row in calibration.summaries:
        values: list[float | str] = []
        for value in (row.correctness, row.completeness, row.score):
            values += ["", "", ""] if value is None else [value.estimate, value.low, value.high]
        values += [row.input_tokens, row.output_tokens, row.total_tokens, round(row.mean_output_tokens, 1)]
        for cost in (row.cost_usd, row.cost_per_correct_pct, row.cost_per_correct_answer_usd):
            values.append("" if math.isnan(cost) else f"{cost:.9f}")
        writer.writerow([row.question_type, row.model, row.n, *values])
    return out.getvalue()


def write_report(calibration: Calibration, folder: Path) -> Mapping[str, Path]:
    """Write `report.html` and `comparison.csv` into a folder; return the path of each."""
    contents = {"report.html": format_html(calibration), "comparison.csv": format_csv(calibration)}
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return {name: folder / name for name in contents}
