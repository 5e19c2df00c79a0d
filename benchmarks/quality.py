"""Measures the routing and writes the tables and plots of docs/quality.md.

    python benchmarks/quality.py [--data ../shared/data] [--seeds 3] [--rounds 200] [--resplits 1000] [--from-results]

The page is written by hand around marked places: what stands between `<!-- NAME -->` and `<!-- /NAME -->` is replaced.
Everything measured is kept in docs/quality/results.json, from which `--from-results` renders the page again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import certificate
import matplotlib
import ranking

from calibration.outcomes import read_outcomes
from calibration.policies import DATA, read_policy
from calibration.scoring import evaluate

ROOT = Path(__file__).resolve().parent.parent
PAGE, FOLDER = ROOT / "docs" / "quality.md", ROOT / "docs" / "quality"
PUBLISHED = {  # RouteLLM (Ong et al. 2024), the best router of each table: APGR, CPT50, CPT80
    "mmlu": (0.603, 0.354, 0.703),
    "gsm8k": (0.622, 0.336, 0.633),
}
NAMES = {
    "apgr": "APGR",
    "cpt50": "CPT50",
    "cpt80": "CPT80",
    "saved95": "saved at 95 %",
    "saved97": "saved at 97 %",
    "saved99": "saved at 99 %",
}
GOALS = {"pair.apgr": 0.76, "pair.saved97": 0.60, "mmlu.apgr": 0.70, "gsm8k.apgr": 0.66}


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
                spread(table[n]["yardstick"]),
                spread(table[n]["difference"], signed=True),
            ]
            for n in names
        ]

    header = ["", "router", "yardstick", "difference"]
    pair = [n for n in NAMES if n in results["pair"]]
    by_type = [
        [name, str(t["n"]), *(spread(t["apgr"][m]) for m in ranking.METHODS), spread(t["apgr"]["difference"], True)]
        for name, t in results["by_type"].items()
        if not math.isnan(t["apgr"]["router"][1])
    ]
    other = [
        [source, str(t["n"]), *row, f"{PUBLISHED[source][i]:.3f}" if source in PUBLISHED else "-"]
        for source, t in results["routellm"].items()
        for i, row in enumerate(compared(t, ("apgr", "cpt50", "cpt80")))
    ]
    return {
        "pair": rows_of(header, compared(results["pair"], pair)),
        "by-type": rows_of(["type", "n", *(f"APGR, {m}" for m in ranking.METHODS), "difference"], by_type),
        "routellm": rows_of(["benchmark", "n", *header, "best published router"], other),
        "goals": rows_of(["goal", "measured", "met"], goals(results)),
    }


def goals(results: Mapping[str, Any]) -> list[list[str]]:
    """Each goal of the ranking against what was measured."""
    rows = []
    for name, goal in GOALS.items():
        place, measure = name.split(".")
        table = results["pair"] if place == "pair" else results["routellm"].get(place)
        if table is None:
            continue
        interval = table[measure]["router"]
        title = "gpt-4o pair" if place == "pair" else place.upper()
        rows.append(
            [f"{title}, {NAMES[measure]} at least {goal:.2f}", spread(interval), "yes" if interval[1] >= goal else "no"]
        )
    return rows


def certificate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The resplits, one row a target and method."""
    header = [
        "promise",
        "chosen by",
        "resplits",
        "violated",
        "violated on the whole pool",
        "saved",
        "of hindsight's saving",
        "none",
    ]
    return rows_of(
        header,
        [
            [
                f"{row['target']:.0%}",
                row["method"],
                f"{row['resplits']:,}",
                f"{row['violated']:.1%}",
                f"{row['violated_pool']:.1%}",
                f"{row['saved']:.1%}",
                f"{row['share_of_hindsight']:.0%}",
                f"{row['not_certified']:.1%}",
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


def plot(curves: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """The share of quality kept against the share of dollars saved."""
    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "quality", "font.family": "sans-serif"})
    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name)
    ends = next(iter(curves.values()))
    axes.plot([ends[0][0], ends[-1][0]], [ends[0][1], ends[-1][1]], ":", color="grey", label="random")
    axes.axhline(0.97, color="grey", linewidth=0.5)
    axes.set(xlabel="share of dollars saved", ylabel="share of gpt-4o's quality kept")
    axes.legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with each marked place filled.

    >>> filled("a <!-- x --> old <!-- /x --> b", {"x": "new"})
    'a <!-- x -->\\n\\nnew\\n\\n<!-- /x --> b'
    """
    for name, text in parts.items():
        head, mark, rest = page.partition(f"<!-- {name} -->")
        _, end, tail = rest.partition(f"<!-- /{name} -->")
        if not mark or not end:
            raise SystemExit(f"docs/quality.md has no place <!-- {name} --> ... <!-- /{name} -->")
        page = f"{head}{mark}\n\n{text}\n\n{end}{tail}"
    return page


def parts_of(results: Mapping[str, Any]) -> dict[str, str]:
    """Every table of the page, by the name of its place."""
    return {
        **ranking_tables(results["ranking"]),
        "certificate": certificate_table(results["certificate"]),
        "shipped": shipped_table(results["shipped"]),
        "speed": speed_table(results["speed"]),
    }


def render(results: Mapping[str, Any]) -> None:
    """Write the tables into the page, and the plot beside it."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), parts_of(results)), encoding="utf-8")
    plot(results["ranking"]["curves"], FOLDER / "curve.svg")


def measure(data: Path, seeds: int, rounds: int, resplits: int) -> dict[str, Any]:
    """Everything that the page shows."""
    command = [sys.executable, str(ROOT / "benchmarks" / "prediction.py"), "--requests", str(data / "test.jsonl.gz")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    speed = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
    calibration, test = (read_outcomes([data / f"{n}.jsonl.gz"], ranking.PAIR) for n in ("calibration", "test"))
    shipped = evaluate(read_policy(DATA / "policy"), test, rounds, 0)
    return {
        "speed": speed,
        "shipped": {"policy": shipped["policy"], "pooled": shipped["pooled"], "targets": shipped["targets"]},
        "ranking": ranking.measure(data, seeds, rounds),
        "certificate": certificate.measure(calibration, resplits, 1000, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--resplits", type=int, default=1000)
    parser.add_argument("--from-results", action="store_true", help="only render the page again")
    arguments = parser.parse_args()
    kept = FOLDER / "results.json"
    if not arguments.from_results:
        if not (arguments.data / "test.jsonl.gz").is_file():
            print(f"skipped: the recorded outcomes ({arguments.data}) are not here")
            return 0
        results = measure(arguments.data, arguments.seeds, arguments.rounds, arguments.resplits)
        FOLDER.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    render(json.loads(kept.read_text(encoding="utf-8")))
    print(f"written: {PAGE} and {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
