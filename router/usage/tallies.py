"""Sums by minute, hour and day in SQLite, so that the dashboard reads few rows even after a million requests.

The exporter writes the store, and the proxy reads it. After a crash, the exporter may write a batch again, in part or
with more entries. The store keeps the latest span ids in the same transaction, so it counts each request exactly once.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from router.journal.refused import unfit_is_refused
from router.journal.writer import Entry, Record
from router.policy.prices import PriceBook
from router.policy.rules import Interval
from router.policy.usage import Usage
from router.usage.counterfactual import Lengths, always_strong_usd

MINUTE, HOUR, DAY = 60, 3600, 86400
KEEP_MINUTES_SECONDS = 2 * DAY
KEEP_SECONDS = {"minutes": KEEP_MINUTES_SECONDS, "hours": 35 * DAY, "days": 1000 * DAY}
# upper bounds of the buckets in milliseconds, six per decade from 1 us to 1000 s; the last bucket has no bound
MILLISECONDS = tuple(round(10 ** (power / 6), 6) for power in range(-18, 37))

SUMS = (
    *("requests", "input_tokens", "output_tokens", "cost_usd", "unpriced", "wasted_usd", "vain_usd"),
    *("compared", "compared_usd", "strong_low_usd", "strong_usd", "strong_high_usd"),
)
_TABLES = {"minutes": MINUTE, "hours": HOUR, "days": DAY}
_SCHEMA = "".join(
    f"""
    CREATE TABLE IF NOT EXISTS {table} (
        unix INTEGER, model TEXT, question_type TEXT, reason TEXT, outcome TEXT,
        {", ".join(f"{name} REAL" for name in SUMS)},
        PRIMARY KEY (unix, model, question_type, reason, outcome)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS {table}_times (
        unix INTEGER, what TEXT, bucket INTEGER, requests INTEGER, PRIMARY KEY (unix, what, bucket)) WITHOUT ROWID;
    """
    for table in _TABLES
)
_SCHEMA += "".join(
    f"""
    CREATE TABLE IF NOT EXISTS {table}_verified (
        unix INTEGER, verification TEXT, finding TEXT, requests INTEGER, escalation_usd REAL,
        PRIMARY KEY (unix, verification, finding)) WITHOUT ROWID;
    """
    for table in _TABLES
)
_SCHEMA += "CREATE TABLE IF NOT EXISTS latest (at INTEGER PRIMARY KEY, span_id TEXT);"
BATCH = 2000
LATEST = 2 * BATCH  # span ids that are kept: more than a batch has

_TOKENS = frozenset(Usage.__struct_fields__)

Key = tuple[int, str, str, str, str]
VerifiedKey = tuple[int, str, str]
TimeKey = tuple[int, str, int]


class Tallies:
    """The sink of the exporter that writes the sums."""

    batch = BATCH

    def __init__(self, path: Path, prices: PriceBook, lengths: Callable[[str], Lengths | None]) -> None:
        """`path` is the SQLite file; `lengths` returns the answer length ratios of a policy version."""
        self._path = path
        self._prices = prices
        self._lengths = lengths
        self._connection: sqlite3.Connection | None = None

    def write(self, entries: Sequence[Entry]) -> None:
        """Add the requests among `entries` to the sums, except those already counted.

        Raises:
            sqlite3.Error: the store cannot be written; nothing was added.
            RefusedError: an entry is invalid; nothing was added.
        """
        records = [entry for entry in entries if isinstance(entry, Record)]
        if not records:
            return
        connection = self._opened()
        with connection:  # one transaction
            connection.execute("BEGIN IMMEDIATE")
            seen = {row[0] for row in connection.execute("SELECT span_id FROM latest")}
            new = [record for record in records if record.span_id not in seen]
            with unfit_is_refused():
                for table, seconds in _TABLES.items():
                    self._add(connection, table, seconds, new)
            connection.executemany("INSERT INTO latest (span_id) VALUES (?)", [(r.span_id,) for r in new])
            connection.execute("DELETE FROM latest WHERE at <= (SELECT max(at) FROM latest) - ?", (LATEST,))
            self._forget(connection, max(record.ended_unix_ns for record in records) // 10**9)

    def close(self) -> None:
        """Close the store."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not block each other
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_SCHEMA)
            self._connection = connection
        return self._connection

    def _add(self, connection: sqlite3.Connection, table: str, seconds: int, records: Sequence[Record]) -> None:
        sums: dict[Key, list[float]] = {}
        times: dict[TimeKey, int] = {}
        verified: dict[VerifiedKey, list[float]] = {}
        for record in records:
            unix = record.started_unix_ns // 10**9 // seconds * seconds
            model = record.model or record.asked_model
            key = (unix, model[:100], record.question_type, record.reason, record.outcome)
            known = sums.setdefault(key, [0.0] * len(SUMS))
            for at, number in enumerate(self._numbers(record)):
                known[at] += number
            for kind, nanoseconds in _times(record):
                time_key = (unix, kind, bisect_left(MILLISECONDS, nanoseconds / 1e6))
                times[time_key] = times.get(time_key, 0) + 1
            if record.verification:
                counted = verified.setdefault((unix, record.verification, record.finding), [0, 0.0])
                counted[0] += 1
                counted[1] += (record.cost_usd or 0.0) if record.verification == "escalated" else 0.0
        added = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
        marks = ", ".join("?" * (5 + len(SUMS)))
        connection.executemany(
            f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO UPDATE SET {added}",  # noqa: S608  names are constants
            [(*key, *numbers) for key, numbers in sums.items()],
        )
        connection.executemany(
            f"INSERT INTO {table}_times VALUES (?, ?, ?, ?) "  # noqa: S608
            "ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
            [(*key, number) for key, number in times.items()],
        )
        connection.executemany(
            f"INSERT INTO {table}_verified VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "  # noqa: S608
            "requests = requests + excluded.requests, escalation_usd = escalation_usd + excluded.escalation_usd",
            [(*key, *numbers) for key, numbers in verified.items()],
        )

    def _numbers(self, record: Record) -> Iterator[float]:
        usage = record.usage or {}
        cost = record.cost_usd
        yield from (1, usage.get("input_tokens", 0), usage.get("output_tokens", 0), cost or 0.0)
        yield int(cost is None and record.outcome == "answered")
        yield sum(attempt.get("cost_usd") or 0.0 for attempt in record.wasted)
        # the cost of routed requests without an answer reduces the savings
        yield (cost or 0.0) if record.policy_version and record.outcome != "answered" else 0.0
        strong = self._always_strong(record) if cost is not None else None
        yield from (0, 0, 0, 0, 0) if strong is None else (1, cost or 0.0, *strong)

    def _always_strong(self, record: Record) -> Interval | None:
        lengths = self._lengths(record.policy_version) if record.policy_version else None
        if lengths is None or record.usage is None or record.outcome != "answered":
            return None
        usage = Usage(**{name: count for name, count in record.usage.items() if name in _TOKENS})
        return always_strong_usd(lengths, self._prices, record, usage)

    def _forget(self, connection: sqlite3.Connection, now_unix: int) -> None:
        for table, keep in KEEP_SECONDS.items():
            for name in (table, f"{table}_times", f"{table}_verified"):
                connection.execute(f"DELETE FROM {name} WHERE unix < ?", (now_unix - keep,))  # noqa: S608


def _times(record: Record) -> Iterator[tuple[str, int]]:
    if record.added_ns is not None:
        yield "added", record.added_ns
    if record.first_byte_unix_ns is not None:
        yield "first_byte", record.first_byte_unix_ns - record.started_unix_ns
    yield "whole", record.ended_unix_ns - record.started_unix_ns


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """Open the store for reading; None if nothing has been written yet."""
    if not path.is_file():
        yield None
        return
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)) as connection:
        connection.row_factory = sqlite3.Row
        has_tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'days_times'").fetchone()[0]
        yield connection if has_tables else None


def percentile(counts: dict[int, int], share: float) -> float | None:
    """The percentile in milliseconds, interpolated linearly within its bucket; None without requests.

    >>> round(percentile({bisect_left(MILLISECONDS, 5.0): 10}, 1.0), 1)
    6.8
    """
    total = sum(counts.values())
    if not total:
        return None
    rank, below = share * total, 0
    for bucket in sorted(counts):
        if below + counts[bucket] >= rank:
            low = MILLISECONDS[bucket - 1] if bucket else 0.0
            high = MILLISECONDS[min(bucket, len(MILLISECONDS) - 1)]
            return low + (high - low) * (rank - below) / counts[bucket]
        below += counts[bucket]
    return MILLISECONDS[-1]
