"""Read what a key or team has spent today and this month, from the usage tables and unexported journal records."""

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

READER = "usage"  # the journal reader that fills the tables
LINES = 1000  # read at once
IDS = 400  # looked up at once


class Spent(NamedTuple):
    """US dollars of requests that ended before a moment."""

    day_usd: float
    month_usd: float


class Cost(msgspec.Struct, tag_field="kind", tag="request"):
    """The fields of a record that determine its cost."""

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
        """US dollars that count against a budget."""
        return usd_of(self)

    def is_of(self, owner: Owner) -> bool:
        """Whether it counts against the budget of `owner`."""
        return owner.name == (self.team if owner.kind == "team" else self.key_id)


def usd_of(record: Cost | Record) -> float:
    """US dollars of a record that count against a budget, including failed attempts."""
    wasted = sum(attempt.get("cost_usd") or 0.0 for attempt in record.wasted)
    return (record.cost_usd or 0.0) + record.kept_usd + wasted


_decoder = msgspec.json.Decoder(Cost)


def spent(url: str, journal: Path, owner: Owner, day_unix_ns: int, month_unix_ns: int, until_unix_ns: int) -> Spent:
    """The spending of `owner` since the start of a day and of a month. Each request counts once.

    The journal is read before the tables, so requests that are exported in between are not missed.

    Raises:
        sqlalchemy.exc.SQLAlchemyError, OSError: the tables or the journal cannot be read.
    """
    unexported: dict[tuple[str, str], Cost] = {}
    for cost in not_exported(journal, owner):
        if month_unix_ns <= cost.started_unix_ns and cost.ended_unix_ns < until_unix_ns:
            unexported[cost.trace_id, cost.span_id] = cost
    day_usd, month_usd, exported = _in_tables(url, owner, day_unix_ns, month_unix_ns, until_unix_ns, unexported)
    for ids, cost in unexported.items():
        if ids not in exported:
            month_usd += cost.usd
            day_usd += cost.usd if cost.started_unix_ns >= day_unix_ns else 0.0
    return Spent(day_usd, month_usd)


def _in_tables(
    url: str, owner: Owner, day_unix_ns: int, month_unix_ns: int, until_unix_ns: int, ids: Iterable[tuple[str, str]]
) -> tuple[float, float, set[tuple[str, str]]]:
    """US dollars of the day and of the month, and which of the requests `ids` the tables contain."""
    import sqlalchemy as sa  # loaded at the first request of a key with a budget

    from router.usage.ledger import engine as opened
    from router.usage.ledger import make_tables, requests

    engine = opened(url)
    try:
        inspector = sa.inspect(engine)
        if not inspector.has_table(requests.name):  # nothing has been exported yet
            return 0.0, 0.0, set()
        if not {"kept_usd", "team"} <= {column["name"] for column in inspector.get_columns(requests.name)}:
            make_tables(engine)  # adds the columns that tables of earlier versions lack
        columns = requests.c
        usd = sa.func.coalesce(columns.cost_usd, 0.0) + sa.func.coalesce(columns.kept_usd, 0.0) + columns.wasted_usd
        today = sa.case((columns.started_unix_ns >= day_unix_ns, usd), else_=0.0)
        chosen = sa.select(sa.func.sum(today), sa.func.sum(usd)).where(
            (columns.team if owner.kind == "team" else columns.key_id) == owner.name,
            columns.started_unix_ns >= month_unix_ns,
            columns.ended_unix_ns < until_unix_ns,
        )
        pairs, exported = list(ids), set[tuple[str, str]]()
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            else:
                connection.exec_driver_sql("BEGIN")  # both queries see the same state
            day_usd, month_usd = connection.execute(chosen).one()
            for start in range(0, len(pairs), IDS):
                traces = [trace for trace, _ in pairs[start : start + IDS]]
                matching = sa.select(columns.trace_id, columns.span_id).where(columns.trace_id.in_(traces))
                exported.update((row.trace_id, row.span_id) for row in connection.execute(matching))
        return float(day_usd or 0.0), float(month_usd or 0.0), exported
    finally:
        engine.dispose()


def not_exported(journal: Path, owner: Owner | None = None) -> Iterator[Cost]:
    """Requests in the journal that the tables may lack; of one key or team, or of all."""
    cursor = Cursor(journal, READER)
    mark = b""
    if owner is not None:
        mark = (b'"team":' if owner.kind == "team" else b'"key_id":') + msgspec.json.encode(owner.name)
    for segment in listed(journal):
        offset = cursor.offset(segment)
        with contextlib.suppress(FileNotFoundError):  # exported and removed in the meantime
            while True:
                lines, offset = read(segment, offset, LINES)
                if not lines:
                    break
                costs = (cost for line in lines if mark in line and (cost := _cost(line)) is not None)
                yield from (cost for cost in costs if owner is None or cost.is_of(owner))
    for refused in parked(journal):
        entry = refused.entry
        if refused.sink == READER and isinstance(entry, Record):
            cost = _of(entry)
            if owner is None or cost.is_of(owner):
                yield cost


def _cost(line: bytes) -> Cost | None:
    try:
        return _decoder.decode(line)
    except DECODE_ERRORS:  # perhaps invalid text in the content
        record = next((entry for entry in parsed([line]) if isinstance(entry, Record)), None)
        return None if record is None else _of(record)


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
