"""Plots of a calibration as SVG. CSS variables of the page set the colours, so they follow the colour scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from calibration.comparison.tradeoffs import ALL, HeldOutResults, ModelSummary, OperatingPoint, Tradeoff
from router.policy.document import Policy
from router.policy.rules import Interval, Promise

# Placeholder colours, which `_to_svg` replaces by CSS variables.
_INK, _MUTED, _LINE, _CHEAP, _STRONG, _ROUTED, _OTHER = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606", "#070707",
)  # fmt: skip
_NAMES = {
    _INK: "--ink", _MUTED: "--muted", _LINE: "--line", _CHEAP: "--cheap", _STRONG: "--strong", _ROUTED: "--routed",
    _OTHER: "--other",
}  # fmt: skip
WIDTH_INCHES = 5.2


def _create_figure(height_inches: float) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(_LINE)
    axes.tick_params(colors=_MUTED, labelsize=11, length=0)
    axes.grid(True, color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _to_svg(figure: Any, title: str) -> str:
    """Render as an SVG element: text stays text, the size follows the page, and colours are CSS variables."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    for colour, name in _NAMES.items():
        svg = svg.replace(colour, f"var({name})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def plot_cost_quality(
    held: HeldOutResults | None, rows: Sequence[ModelSummary], models: Sequence[str], policy: Policy | None
) -> str:
    """Plot quality against cost: the models, the routing frontier, every target, and the baselines."""
    figure, axes = _create_figure(4.5)
    points = held.points if held else {f"always_{row.model}": _point(row) for row in rows if row.question_type == ALL}
    cheap, strong = points[f"always_{models[0]}"], points[f"always_{models[-1]}"]
    ends = [(_usd_per_1000(p), p.quality.estimate * 100) for p in (cheap, strong)]
    axes.plot(*zip(*ends, strict=True), color=_OTHER, linewidth=1.2, linestyle=(0, (4, 3)), label="random mix")
    if held is not None:
        frontier = sorted({(cost * 1000, quality * 100) for cost, quality in held.frontier})
        axes.plot(
            *zip(*frontier, strict=True), color=_ROUTED, linewidth=1.6, alpha=0.55, label="routing, any threshold"
        )
    for name, marker, colour in (("type_means", "D", _OTHER), ("oracle", "*", _OTHER)):
        if name in points:
            label = {"type_means": "routing by type means", "oracle": "oracle (knows the scores)"}[name]
            _mark(axes, points[name], marker, colour, label, size=90 if marker == "*" else 38)
    if policy is not None:
        _mark_targets(axes, points, policy)
    for number, model in enumerate(models):
        colour = _CHEAP if number == 0 else _STRONG if number == len(models) - 1 else _MUTED
        _mark(axes, points[f"always_{model}"], "o", colour, f"always {model}", size=70)
    axes.set_xlabel("USD per 1,000 requests", color=_MUTED, fontsize=11)
    axes.set_ylabel("% right", color=_MUTED, fontsize=11)
    axes.set_xlim(left=0)
    figure.legend(
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=10,
        labelcolor=_INK,
        handlelength=1.6,
        columnspacing=1,
    )
    return _to_svg(figure, "Quality against cost")


def _mark_targets(axes: Any, points: Any, policy: Policy) -> None:
    labels = {Promise.CERTIFIED: "routing, certified targets", Promise.EXPECTED: "routing, expected targets"}
    labelled: list[tuple[float, float]] = []
    max_cost = max(_usd_per_1000(point) for point in points.values())
    for rule in policy.rules.targets:
        if rule.quality_per_usd is not None:
            point = points[f"{rule.target:g}"]
            marker = "s" if rule.certified else "D"
            _mark(axes, point, marker, _ROUTED, labels.pop(rule.promise, None), size=42)
            position = (_usd_per_1000(point), point.quality.estimate * 100)
            if all(abs(position[0] - x) > 0.08 * max_cost or abs(position[1] - y) > 2.0 for x, y in labelled):
                axes.annotate(
                    f"{rule.target:g}", position, (6, -12), textcoords="offset points", color=_ROUTED, fontsize=10
                )
                labelled.append(position)


def _mark(axes: Any, point: OperatingPoint, marker: str, colour: str, label: str | None, size: float) -> None:
    x, y, cost = _usd_per_1000(point), point.quality, point.cost_usd
    axes.plot([x, x], [y.low * 100, y.high * 100], color=colour, linewidth=1.1, alpha=0.6)
    axes.plot([cost.low * 1000, cost.high * 1000], [y.estimate * 100] * 2, color=colour, linewidth=1.1, alpha=0.6)
    axes.scatter([x], [y.estimate * 100], marker=marker, s=size, color=colour, label=label, zorder=3)


def _usd_per_1000(point: OperatingPoint) -> float:
    return point.cost_usd.estimate * 1000


def _point(row: ModelSummary) -> OperatingPoint:
    cost = row.cost_usd / row.n
    return OperatingPoint(row.model, row.score, Interval(cost, cost, cost), 0.0)


def plot_differences(pairs: Sequence[Tradeoff]) -> str:
    """Plot the difference between a cheaper model and the strong model by type, with intervals, the worst first."""
    shown = sorted((p for p in pairs if p.question_type != ALL), key=lambda p: p.quality_difference.estimate)
    figure, axes = _create_figure(0.9 + 0.3 * len(shown))
    several = len({pair.model for pair in pairs}) > 1
    for height, pair in enumerate(reversed(shown)):
        value = pair.quality_difference
        colour = _MUTED if not pair.is_conclusive else _CHEAP if pair.keeps_target else _STRONG
        axes.plot([value.low * 100, value.high * 100], [height, height], color=colour, linewidth=2.2, alpha=0.6)
        axes.scatter([value.estimate * 100], [height], s=34, color=colour, zorder=3)
    names = [f"{p.question_type}: {p.model}" if several else p.question_type for p in reversed(shown)]
    axes.set_yticks(range(len(shown)), names, color=_INK)
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.grid(False, axis="y")
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel("difference, points (cheaper minus strong)", color=_MUTED, fontsize=11)
    return _to_svg(figure, "Quality difference by type")
