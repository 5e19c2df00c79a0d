"""The mix of recorded traffic: how many routed requests of each type the usage tables hold."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from calibration.comparison.mix import normalise_shares, read_mix
from calibration.outcomes import InputError
from calibration.traffic.traffic import TrafficError, read_since

LEDGER = "ledger:"
_COUNTED = sa.text(
    "SELECT question_type, count(*) FROM router_requests "
    "WHERE started_unix_ns >= :since AND simulated = 0 AND question_type <> '' GROUP BY question_type"
)
_NAMED = sa.text(
    "SELECT asked_model, count(*) FROM router_requests "
    "WHERE started_unix_ns >= :since AND simulated = 0 AND policy_version = '' GROUP BY asked_model"
)


def mix_of(text: str, types: Collection[str], now: datetime, home: Path) -> dict[str, float]:
    """The mix that an option names: a file, or `ledger:7d` for the routed requests of the last seven days.

    Simulated requests are left out. `types` are those that have outcomes.

    Raises:
        InputError: as `read_mix` does; or the usage tables cannot be read, or hold no routed request since then.
    """
    if not text.startswith(LEDGER):
        return read_mix(Path(text), types)
    try:
        since = now - read_since(text.removeprefix(LEDGER))
    except (TrafficError, OverflowError) as error:
        raise InputError(Path(text), None, f"is no length of time; {LEDGER}7d are the last seven days") from error
    return normalise_shares(Path(text), requests_since(since, home), types)


def requests_since(since: datetime, home: Path) -> Mapping[str, int]:
    """How many routed requests of each type came since then.

    Raises:
        InputError: the usage tables cannot be read; does not tell their address, which may hold a password.
    """
    return _counted(_COUNTED, since, home)


def named_since(since: datetime, home: Path, models: Collection[str]) -> Mapping[str, int]:
    """How many requests since then named each of `models` themselves, so that nothing was routed; none is left out.

    Raises:
        InputError: as `requests_since` does.
    """
    return {name: count for name, count in _counted(_NAMED, since, home).items() if name in models}


def _counted(query: sa.TextClause, since: datetime, home: Path) -> Mapping[str, int]:
    url = os.environ.get("ROUTER_USAGE_DATABASE") or f"sqlite:///file:{home.absolute() / 'usage.db'}?mode=ro&uri=true"
    try:
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            rows = connection.execute(query, {"since": int(since.timestamp() * 1e9)}).all()
        engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        raise InputError(Path(LEDGER), None, f"the usage tables cannot be read: {type(error).__name__}") from error
    return {str(name): int(count) for name, count in rows}
