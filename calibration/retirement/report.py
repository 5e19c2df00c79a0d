"""What a retirement found, as people read it: on the terminal, and as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibration.comparison.tradeoffs import ALL
from calibration.comparison.verdict import format_percent
from calibration.reporting.report import interval
from calibration.retirement.comparison import NEW_ROUTED, OLD_ROUTED, Way, losing_types, way_of
from calibration.retirement.probes import Probed
from calibration.retirement.shutdown_dates import Leaving
from calibration.traffic.answered import ANSWERED


@dataclass(frozen=True, slots=True)
class Found:
    """What a retirement found."""

    today: date
    old: Sequence[str]  # models, cheap to strong
    new: Sequence[str]
    leaving: Sequence[Leaving]  # of the old models and the judge
    judge: str
    rejudged: int  # old answers whose verdicts were of another judge, and were judged anew
    ways: Sequence[Way]
    on_traffic: Sequence[Way]  # what was answered beside what the new models answer, by completeness alone
    probed: Sequence[Probed]
    targets: tuple[float | None, float | None]  # that the old and the new policy keep, each of its own strong model
    named: Mapping[str, int]  # requests of the last 30 days that name a leaving model themselves, by model
    in_sample: bool  # whether the old policy had learnt from the questions and could not be replayed without them
    policy_version: str  # of the challenger; "" where none was learnt
    spent_usd: float

    @property
    def breaks(self) -> list[Probed]:
        """The shapes that a new model does not answer even when adapted."""
        return [each for each in self.probed if not each.answered]

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        row = asdict(self)
        row["today"] = self.today.isoformat()
        row["leaving"] = [
            {"model": each.model, "day": each.day and each.day.isoformat(), "source": each.source}
            for each in self.leaving
        ]
        return row


HEADINGS = (
    *("way", "% right", "to the old strong model, points", "USD per 1,000", "answer, tokens", "seconds"),
    *("refused", "cut off", "malformed"),
)


def cells(way: Way, old_strong: str) -> tuple[str, ...]:
    """A way as a row of a table."""
    seconds = "–" if math.isnan(way.seconds) else f"{way.seconds:.1f}"
    dollars, length = f"{way.usd_per_1000:.3f}", f"{way.output_tokens:.0f}"
    counts = (str(way.refused), str(way.cut_off), str(way.malformed))
    difference = "–" if way.name == old_strong else interval(way.difference, signed=True)
    return (way.name, interval(way.quality), difference, dollars, length, seconds, *counts)


def printed(found: Found) -> RenderableType:
    """On the terminal: what leaves, the ways on all questions, what breaks and what to do."""
    n = way_of(found.ways, ALL, OLD_ROUTED).n
    compared = Table(
        title=f"On {n:,} questions, judged by {found.judge} (95 % intervals)", title_justify="left", box=None
    )
    tables: list[RenderableType] = [compared]
    _fill(compared, [way for way in found.ways if way.question_type == ALL], found.old[-1])
    lines = [Text(each.told(found.today)) for each in found.leaving]
    if found.on_traffic:
        told = Table(
            title=f"On {way_of(found.on_traffic, ALL, ANSWERED).n:,} requests of your traffic, by completeness alone",
            title_justify="left",
            box=None,
        )
        _fill(told, found.on_traffic, ANSWERED)
        tables += [Text(), told]
    what = [Text(f"- {line}") for line in (*problems(found), *to_do(found))]
    return Group(*lines, Text(), *tables, Text(), *what)


def _fill(table: Table, part: Sequence[Way], before: str) -> None:
    for heading in ("way", "% right", "to the old", "USD/1,000", "tokens", "unusable"):
        table.add_column(heading, justify="left" if heading == "way" else "right", no_wrap=True)
    for way in part:
        table.add_row(*cells(way, before)[:5], str(way.failures))


def problems(found: Found) -> list[str]:
    """What is worse, or breaks, once the old models are gone."""
    told = []
    if found.policy_version:
        old, new = (way_of(found.ways, ALL, name) for name in (OLD_ROUTED, NEW_ROUTED))
        change = new.usd_per_1000 / old.usd_per_1000 - 1 if old.usd_per_1000 else math.nan
        told.append(
            f"Routed over the new pair, a question costs ${new.usd_per_1000 / 1000:.6f} ({change:+.0%}) and is right "
            f"{new.difference.estimate * 100:+.1f} points more often than by {found.old[-1]} alone "
            f"({new.difference.low * 100:+.1f} to {new.difference.high * 100:+.1f})."
        )
        told += [
            f"{way.question_type} loses {-way.difference.estimate * 100:.0f} points "
            f"({-way.difference.high * 100:.0f} to {-way.difference.low * 100:.0f}) on {way.n} questions."
            for way in losing_types(found.ways)
        ]
    else:
        told.append("No policy was learnt for the new models: too few questions have an answer of each.")
    told += [f"{each.model} does not answer requests with {each.shape}: {each.refused}" for each in found.breaks]
    if found.in_sample:
        told.append(
            "The old policy learnt from these very questions, so that what it keeps is flattered: "
            "calibrate on more questions to replay it on others."
        )
    return told


def to_do(found: Found) -> list[str]:
    """What is left to be done by whoever runs the router."""
    told = []
    if found.policy_version:
        told.append(f"Promote policy {found.policy_version}: python -m calibration promote")
    adapted = dict.fromkeys(change for each in found.probed if each.answered for change in each.changed.split("; "))
    adapted.pop("", None)
    if adapted:
        told.append(
            f"Requests for auto are adapted: {', '.join(adapted)}. Clients that name the new models must do the same."
        )
    for model, count in found.named.items():
        told.append(
            f"Requests of the last 30 days that named {model} themselves: {count:,}. From the day it leaves they fail; "
            f"ROUTER_ROUTED_MODELS={model} has them routed, without a change in the clients."
        )
    judge = next((each for each in found.leaving if each.model == found.judge), None)
    if judge is not None and judge.day is not None:
        told.append(f"The judge leaves too, on {judge.day}: choose another by --judge, and judge old and new by it.")
    if found.rejudged:
        told.append(
            f"{found.rejudged:,} old answers had verdicts of another judge. They were judged anew by {found.judge}, "
            "so that every mean here is of one judge."
        )
    return told


def as_markdown(found: Found) -> str:
    """The whole report."""
    old, new = ", ".join(found.old), ", ".join(found.new)
    kept = [
        "none (all goes to the strong model)" if target is None else f"{format_percent(target)} of {models[-1]}"
        for target, models in zip(found.targets, (found.old, found.new), strict=True)
    ]
    lines = [f"# From {old} to {new}", "", f"Made on {found.today}. This retirement spent ${found.spent_usd:.4f}.", ""]
    lines += [f"- {each.told(found.today)}" for each in found.leaving]
    lines += ["", f"The old policy keeps {kept[0]}; the new one keeps {kept[1]}."]
    lines += [
        "",
        "## What changes, and what breaks",
        "",
        *(f"- {line}" for line in problems(found)),
        "",
        "## What to do",
        "",
    ]
    lines += [f"- {line}" for line in to_do(found)]
    for name in dict.fromkeys(way.question_type for way in found.ways):
        part = [way for way in found.ways if way.question_type == name]
        title = "All questions" if name == ALL else name
        lines += ["", f"## {title} ({part[0].n:,})", "", *_table(HEADINGS, [cells(way, found.old[-1]) for way in part])]
    if found.on_traffic:
        n = way_of(found.on_traffic, ALL, ANSWERED).n
        title = f"## {n:,} requests of your traffic, by completeness alone"
        lines += ["", title, "", *_table(HEADINGS, [cells(way, ANSWERED) for way in found.on_traffic])]
    rows = [
        (each.shape, each.model, str(each.requests or "–"), "yes" if each.answered else "no", each.changed or "nothing")
        for each in found.probed
    ]
    lines += ["", "## Shapes of requests", "", *_table(("shape", "model", "requests", "answered", "changed"), rows)]
    return "\n".join([*lines, ""])


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *("---:" for _ in headings[1:])]
    written = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (headings, marks, *written)]
