"""What a key or a team has spent today and this month: from the usage tables, and what the journal has beyond them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from router.client.keyfile import Owner
from router.journal.refused import parked
from router.journal.segments import Cursor, listed, parsed, read
from router.journal.writer import Record
from router.wire.text import DECODE_ERRORS

READER = "usage"  # of the journal, which fills the tables
LINES = 1000  # that are read at once
IDS = 400  # that are looked up at once


class Spent(NamedTuple):
    """Dollars of requests that ended before a moment."""

    day_usd: float
    month_usd: float


class Cost(msgspec.Struct, tag_field="kind", tag="request"):
    """A record as far as it says what was spent."""

    trace_id: str
    span_id: str
    started_unix_ns: int
    ended_unix_ns: int
    key_id: str = ""
    team: str = ""
    cost_usd: float | None = None
    kept_usd: float = 0.0
    wasted: list[dict[str, Any]] = []

    @property
    def usd(self) -> float:
        """What counts against a budget."""
        return usd_of(self)

    def is_of(self, owner: Owner) -> bool:
        """Whether it counts against the budget of `owner`."""
        return owner.name == (self.team if owner.kind == "team" else self.key_id)


def usd_of(record: Cost | Record) -> float:
    """Dollars that count against a budget."""
    return (record.cost_usd or 0.0) + record.kept_usd + sum(each.get("cost_usd") or 0.0 for each in record.wasted)


_decoder = msgspec.json.Decoder(Cost)


def spent(url: str, journal: Path, owner: Owner, day_unix_ns: int, month_unix_ns: int, until_unix_ns: int) -> Spent:
    """What `owner` spent since the beginning of a day and of a month, each request once.

    The journal is read first: what the exporter takes to the tables meanwhile is there when these are read.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError: the tables or the journal cannot be read.
    """
    beyond: dict[tuple[str, str], Cost] = {}
    for cost in not_exported(journal, owner):
        if month_unix_ns <= cost.started_unix_ns and cost.ended_unix_ns < until_unix_ns:
            beyond[cost.trace_id, cost.span_id] = cost
    day_usd, month_usd, there = _in_tables(url, owner, day_unix_ns, month_unix_ns, until_unix_ns, beyond)
    for ids, cost in beyond.items():
        if ids not in there:
            month_usd += cost.usd
            day_usd += cost.usd if cost.started_unix_ns >= day_unix_ns else 0.0
    return Spent(day_usd, month_usd)


def _in_tables(
    url: str, owner: Owner, day_unix_ns: int, month_unix_ns: int, until_unix_ns: int, ids: Iterable[tuple[str, str]]
) -> tuple[float, float, set[tuple[str, str]]]:
    """Dollars of the day and of the month, and which of the requests `ids` are in them."""
    import sqlalchemy as sa  # loaded when a key with a budget asks first

    from router.usage.ledger import engine as opened
    from router.usage.ledger import make_tables, requests

    engine = opened(url)
    try:
        inspector = sa.inspect(engine)
        if not inspector.has_table(requests.name):  # nothing was exported yet
            return 0.0, 0.0, set()
        if not {"kept_usd", "team"} <= {column["name"] for column in inspector.get_columns(requests.name)}:
            make_tables(engine)  # those of an earlier version
        columns = requests.c
        usd = sa.func.coalesce(columns.cost_usd, 0.0) + sa.func.coalesce(columns.kept_usd, 0.0) + columns.wasted_usd
        today = sa.case((columns.started_unix_ns >= day_unix_ns, usd), else_=0.0)
        chosen = sa.select(sa.func.sum(today), sa.func.sum(usd)).where(
            (columns.team if owner.kind == "team" else columns.key_id) == owner.name,
            columns.started_unix_ns >= month_unix_ns,
            columns.ended_unix_ns < until_unix_ns,
        )
        asked, there = list(ids), set[tuple[str, str]]()
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            else:
                connection.exec_driver_sql("BEGIN")  # one view of the tables for both questions
            day_usd, month_usd = connection.execute(chosen).one()
            for start in range(0, len(asked), IDS):
                traces = [trace for trace, _ in asked[start : start + IDS]]
                found = sa.select(columns.trace_id, columns.span_id).where(columns.trace_id.in_(traces))
                there.update((row.trace_id, row.span_id) for row in connection.execute(found))
        return float(day_usd or 0.0), float(month_usd or 0.0), there
    finally:
        engine.dispose()


def not_exported(journal: Path, owner: Owner | None = None) -> Iterator[Cost]:
    """The requests of a key or a team, or of all, that the journal has and the tables may not have."""
    cursor = Cursor(journal, READER)
    mark = b""
    if owner is not None:
        mark = (b'"team":' if owner.kind == "team" else b'"key_id":') + msgspec.json.encode(owner.name)
    for segment in listed(journal):
        offset = cursor.offset(segment)
        with contextlib.suppress(FileNotFoundError):  # all of it was exported meanwhile, and it was removed
            while True:
                lines, offset = read(segment, offset, LINES)
                if not lines:
                    break
                found = (cost for line in lines if mark in line and (cost := _cost(line)) is not None)
                yield from (cost for cost in found if owner is None or cost.is_of(owner))
    for refused in parked(journal):
        entry = refused.entry
        if refused.sink == READER and isinstance(entry, Record):
            cost = _of(entry)
            if owner is None or cost.is_of(owner):
                yield cost


def _cost(line: bytes) -> Cost | None:
    try:
        return _decoder.decode(line)
    except DECODE_ERRORS:  # what was said in it, perhaps
        found = next((entry for entry in parsed([line]) if isinstance(entry, Record)), None)
        return None if found is None else _of(found)


def _of(record: Record) -> Cost:
    return Cost(
        record.trace_id,
        record.span_id,
        record.started_unix_ns,
        record.ended_unix_ns,
        record.key_id,
        record.team,
        record.cost_usd,
        record.kept_usd,
        record.wasted,
    )
