"""What was measured becomes the tables of docs/explanations/quality.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ranking import METHODS

PUBLISHED = {  # RouteLLM (Ong et al. 2024), the best router of each table: APGR, CPT50, CPT80
    "mmlu": (0.603, 0.354, 0.703),
    "gsm8k": (0.622, 0.336, 0.633),
}
NAMES = {
    "apgr": "APGR",
    "cpt50": "CPT50",
    "cpt80": "CPT80",
    "saved95": "saved at 95 %, in hindsight",
    "saved97": "saved at 97 %, in hindsight",
    "saved99": "saved at 99 %, in hindsight",
}
SAVED_GOAL, TARGET = 0.60, 0.97  # what decisions at the default target are to save, and to keep
APGR_GOALS = {"pair": 0.76, "mmlu": 0.64, "gsm8k": 0.66}
PLACES = ("goals", "pair", "by-type", "routellm", "certificate", "forms", "shipped", "speed")
NOT_MEASURED = "Not measured yet."


def rows_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(interval: Sequence[float], signed: bool = False) -> str:
    """An estimate with its interval, given as (low, estimate, high).

    >>> spread((0.6, 0.65, 0.7))
    '.650 (.600 to .700)'
    >>> spread((-0.01, 0.02, 0.05), signed=True)
    '+.020 (-.010 to +.050)'
    """
    low, middle, high = (f"{value:+.3f}" if signed else f"{value:.3f}" for value in interval)
    return f"{middle} ({low} to {high})".replace("0.", ".")


def ranking_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the ranking, by the name of their place on the page."""

    def compared(table: Mapping[str, Any], names: Sequence[str]) -> list[list[str]]:
        return [
            [
                NAMES[n],
                spread(table[n]["router"]),
                spread(table[n]["baseline"]),
                spread(table[n]["difference"], signed=True),
            ]
            for n in names
        ]

    header = ["", "router", "baseline", "difference"]
    pair = [n for n in NAMES if n in results["pair"]]
    by_type = [
        [name, str(t["n"]), *(spread(t["apgr"][m]) for m in METHODS), spread(t["apgr"]["difference"], True)]
        for name, t in results["by_type"].items()
        if not math.isnan(t["apgr"]["router"][1])
    ]
    routellm_rows = [
        [source, str(t["n"]), *row, f"{PUBLISHED[source][i]:.3f}" if source in PUBLISHED else "-"]
        for source, t in results["routellm"].items()
        for i, row in enumerate(compared(t, ("apgr", "cpt50", "cpt80")))
    ]
    return {
        "pair": rows_of(header, compared(results["pair"], pair)),
        "by-type": rows_of(["type", "n", *(f"APGR, {m}" for m in header[1:3]), "difference"], by_type),
        "routellm": rows_of(["benchmark", "n", *header, "best published router"], routellm_rows),
    }


def goals_table(rank: Mapping[str, Any], shipped: Mapping[str, Any]) -> str:
    """Each goal against what was measured: of the shipped policy's decisions, and of the ranking."""
    default, strict = shipped["targets"]["0.97"], shipped["targets"]["0.99"]
    saved, kept, saved_strict = default["saved_cost"], default["quality_kept"], strict["saved_cost"]
    certified = "certified" if strict["certified"] else "not certified"
    rows = [
        (f"decisions at 97 % save at least {SAVED_GOAL:.2f}", spread(saved), saved[1] >= SAVED_GOAL),
        (f"decisions at 97 % keep at least {TARGET:.2f}", spread(kept), kept[1] >= TARGET),
        (
            "99 % is certified and saves something",
            f"{certified}, saved {spread(saved_strict)}",
            strict["certified"] and saved_strict[1] > 0,
        ),
    ]
    for place, goal in APGR_GOALS.items():
        apgr = (rank["pair"] if place == "pair" else rank["routellm"][place])["apgr"]["router"]
        title = "gpt-4o pair" if place == "pair" else place.upper()
        rows.append((f"{title}, APGR at least {goal:.2f}", spread(apgr), apgr[1] >= goal))
    return rows_of(["goal", "measured", "met"], [[goal, text, "yes" if met else "no"] for goal, text, met in rows])


def certificate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The resplits, one row a scenario, number of questions and target."""
    header = [
        "scenario",
        "questions",
        "promise",
        "resplits",
        "violated",
        "by more than a point",
        "saved, median",
        "kept, median",
    ]
    return rows_of(
        header,
        [
            [
                row["scenario"],
                f"{row['n']:,}",
                f"{row['target']:.0%}",
                f"{row['resplits']:,}",
                f"{row['violated']:.1%}",
                f"{row['by_a_point']:.1%}",
                f"{round(row['saved'], 3) + 0.0:.1%}",  # 0.0 makes no negative zero of a loss too small to show
                f"{row['kept']:.3f}",
            ]
            for row in rows
        ],
    )


def forms_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is decided on each form of the same questions."""
    return rows_of(
        ["form", "strong calls", "saved", "kept", "of the bare saving", "decisions that flip"],
        [
            [
                row["form"],
                f"{row['strong_calls']:.1%}",
                f"{row['saved']:.3f}",
                f"{row['kept']:.3f}",
                f"{row['saving_left']:.0%}",
                f"{row['flips']:.1%}",
            ]
            for row in rows
        ],
    )


def shipped_table(shipped: Mapping[str, Any]) -> str:
    """What the shipped policy promised and what it did on the test questions."""
    return rows_of(
        ["target", "certified", "quality kept", "dollars saved", "strong calls"],
        [
            [
                target,
                "yes" if row["certified"] else "no",
                spread(row["quality_kept"]),
                spread(row["saved_cost"]),
                f"{row['strong_calls']:.0%}",
            ]
            for target, row in shipped["targets"].items()
        ],
    )


def speed_table(speed: Mapping[str, Any]) -> str:
    """What a prediction costs, against its limits."""
    return rows_of(
        ["", "measured", "limit"],
        [
            ["a request, median", f"{speed['predict_ms']['median']:.2f} ms", "0.3 ms"],
            ["a request, 99th percentile", f"{speed['predict_ms']['p99']:.2f} ms", "-"],
            ["a prompt of 100 kB", f"{speed['long_prompt_ms']:.2f} ms", "2 ms"],
            ["memory of policy and prediction", f"{speed['resident_mb']:.0f} MB", "60 MB"],
            ["loading", f"{speed['load_seconds']:.2f} s", "0.5 s"],
        ],
    )


def parts_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Every table of the page, by the name of its place; a place says so where its piece was not measured."""
    parts = dict.fromkeys(PLACES, NOT_MEASURED)
    if "ranking" in results:
        parts |= ranking_tables(results["ranking"])
    if "ranking" in results and "shipped" in results:
        parts["goals"] = goals_table(results["ranking"], results["shipped"])
    tables: dict[str, Callable[[Any], str]] = {
        "certificate": certificate_table,
        "forms": forms_table,
        "shipped": shipped_table,
        "speed": speed_table,
    }
    return parts | {name: table(results[name]) for name, table in tables.items() if name in results}
