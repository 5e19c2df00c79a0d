"""What every key has spent today and this month, and when it was last used: from the usage tables and the journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from router.limits.account import day_of, month_of
from router.limits.spent import IDS, Cost, not_exported

LAST_USED_NS = 31 * 86_400 * 10**9  # how far back a last use is looked for
LEAST_FRESH_SECONDS = 5.0
REST = 20  # times as long as reading took, until it is read again


class Standing(NamedTuple):
    """One key's, of requests that have ended."""

    day_usd: float = 0.0  # on this day, in UTC
    month_usd: float = 0.0
    last_used_unix: float | None = None  # None: not in the last month

    def with_(self, cost: Cost, day_unix_ns: int, month_unix_ns: int) -> Standing:
        """The standing with one more request."""
        began = cost.started_unix_ns
        return Standing(
            self.day_usd + (cost.usd if began >= day_unix_ns else 0.0),
            self.month_usd + (cost.usd if began >= month_unix_ns else 0.0),
            max(self.last_used_unix or 0.0, began / 1e9),
        )


class Standings:
    """The standings of all keys; they are read again after some seconds, and by one reader at a time."""

    def __init__(self, url: str, journal: Path) -> None:
        self._url = url
        self._journal = journal
        self._lock = threading.Lock()
        self._fresh_until = 0.0
        self._known: Mapping[str, Standing] = {}

    def by_key(self) -> Mapping[str, Standing]:
        """The standings by the id of the key.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the tables or the journal cannot be read.
        """
        with self._lock:
            import sqlalchemy  # noqa: F401  which takes longer to load than to ask

            began = time.monotonic()
            if began >= self._fresh_until:
                self._known = standings(self._url, self._journal, time.time_ns())
                ended = time.monotonic()
                self._fresh_until = ended + max(LEAST_FRESH_SECONDS, REST * (ended - began))
            return self._known


def standings(url: str, journal: Path, now_unix_ns: int) -> dict[str, Standing]:
    """The standing of every key that was used in the last month, each request counted once.

    The journal is read first: what the exporter takes to the tables meanwhile is there when these are read.
    """
    day, month = day_of(now_unix_ns).starts_unix_ns, month_of(now_unix_ns).starts_unix_ns
    since = min(month, now_unix_ns - LAST_USED_NS)
    beyond = {(each.trace_id, each.span_id): each for each in not_exported(journal) if each.started_unix_ns >= since}
    found, there = _in_tables(url, day, month, since, list(beyond))
    for ids, cost in beyond.items():
        if ids not in there:
            found[cost.key_id] = found.get(cost.key_id, Standing()).with_(cost, day, month)
    return found


def _in_tables(
    url: str, day: int, month: int, since: int, asked: list[tuple[str, str]]
) -> tuple[dict[str, Standing], set[tuple[str, str]]]:
    """The standings by the tables, and which of the requests `asked` are in them."""
    import sqlalchemy as sa  # loaded when an admin looks at the keys

    from router.usage.ledger import engine as opened
    from router.usage.ledger import make_tables, requests

    engine = opened(url)
    try:
        if not sa.inspect(engine).has_table(requests.name):  # nothing was exported yet
            return {}, set()
        make_tables(engine)  # those of an earlier version have no kept_usd
        columns = requests.c
        usd = sa.func.coalesce(columns.cost_usd, 0.0) + sa.func.coalesce(columns.kept_usd, 0.0) + columns.wasted_usd
        began = columns.started_unix_ns
        sums = [sa.func.sum(sa.case((began >= start, usd), else_=0.0)) for start in (day, month)]
        chosen = sa.select(columns.key_id, *sums, sa.func.max(began)).where(began >= since).group_by(columns.key_id)
        there = set[tuple[str, str]]()
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            else:
                connection.exec_driver_sql("BEGIN")  # one view of the tables for both questions
            rows = connection.execute(chosen).all()
            for start in range(0, len(asked), IDS):
                traces = [trace for trace, _ in asked[start : start + IDS]]
                ids = sa.select(columns.trace_id, columns.span_id).where(columns.trace_id.in_(traces))
                there.update((row.trace_id, row.span_id) for row in connection.execute(ids))
        return {row[0]: Standing(float(row[1]), float(row[2]), row[3] / 1e9) for row in rows}, there
    finally:
        engine.dispose()
