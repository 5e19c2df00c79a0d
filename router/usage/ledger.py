"""The usage tables: one row per request with billed tokens, cost, and the estimated cost of the strong model.

SQLite by default, PostgreSQL by URL. Writes are idempotent, so the exporter may write an entry again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router.journal.refused import RefusedError, unfit_is_refused
from router.journal.writer import Entry, Feedback, Gap, Record
from router.policy.prices import PriceBook
from router.policy.usage import Usage
from router.usage.counterfactual import Lengths, always_strong_usd

BATCH = 500
TOKENS = Usage.__struct_fields__

metadata = sa.MetaData()
requests = sa.Table(
    "router_requests",
    metadata,
    sa.Column("trace_id", sa.String(32), primary_key=True),
    sa.Column("span_id", sa.String(16), primary_key=True),
    sa.Column("started_unix_ns", sa.BigInteger, nullable=False, index=True),
    sa.Column("ended_unix_ns", sa.BigInteger, nullable=False),
    sa.Column("day", sa.String(10), nullable=False),  # in UTC
    *(sa.Column(name, sa.Text, nullable=False) for name in ("endpoint", "asked_model", "model", "response_model")),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("outcome", "reason", "question_type", "policy_version")),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("key_id", "user_name", "session", "service_tier")),
    *(sa.Column(name, sa.Integer, nullable=False) for name in ("status", "attempts", "stream", "simulated")),
    sa.Column("target", sa.Float),
    sa.Column("gap", sa.Float),
    *(sa.Column(name, sa.BigInteger) for name in TOKENS),  # null if the upstream reported no usage
    sa.Column("cost_usd", sa.Float),  # null if usage or price is unknown
    sa.Column("wasted_usd", sa.Float, nullable=False),  # cost of billed attempts whose answer was discarded
    sa.Column("kept_usd", sa.Float),  # charged to a budget instead of an unknown cost; not billed
    sa.Column("wasted_unknown", sa.Integer, nullable=False),  # number of discarded attempts of unknown cost
    # null in rows that earlier versions wrote
    *(sa.Column(name, sa.Text) for name in ("team", "verification", "finding", "escalated_from")),
    sa.Column("prices_as_of", sa.Text, nullable=False),
    sa.Column("prices_source", sa.Text, nullable=False),
    *(sa.Column(f"always_strong_usd_{end}", sa.Float) for end in ("low", "estimate", "high")),
)
feedback = sa.Table(
    "router_feedback",
    metadata,
    sa.Column("feedback_id", sa.String(32), primary_key=True),
    sa.Column("trace_id", sa.String(32), nullable=False, index=True),
    sa.Column("unix_ns", sa.BigInteger, nullable=False),
    sa.Column("score", sa.Float, nullable=False),
    *(sa.Column(name, sa.Text, nullable=False) for name in ("thumbs", "comment", "user_name")),
    sa.Column("state", sa.Text, nullable=False),  # pending, assessed (in MLflow) or orphan (no such trace)
)
gaps = sa.Table(
    "router_gaps",
    metadata,
    sa.Column("since_unix_ns", sa.BigInteger, primary_key=True),
    sa.Column("until_unix_ns", sa.BigInteger, primary_key=True),
    sa.Column("requests", sa.Integer, nullable=False),
)
spending = sa.Table(
    "router_calibration_spending",
    metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("unix_ns", sa.BigInteger, nullable=False),
    sa.Column("cost_usd", sa.Float, nullable=False),
)


class Ledger:
    """Write access to the tables at one URL. The first write creates them if necessary."""

    batch = BATCH

    def __init__(self, url: str, prices: PriceBook, lengths: Callable[[str], Lengths | None]) -> None:
        """`lengths` returns the answer length ratios of a policy version."""
        self.engine = engine(url)
        self._prices = prices
        self._lengths = lengths
        self._tables_created = False

    def write(self, entries: Sequence[Entry]) -> None:
        """Insert `entries`. Existing rows stay unchanged.

        Raises:
            RefusedError: an entry does not fit its table, and no entry was inserted.
        """
        if not self._tables_created:
            make_tables(self.engine)
            self._tables_created = True
        with unfit_is_refused():
            tables: tuple[tuple[sa.Table, list[dict[str, Any]]], ...] = (
                (requests, [self._row(entry) for entry in entries if isinstance(entry, Record)]),
                (feedback, [_feedback_row(entry) for entry in entries if isinstance(entry, Feedback)]),
                (gaps, [_gap_row(entry) for entry in entries if isinstance(entry, Gap)]),
            )
            try:
                with self.engine.begin() as connection:
                    for table, rows in tables:
                        if rows:
                            connection.execute(_insert(self.engine, table), rows)
            except (sa.exc.DataError, sa.exc.IntegrityError) as error:
                raise RefusedError(f"{type(error).__name__}: {error.orig}") from error

    def _row(self, record: Record) -> dict[str, Any]:
        usage = usage_of(record.usage)
        strong = None
        lengths = self._lengths(record.policy_version) if record.policy_version else None
        if usage is not None and lengths is not None and record.outcome == "answered":
            strong = always_strong_usd(lengths, self._prices, record, usage)
        wasted = [attempt.get("cost_usd") for attempt in record.wasted]
        return {
            "trace_id": record.trace_id,
            "span_id": record.span_id,
            "started_unix_ns": record.started_unix_ns,
            "ended_unix_ns": record.ended_unix_ns,
            # integer seconds: a float would round the last moment of a day into the next day
            "day": datetime.fromtimestamp(record.started_unix_ns // 10**9, UTC).strftime("%Y-%m-%d"),
            **{name: _text(getattr(record, name)) for name in _SAME},
            "user_name": _text(record.user),
            **{name: int(getattr(record, name)) for name in ("status", "attempts", "stream", "simulated")},
            "target": record.target,
            "gap": record.gap,
            **{name: None if usage is None else getattr(usage, name) for name in TOKENS},
            "cost_usd": record.cost_usd,
            "wasted_usd": sum(cost for cost in wasted if cost is not None),
            "kept_usd": record.kept_usd,
            "wasted_unknown": wasted.count(None),
            "prices_as_of": self._prices.as_of,
            "prices_source": self._prices.source,
            **{f"always_strong_usd_{end}": strong and getattr(strong, end) for end in ("low", "estimate", "high")},
        }


_SAME = (
    *("endpoint", "asked_model", "model", "response_model", "outcome", "reason", "question_type", "policy_version"),
    *("key_id", "team", "session", "service_tier", "verification", "finding", "escalated_from"),
)


def engine(url: str) -> sa.Engine:
    """Create an engine for the tables at `url`. SQLite waits for locks, since several processes read and write."""
    created = sa.create_engine(url, pool_pre_ping=True)
    if created.dialect.name == "sqlite":

        @sa.event.listens_for(created, "connect")
        def prepare(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA busy_timeout=20000")
            connection.execute("PRAGMA synchronous=NORMAL")

    return created


def make_tables(engine: sa.Engine) -> None:
    """Create missing tables, and add missing columns to tables of earlier versions."""
    try:
        metadata.create_all(engine)
    except sa.exc.DBAPIError:  # another process may have created them in between; then this succeeds
        metadata.create_all(engine)
    inspector = sa.inspect(engine)
    for table in metadata.tables.values():
        existing = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in existing:
                _add_column(engine, table, column)


def _add_column(engine: sa.Engine, table: sa.Table, column: sa.Column[Any]) -> None:
    """Add a column that is null in existing rows. Another process may add it at the same time."""
    kind = column.type.compile(dialect=engine.dialect)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))
    except sa.exc.DBAPIError:
        if column.name not in {existing["name"] for existing in sa.inspect(engine).get_columns(table.name)}:
            raise


def has_trace(engine: sa.Engine, trace_id: str, key_id: str) -> bool:
    """Whether the trace contains a request of this key."""
    if not sa.inspect(engine).has_table(requests.name):
        return False
    chosen = sa.select(requests.c.span_id).where(requests.c.trace_id == trace_id, requests.c.key_id == key_id).limit(1)
    with engine.connect() as connection:
        return connection.execute(chosen).first() is not None


def usage_of(counts: Mapping[str, int] | None) -> Usage | None:
    """Convert the usage of a record. Unknown fields are ignored."""
    return None if counts is None else Usage(**{name: counts[name] for name in TOKENS if name in counts})


def pending_feedback(engine: sa.Engine, limit: int) -> list[Feedback]:
    """Up to `limit` feedback entries that are not yet assessments in MLflow, oldest first."""
    if not sa.inspect(engine).has_table(feedback.name):
        return []
    chosen = sa.select(feedback).where(feedback.c.state == "pending").order_by(feedback.c.unix_ns).limit(limit)
    with engine.connect() as connection:
        return [
            Feedback(
                feedback_id=row.feedback_id,
                trace_id=row.trace_id,
                unix_ns=row.unix_ns,
                score=row.score,
                thumbs=row.thumbs,
                comment=row.comment,
                user=row.user_name,
            )
            for row in connection.execute(chosen)
        ]


def settle_feedback(engine: sa.Engine, feedback_ids: Iterable[str], state: str) -> None:
    """Set the state of feedback to `assessed` or `orphan`."""
    with engine.begin() as connection:
        for feedback_id in feedback_ids:
            connection.execute(sa.update(feedback).where(feedback.c.feedback_id == feedback_id).values(state=state))


def add_spending(engine: sa.Engine, run_id: str, cost_usd: float, unix_ns: int | None = None) -> None:
    """Insert the cost of a calibration run. A run is counted once."""
    make_tables(engine)
    with engine.begin() as connection:
        row = {"run_id": run_id[:64], "unix_ns": unix_ns or time.time_ns(), "cost_usd": cost_usd}
        connection.execute(_insert(engine, spending), [row])


class _Spent(msgspec.Struct):
    run_id: str
    cost_usd: float
    unix_ns: int


class CalibrationSpending:
    """Imports the cost of calibrations from a file in the home folder, which has one JSON line per run."""

    def __init__(self, engine: sa.Engine, file: Path) -> None:
        self._engine = engine
        self._file = file
        self._size = 0

    def book(self) -> None:
        """Insert the runs in the file if the file has changed."""
        with contextlib.suppress(FileNotFoundError):
            lines = self._file.read_bytes() if self._file.stat().st_size != self._size else b""
            for line in lines.splitlines():
                with contextlib.suppress(msgspec.DecodeError):  # an incomplete line
                    spent = msgspec.json.decode(line, type=_Spent)
                    add_spending(self._engine, spent.run_id, spent.cost_usd, spent.unix_ns)
            self._size = len(lines) or self._size


def _insert(engine: sa.Engine, table: sa.Table) -> sa.Insert:
    if engine.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _text(value: object) -> str:
    """Convert to text that PostgreSQL accepts: without NUL and unpaired surrogates, at most 2,000 characters."""
    return str(value).replace("\x00", "").encode("utf-8", "replace").decode()[:2000]


def _feedback_row(entry: Feedback) -> dict[str, Any]:
    return {
        "feedback_id": entry.feedback_id,
        "trace_id": entry.trace_id,
        "unix_ns": entry.unix_ns,
        "score": entry.score,
        "thumbs": entry.thumbs,
        "comment": _text(entry.comment),
        "user_name": _text(entry.user),
        "state": "pending",
    }


def _gap_row(entry: Gap) -> dict[str, Any]:
    return {
        "since_unix_ns": entry.since_unix_ns,
        "until_unix_ns": entry.until_unix_ns,
        "requests": entry.requests,
    }
