"""The spending and last use of every key and team, from the usage tables and unexported journal records."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from router.client.keyfile import Owner
from router.limits.account import day_of, month_of
from router.limits.spent import IDS, Cost, not_exported

LAST_USED_NS = 31 * 86_400 * 10**9  # how far back the last use is searched
LEAST_FRESH_SECONDS = 5.0
REST = 20  # the result is reused for this many times the duration of the read


class Standing(NamedTuple):
    """The spending and last use of one key or team, over requests that have ended."""

    day_usd: float = 0.0  # today (UTC)
    month_usd: float = 0.0
    last_used_unix: float | None = None  # None: not in the last 31 days

    def with_(self, other: Standing) -> Standing:
        """The sum of two standings, with the later last use."""
        last = max(self.last_used_unix or 0.0, other.last_used_unix or 0.0)
        return Standing(self.day_usd + other.day_usd, self.month_usd + other.month_usd, last or None)


class Standings:
    """A cache of the standings of all keys and teams. One reader at a time refreshes it."""

    def __init__(self, url: str, journal: Path) -> None:
        self._url = url
        self._journal = journal
        self._lock = threading.Lock()
        self._fresh_until = 0.0
        self._known: Mapping[Owner, Standing] = {}

    def by_owner(self) -> Mapping[Owner, Standing]:
        """The standings of owners that were used in the last 31 days.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: the tables or the journal cannot be read.
        """
        with self._lock:
            import sqlalchemy  # noqa: F401  loaded before timing, since loading is slower than the query

            began = time.monotonic()
            if began >= self._fresh_until:
                self._known = standings(self._url, self._journal, time.time_ns())
                ended = time.monotonic()
                self._fresh_until = ended + max(LEAST_FRESH_SECONDS, REST * (ended - began))
            return self._known


def standings(url: str, journal: Path, now_unix_ns: int) -> dict[Owner, Standing]:
    """The standing of every key and team that was used in the last 31 days. Each request counts once.

    The journal is read before the tables, so requests that are exported in between are not missed.
    """
    day, month = day_of(now_unix_ns).starts_unix_ns, month_of(now_unix_ns).starts_unix_ns
    since = min(month, now_unix_ns - LAST_USED_NS)
    unexported = {
        (cost.trace_id, cost.span_id): cost for cost in not_exported(journal) if cost.started_unix_ns >= since
    }
    groups, exported = _in_tables(url, day, month, since, list(unexported))
    groups += [
        (cost.key_id, cost.team, _of(cost, day, month)) for ids, cost in unexported.items() if ids not in exported
    ]
    by_owner: dict[Owner, Standing] = {}
    for key, team, standing in groups:
        for owner in _owners(key, team):
            by_owner[owner] = by_owner.get(owner, Standing()).with_(standing)
    return by_owner


def _of(cost: Cost, day: int, month: int) -> Standing:
    began, usd = cost.started_unix_ns, cost.usd
    return Standing(usd if began >= day else 0.0, usd if began >= month else 0.0, began / 1e9)


def _owners(key: str, team: str) -> Iterator[Owner]:
    yield Owner("key", key)
    if team:
        yield Owner("team", team)


def _in_tables(
    url: str, day: int, month: int, since: int, ids: list[tuple[str, str]]
) -> tuple[list[tuple[str, str, Standing]], set[tuple[str, str]]]:
    """The standing of each key in each team, and which of the requests `ids` the tables contain."""
    import sqlalchemy as sa  # loaded when an admin first opens the keys

    from router.usage.ledger import engine as opened
    from router.usage.ledger import make_tables, requests

    engine = opened(url)
    try:
        if not sa.inspect(engine).has_table(requests.name):  # nothing has been exported yet
            return [], set()
        make_tables(engine)  # adds the columns that tables of earlier versions lack
        columns = requests.c
        usd = sa.func.coalesce(columns.cost_usd, 0.0) + sa.func.coalesce(columns.kept_usd, 0.0) + columns.wasted_usd
        began = columns.started_unix_ns
        sums = [sa.func.sum(sa.case((began >= start, usd), else_=0.0)) for start in (day, month)]
        groups = columns.key_id, columns.team
        chosen = sa.select(*groups, *sums, sa.func.max(began)).where(began >= since).group_by(*groups)
        exported = set[tuple[str, str]]()
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            else:
                connection.exec_driver_sql("BEGIN")  # both queries see the same state
            rows = connection.execute(chosen).all()
            for start in range(0, len(ids), IDS):
                traces = [trace for trace, _ in ids[start : start + IDS]]
                matching = sa.select(columns.trace_id, columns.span_id).where(columns.trace_id.in_(traces))
                exported.update((row.trace_id, row.span_id) for row in connection.execute(matching))
        return [(r[0], r[1] or "", Standing(float(r[2]), float(r[3]), r[4] / 1e9)) for r in rows], exported
    finally:
        engine.dispose()
