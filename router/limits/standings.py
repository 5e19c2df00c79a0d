"""What every key and team has spent today and this month, and when it was last used: from tables and journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from router.client.keyfile import Owner
from router.limits.account import day_of, month_of
from router.limits.spent import IDS, Cost, not_exported

LAST_USED_NS = 31 * 86_400 * 10**9  # how far back a last use is looked for
LEAST_FRESH_SECONDS = 5.0
REST = 20  # times as long as reading took, until it is read again


class Standing(NamedTuple):
    """That of one key or team, of requests that have ended."""

    day_usd: float = 0.0  # on this day, in UTC
    month_usd: float = 0.0
    last_used_unix: float | None = None  # None: not in the last month

    def with_(self, other: Standing) -> Standing:
        """Both together."""
        last = max(self.last_used_unix or 0.0, other.last_used_unix or 0.0)
        return Standing(self.day_usd + other.day_usd, self.month_usd + other.month_usd, last or None)


class Standings:
    """The standings of all keys and teams; they are read again after some seconds, and by one reader at a time."""

    def __init__(self, url: str, journal: Path) -> None:
        self._url = url
        self._journal = journal
        self._lock = threading.Lock()
        self._fresh_until = 0.0
        self._known: Mapping[Owner, Standing] = {}

    def by_owner(self) -> Mapping[Owner, Standing]:
        """The standings of those that were used in the last month.

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


def standings(url: str, journal: Path, now_unix_ns: int) -> dict[Owner, Standing]:
    """The standing of every key and team that was used in the last month, each request counted once.

    The journal is read first: what the exporter takes to the tables meanwhile is there when these are read.
    """
    day, month = day_of(now_unix_ns).starts_unix_ns, month_of(now_unix_ns).starts_unix_ns
    since = min(month, now_unix_ns - LAST_USED_NS)
    beyond = {(each.trace_id, each.span_id): each for each in not_exported(journal) if each.started_unix_ns >= since}
    groups, there = _in_tables(url, day, month, since, list(beyond))
    groups += [(each.key_id, each.team, _of(each, day, month)) for ids, each in beyond.items() if ids not in there]
    found: dict[Owner, Standing] = {}
    for key, team, standing in groups:
        for owner in _owners(key, team):
            found[owner] = found.get(owner, Standing()).with_(standing)
    return found


def _of(cost: Cost, day: int, month: int) -> Standing:
    began, usd = cost.started_unix_ns, cost.usd
    return Standing(usd if began >= day else 0.0, usd if began >= month else 0.0, began / 1e9)


def _owners(key: str, team: str) -> Iterator[Owner]:
    yield Owner("key", key)
    if team:
        yield Owner("team", team)


def _in_tables(
    url: str, day: int, month: int, since: int, asked: list[tuple[str, str]]
) -> tuple[list[tuple[str, str, Standing]], set[tuple[str, str]]]:
    """The standings of each key in each team by the tables, and which of the requests `asked` are in them."""
    import sqlalchemy as sa  # loaded when an admin looks at the keys

    from router.usage.ledger import engine as opened
    from router.usage.ledger import make_tables, requests

    engine = opened(url)
    try:
        if not sa.inspect(engine).has_table(requests.name):  # nothing was exported yet
            return [], set()
        make_tables(engine)  # those of an earlier version lack columns
        columns = requests.c
        usd = sa.func.coalesce(columns.cost_usd, 0.0) + sa.func.coalesce(columns.kept_usd, 0.0) + columns.wasted_usd
        began = columns.started_unix_ns
        sums = [sa.func.sum(sa.case((began >= start, usd), else_=0.0)) for start in (day, month)]
        groups = columns.key_id, columns.team
        chosen = sa.select(*groups, *sums, sa.func.max(began)).where(began >= since).group_by(*groups)
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
        return [(r[0], r[1] or "", Standing(float(r[2]), float(r[3]), r[4] / 1e9)) for r in rows], there
    finally:
        engine.dispose()
