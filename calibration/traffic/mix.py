"""The mix of recorded traffic: the number of routed requests per question type in the usage tables."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from calibration.comparison.mix import normalise_shares, read_mix
from calibration.outcomes import InputError
from calibration.traffic.traffic import TrafficError, parse_duration

USAGE_PREFIX = "ledger:"
_BY_TYPE = sa.text(
    "SELECT question_type, count(*) FROM router_requests "
    "WHERE started_unix_ns >= :since AND simulated = 0 AND question_type <> '' GROUP BY question_type"
)
_BY_REQUESTED_MODEL = sa.text(
    "SELECT asked_model, count(*) FROM router_requests "
    "WHERE started_unix_ns >= :since AND simulated = 0 AND policy_version = '' GROUP BY asked_model"
)


def load_mix(text: str, types: Collection[str], now: datetime, home: Path) -> dict[str, float]:
    """Load a mix from a file, or with `ledger:7d` from the routed requests of the last seven days.

    Simulated requests are left out. `types` are the types with outcomes.

    Raises:
        InputError: as `read_mix`; or the usage tables cannot be read or have no routed request in the period.
    """
    if not text.startswith(USAGE_PREFIX):
        return read_mix(Path(text), types)
    try:
        since = now - parse_duration(text.removeprefix(USAGE_PREFIX))
    except (TrafficError, OverflowError) as error:
        raise InputError(
            Path(text), None, f"is not a duration; use {USAGE_PREFIX}7d for the last seven days"
        ) from error
    return normalise_shares(Path(text), count_routed_requests(since, home), types)


def count_routed_requests(since: datetime, home: Path) -> Mapping[str, int]:
    """The number of routed requests per question type.

    Raises:
        InputError: the usage tables cannot be read. The error omits their address, which may contain a password.
    """
    return _count(_BY_TYPE, since, home)


def count_unrouted_requests(since: datetime, home: Path, models: Collection[str]) -> Mapping[str, int]:
    """The number of unrouted requests that named one of `models` directly; models without requests are absent.

    Raises:
        InputError: as `count_routed_requests`.
    """
    return {name: count for name, count in _count(_BY_REQUESTED_MODEL, since, home).items() if name in models}


def _count(query: sa.TextClause, since: datetime, home: Path) -> Mapping[str, int]:
    url = os.environ.get("ROUTER_USAGE_DATABASE") or f"sqlite:///file:{home.absolute() / 'usage.db'}?mode=ro&uri=true"
    try:
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            rows = connection.execute(query, {"since": int(since.timestamp() * 1e9)}).all()
        engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        raise InputError(
            Path(USAGE_PREFIX), None, f"the usage tables cannot be read: {type(error).__name__}"
        ) from error
    return {str(name): int(count) for name, count in rows}
