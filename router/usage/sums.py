"""Sums of usage and cost over the rows of the ledger, by the requested groups."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from router.usage.ledger import TOKENS, gaps, make_tables, requests, spending

GROUPS = {
    "model": requests.c.model,
    "type": requests.c.question_type,
    "key": requests.c.key_id,
    "team": sa.func.coalesce(requests.c.team, ""),
    "day": requests.c.day,
    "user": requests.c.user_name,
    "reason": requests.c.reason,
    "policy": requests.c.policy_version,
    "finding": sa.func.coalesce(requests.c.finding, ""),
}
CHECKED = ("verified", "escalated", "kept", "late")  # values of `verification` for checked answers
ENDS = ("low", "estimate", "high")
MAX_ROWS = 10_000
YEARS = 1970, 2200  # nanoseconds of later years overflow the columns


class UsageError(ValueError):
    """A parameter is invalid; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which requests to add up, and how to group them."""

    since: datetime | None = None
    until: datetime | None = None  # exclusive
    group_by: tuple[str, ...] = ()
    key: str | None = None  # only requests of this key; None: all requests


def read_question(since: str, until: str, group_by: str) -> Question:
    """Parse the parameters of `GET /router/usage`. If `until` is a day, that day is included.

    >>> read_question("2026-11-01", "2026-11-02", "model,day").until
    datetime.datetime(2026, 11, 3, 0, 0, tzinfo=datetime.timezone.utc)

    Raises:
        UsageError: a parameter is invalid.
    """
    groups = tuple(name.strip() for name in group_by.split(",") if name.strip())
    for name in groups:
        if name not in GROUPS:
            raise UsageError(f"group_by: {name!r} is not one of {', '.join(GROUPS)}")
    if len(set(groups)) < len(groups):
        raise UsageError(f"group_by: {', '.join(groups)} repeats a name")
    return Question(_moment("from", since), _moment("to", until, end=True), groups)


def _moment(name: str, text: str, *, end: bool = False) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{name}: expected a day or time such as 2026-11-23 or 2026-11-23T12:00:00") from None
    if not YEARS[0] <= moment.year <= YEARS[1]:
        raise UsageError(f"{name}: expected a year from {YEARS[0]} to {YEARS[1]}")
    return moment + timedelta(days=1) if end and len(text) == 10 else moment


def usage(engine: sa.Engine, question: Question) -> dict[str, Any]:
    """Compute the rows by group and their total. Unknown costs are counted separately, never as 0.

    The total of one key omits what belongs to no key: calibrations and unrecorded requests.
    """
    make_tables(engine)
    of_key = [] if question.key is None else [requests.c.key_id == question.key]
    when = [*_when(requests.c.started_unix_ns, question), *of_key]
    groups = [GROUPS[name].label(name) for name in question.group_by]
    chosen = sa.select(*groups, *_sums()).where(*when)
    with engine.connect() as connection:
        found = connection.execute(chosen.group_by(*groups).order_by(*groups).limit(MAX_ROWS) if groups else chosen)
        rows = [_row(dict(row._mapping), question.group_by) for row in found]
        total = _row(dict(connection.execute(sa.select(*_sums()).where(*when)).one()._mapping), ())
        spent = connection.scalar(
            sa.select(sa.func.coalesce(sa.func.sum(spending.c.cost_usd), 0.0)).where(
                *_when(spending.c.unix_ns, question)
            )
        )
        lost = connection.scalar(
            sa.select(sa.func.coalesce(sa.func.sum(gaps.c.requests), 0)).where(*_when(gaps.c.since_unix_ns, question))
        )
        prices = connection.execute(
            sa.select(requests.c.prices_as_of, requests.c.prices_source).where(*when).distinct()
        )
        tables = [{"as_of": row.prices_as_of, "source": row.prices_source} for row in prices]
    answer = {"group_by": list(question.group_by), "rows": rows if groups else [], "total": total, "prices": tables}
    if question.key is not None:
        return answer
    total["calibration_usd"] = float(spent or 0.0)
    total["net_saved_usd"] = {end: total["saved_usd"][end] - total["calibration_usd"] for end in ENDS}
    total["unrecorded_requests"] = int(lost or 0)
    return answer


def _when(column: sa.ColumnElement[int], question: Question) -> list[sa.ColumnElement[bool]]:
    bounds: list[sa.ColumnElement[bool]] = []
    if question.since is not None:
        bounds.append(column >= int(question.since.timestamp() * 1e9))
    if question.until is not None:
        bounds.append(column < int(question.until.timestamp() * 1e9))
    return bounds


def _sums() -> list[sa.ColumnElement[Any]]:
    table = requests.c
    billed = sa.case((table.cost_usd.is_not(None), 1), else_=0)
    # an abandoned answer had started, and the part that was generated was billed
    begun = sa.or_(table.status < 400, table.outcome == "abandoned")
    unknown = sa.case((sa.and_(table.cost_usd.is_(None), table.model != "", begun), 1), else_=0)
    compared = sa.and_(table.cost_usd.is_not(None), table.always_strong_usd_estimate.is_not(None))
    # failed routed requests count with their cost and no always-strong cost, so they reduce the savings
    vain = sa.and_(table.cost_usd.is_not(None), table.policy_version != "", table.outcome != "answered")
    return [
        sa.func.count().label("requests"),
        *(_count(table.outcome == outcome).label(outcome) for outcome in ("answered", "failed", "abandoned", "cut")),
        *(sa.func.coalesce(sa.func.sum(table[name]), 0).label(name) for name in TOKENS),
        _sum(table.cost_usd).label("cost_usd"),
        sa.func.coalesce(sa.func.sum(billed), 0).label("billed_requests"),
        sa.func.coalesce(sa.func.sum(unknown), 0).label("unknown_cost_requests"),
        _sum(table.wasted_usd).label("wasted_usd"),
        sa.func.coalesce(sa.func.sum(table.wasted_unknown), 0).label("unknown_cost_attempts"),
        _sum(sa.case((vain, table.cost_usd), else_=0.0)).label("vain_usd"),
        _count(table.verification.in_(CHECKED)).label("verified_requests"),
        _count(table.finding != "").label("found_requests"),
        _count(table.verification == "escalated").label("escalated_requests"),
        _sum(sa.case((table.verification == "escalated", table.cost_usd), else_=0.0)).label("escalation_usd"),
        _count(table.simulated == 1).label("simulated_requests"),
        _sum(sa.case((table.simulated == 1, table.cost_usd), else_=0.0)).label("simulated_usd"),
        _count(compared).label("compared_requests"),
        _sum(sa.case((compared, table.cost_usd), else_=0.0)).label("compared_usd"),
        *(
            _sum(sa.case((compared, table[f"always_strong_usd_{end}"]), else_=0.0)).label(f"strong_{end}")
            for end in ENDS
        ),
    ]


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[float]:
    return sa.func.coalesce(sa.func.sum(column), 0.0)


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


def _row(sums: dict[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    strong = {end: float(sums.pop(f"strong_{end}")) for end in ENDS}
    wasted, vain = float(sums["wasted_usd"]), float(sums["vain_usd"])
    paid = float(sums.pop("compared_usd")) + vain + wasted
    numbers = {
        name: value if name in groups else float(value) if name.endswith("_usd") else int(value)
        for name, value in sums.items()
    }
    if not numbers["billed_requests"] and numbers["unknown_cost_requests"]:
        numbers["cost_usd"] = None  # unknown, which is not 0
    return {**numbers, "always_strong_usd": strong, "saved_usd": {end: strong[end] - paid for end in ENDS}}


def as_csv(answer: dict[str, Any]) -> str:
    """The rows of `usage` as CSV, or the total without groups. An unknown sum is an empty field."""
    rows = [_flat(row) for row in (answer["rows"] if answer["group_by"] else [answer["total"]])]
    out = io.StringIO()
    names = list(_flat(answer["total"])) if not rows else list(rows[0])
    writer = csv.DictWriter(out, names, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{name}_{end}": value[end] for end in value})
        else:
            flat[name] = value
    return flat


def _safe(value: object) -> object:
    """Quote a text that a spreadsheet would evaluate as a formula."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
