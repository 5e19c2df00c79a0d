"""Measures the routing and writes the tables and plots of docs/explanations/quality.md.

    python benchmarks/quality.py [--data ../shared/data] [--forms ../shared/forms/forms.py] [--seeds 3] [--rounds 200]
                                 [--resplits 100] [--only forms,speed] [--from-results]

The page is written by hand around marked places: what stands between `<!-- NAME -->` and `<!-- /NAME -->` is replaced.
Everything measured is kept in docs/explanations/quality/results.json, from which `--from-results` renders the page
again. `--only` measures some pieces and keeps the others as they were.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import certificate
import forms
import matplotlib
import ranking
import tables
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calibration.comparison.scoring import evaluate
from calibration.outcomes import Outcome, read_outcomes
from calibration.policies import DATA, read_policy

ROOT = Path(__file__).resolve().parent.parent
USD_A_QUESTION = 2.01 / 640  # of data/questions.jsonl, asked and judged (data/README.md)
PAGE, FOLDER = ROOT / "docs" / "explanations" / "quality.md", ROOT / "docs" / "explanations" / "quality"


def _axes(**labels: str) -> tuple[Figure, Axes]:
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "quality", "font.family": "sans-serif"})
    figure = Figure(figsize=(6, 3.6), layout="tight")
    axes = figure.add_subplot()
    axes.set(**labels)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


def plot_sizes(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The share of dollars that a calibration saves, against its questions and what asking them costs."""
    figure, axes = _axes(xlabel="questions of the calibration", ylabel="share of gpt-4o's dollars saved")
    sizes = sorted({row["n"] for row in rows})
    for scenario, colour in zip(dict.fromkeys(row["scenario"] for row in rows), ("C0", "C1", "C2"), strict=False):
        for target, line in ((0.95, "--"), (0.97, "-")):
            points = [(r["n"], r["saved"]) for r in rows if r["scenario"] == scenario and r["target"] == target]
            axes.plot(*zip(*sorted(points), strict=True), line, color=colour, label=f"{scenario}, {target:.0%}")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    above = axes.secondary_xaxis("top")
    above.set_xticks(sizes, [f"${n * USD_A_QUESTION:.2f}" for n in sizes])
    above.minorticks_off()
    above.set_xlabel("dollars to ask and judge them")
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
    _save(figure, path)


def plot_curves(curves: Mapping[str, Sequence[Sequence[float]]], path: Path) -> None:
    """The share of quality kept against the share of dollars saved."""
    figure, axes = _axes(xlabel="share of dollars saved", ylabel="share of gpt-4o's quality kept")
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), label=name)
    ends = next(iter(curves.values()))
    axes.plot([ends[0][0], ends[-1][0]], [ends[0][1], ends[-1][1]], ":", color="grey", label="random")
    axes.axhline(0.97, color="grey", linewidth=0.5)
    axes.legend(frameon=False)
    _save(figure, path)


def plot_shipped(shipped: Mapping[str, Any], path: Path) -> None:
    """What the shipped policy's decisions save and keep at each target, between either model alone."""
    pooled, strong = shipped["pooled"], "gpt-4o"
    cheap = next(name for name in pooled["quality"] if name != strong)
    ends = [
        (0.0, 1.0),
        tuple(pooled[measure_name][cheap] / pooled[measure_name][strong] for measure_name in ("cost_usd", "quality")),
    ]
    ends[1] = (1.0 - ends[1][0], ends[1][1])
    figure, axes = _axes(xlabel="share of dollars saved", ylabel=f"share of {strong}'s quality kept")
    axes.plot(*zip(*ends, strict=True), ":", color="grey", label="random mix")
    for (x, y), name, side in zip(ends, (strong, cheap), ((6, 8), (-6, -14)), strict=True):
        axes.plot(x, y, "o", color="grey")
        axes.annotate(f"always {name}", (x, y), side, textcoords="offset points", ha="left" if x == 0 else "right")
    for target in ("0.9", "0.95", "0.97", "0.99"):
        saved_cost, quality_kept = (
            shipped["targets"][target][measure_name] for measure_name in ("saved_cost", "quality_kept")
        )
        errors = [[[interval[1] - interval[0]], [interval[2] - interval[1]]] for interval in (saved_cost, quality_kept)]
        axes.errorbar(saved_cost[1], quality_kept[1], xerr=errors[0], yerr=errors[1], fmt="s", color="C0", elinewidth=1)
        axes.annotate(
            f"target {float(target):.0%}", (saved_cost[1], quality_kept[1]), (8, 6), textcoords="offset points"
        )
    axes.set(xlim=(-0.03, 1.1), ylim=(0.86, 1.03))
    axes.legend(frameon=False, loc="lower left")
    _save(figure, path)


def fill_section(page: str, parts: Mapping[str, str]) -> str:
    """The page with each marked place filled.

    >>> filled("a <!-- x --> old <!-- /x --> b", {"x": "new"})
    'a <!-- x -->\\n\\nnew\\n\\n<!-- /x --> b'
    """
    for name, text in parts.items():
        head, mark, after_mark = page.partition(f"<!-- {name} -->")
        _, end, tail = after_mark.partition(f"<!-- /{name} -->")
        if not mark or not end:
            raise SystemExit(f"docs/explanations/quality.md has no place <!-- {name} --> ... <!-- /{name} -->")
        page = f"{head}{mark}\n\n{text}\n\n{end}{tail}"
    return page


def render(results: Mapping[str, Any]) -> None:
    """Write the tables into the page, and the plots beside it."""
    PAGE.write_text(fill_section(PAGE.read_text(encoding="utf-8"), tables.parts_of(results)), encoding="utf-8")
    if "ranking" in results:
        plot_curves(results["ranking"]["curves"], FOLDER / "curve.svg")
    if "shipped" in results:
        plot_shipped(results["shipped"], FOLDER / "shipped.svg")
    if "certificate" in results:
        plot_sizes(results["certificate"], FOLDER / "sizes.svg")


def measure_speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a prediction costs, in a process of its own."""
    requests = str(arguments.data / "test.jsonl.gz")
    command = [sys.executable, str(ROOT / "benchmarks" / "prediction.py"), "--requests", requests]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout))


def measure_shipped(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the shipped policy's decisions keep and save on the test questions."""
    evaluation = evaluate(read_policy(DATA / "policy"), read_test(arguments), arguments.rounds, 0)
    return {name: evaluation[name] for name in ("policy", "pooled", "targets")}


def measure_ranking(arguments: argparse.Namespace) -> dict[str, Any]:
    """How well requests are ranked for escalation."""
    return ranking.measure(arguments.data, arguments.seeds, arguments.rounds)


def measure_certificate(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """How often promises are violated, in every scenario and at every number of questions."""
    population = certificate.Population.read(arguments.data)
    cases = itertools.product(certificate.SCENARIOS, certificate.SIZES)
    return [row for name, n in cases for row in certificate.measure(population, name, n, arguments.resplits)]


def measure_forms(arguments: argparse.Namespace) -> list[Mapping[str, Any]] | None:
    """What the shipped policy decides on other forms of the test questions; None where the forms are not here."""
    if not arguments.forms.is_file():
        print(f"skipped: the forms ({arguments.forms}) are not here")
        return None
    outcomes = read_test(arguments)
    return forms.measure(read_policy(DATA / "policy"), outcomes, forms.read_forms(arguments.forms))


def read_test(arguments: argparse.Namespace) -> list[Outcome]:
    """The recorded outcomes that nothing was learnt from."""
    return read_outcomes([arguments.data / "test.jsonl.gz"], ranking.PAIR)


PIECES: dict[str, Callable[[argparse.Namespace], Any]] = {
    "speed": measure_speed,
    "shipped": measure_shipped,
    "forms": measure_forms,
    "ranking": measure_ranking,
    "certificate": measure_certificate,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--forms", type=Path, default=ROOT.parent / "shared" / "forms" / "forms.py")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--resplits", type=int, default=100, help="of the certificate, in each of its cases")
    parser.add_argument("--only", help=f"pieces to measure: {','.join(PIECES)}")
    parser.add_argument("--from-results", action="store_true", help="only render the page again")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(PIECES)
    if unknown := set(names) - set(PIECES):
        parser.error(f"no such piece: {', '.join(sorted(unknown))}")
    results_path = FOLDER / "results.json"
    if not arguments.from_results:
        if not (arguments.data / "test.jsonl.gz").is_file():
            print(f"skipped: the recorded outcomes ({arguments.data}) are not here")
            return 0
        FOLDER.mkdir(parents=True, exist_ok=True)
        results = (
            json.loads(results_path.read_text(encoding="utf-8")) if arguments.only and results_path.is_file() else {}
        )
        for name in names:
            result = PIECES[name](arguments)
            results |= {} if result is None else {name: result}
            results_path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    render(json.loads(results_path.read_text(encoding="utf-8")))
    print(f"written: {PAGE} and {FOLDER}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
