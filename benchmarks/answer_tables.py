"""The tables of docs/explanations/answers.md, from the results of `answers.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Interval = Sequence[float]


def build_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page, by the name of their place."""
    ranked = [
        [
            name,
            str(row["n"]),
            f"{row['looked_at']:.0%}",
            *(format_interval(row[k]) for k in ("with", "without", "difference")),
        ]
        for name, row in results["ranking"].items()
        if row["looked_at"] > 0
    ]
    target_rows = [
        [
            f"{row['target']:.1%}",
            *(("yes" if row["certified"][k] else "no") for k in ("with",)),
            f"{row['expected']['with'][1]:.3f}",
            f"{row['expected']['without'][1]:.3f}",
            *(format_interval(row[k]["saved"]) for k in ("with", "without")),
            *(format_interval(row[k]["kept"]) for k in ("with", "without")),
        ]
        for row in results["targets"]
        if row["target"] >= 0.9
    ]
    by_type = []
    row_by_target = {row["target"]: row for row in results["targets"]}
    for name in row_by_target[0.97]["with"]["by_type"]:
        if results["ranking"].get(name, {"looked_at": 0})["looked_at"] > 0:
            cells = [
                f"{row_by_target[t][k]['by_type'][name][0]:.2f}, {row_by_target[t][k]['by_type'][name][1]:.3f}"
                for t in (0.97, 0.99)
                for k in ("with", "without")
            ]
            by_type.append([name, *cells])
    violated = [
        [
            f"{row['target']:.0%}",
            way,
            str(row["resplits"]),
            f"{row['violated']:.1%} (± {row['violated_error']:.1%})",
            f"{row['by_a_point']:.1%}",
            f"{row['saved']:.3f}",
            f"{row['kept']:.3f}",
        ]
        for way, rows in results["resplits"].items()
        for row in rows
    ]
    type_rows = [
        [name, str(row["n"]), f"{row['apgr']:.3f}", f"{row['apgr_without']:.3f}", f"{row['score']:.1f}"]
        for name, row in results["looked_at"].items()
    ]
    hindsight_rows = [
        [f"{float(key):.0%}", format_interval(value["with"]), format_interval(value["without"])]
        for key, value in results["hindsight"].items()
    ]
    speed = results["speed_ms"]
    return {
        "types": table(("type", "n", "APGR with the answer", "without", "t"), type_rows),
        "ranking": table(("type", "n", "looked at", "with the answer", "without", "difference"), ranked),
        "targets": table(
            (
                "target",
                "certified",
                "saved in calibration, with",
                "without",
                "saved, with",
                "without",
                "kept, with",
                "without",
            ),
            target_rows,
        ),
        "saved-by-type": table(("type", "97 %, with", "97 %, without", "99 %, with", "99 %, without"), by_type),
        "hindsight": table(("quality kept", "saved with the answer", "without"), hindsight_rows),
        "resplits": table(
            (
                "target",
                "answers",
                "resplits",
                "violated (± standard error)",
                "by more than a point",
                "saved, median",
                "kept, median",
            ),
            violated,
        ),
        "speed": f"A check costs {speed['median']:.2f} ms of CPU at the median, {speed['p99']:.2f} ms at the 99th "
        f"percentile and {speed['most']:.1f} ms at most. Measured with policy `{results['policy']}`.",
    }


def format_interval(value: Interval) -> str:
    """An estimate with its interval."""
    if np.isnan(value[1]):
        return "-"
    low, estimate, high = (f"{value_text:.3f}".replace("0.", ".", 1) for value_text in value)
    return f"{estimate} ({low} to {high})"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
