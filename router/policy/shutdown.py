"""Reads shutdown dates from an upstream's list of models. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from router.policy.naming import without_effort


def read_shutdown_days(listed: object, models: Sequence[str], aliases: Mapping[str, str]) -> dict[str, dt.date]:
    """The shutdown dates of `models` from `shutdown_date` in a response of `GET /v1/models`; without unknown ones.

    A model is found by its own name, without a reasoning effort, else by a dated snapshot in `aliases`.

    >>> listed = {"data": [{"id": "gpt-4o-2024-08-06", "shutdown_date": "2027-01-14"}]}
    >>> read_shutdown_days(listed, ["gpt-4o", "gpt-4o-mini"], {"gpt-4o-2024-08-06": "gpt-4o"})
    {'gpt-4o': datetime.date(2027, 1, 14)}
    """
    rows = listed.get("data") if isinstance(listed, dict) else None
    days: dict[str, dt.date] = {}
    for row in rows if isinstance(rows, list) else ():
        day = parse_shutdown_day(row.get("shutdown_date")) if isinstance(row, dict) else None
        if day is None:
            continue
        name = str(row.get("id"))
        for model in models:
            plain_name = without_effort(model)
            if plain_name == name or (aliases.get(name) == plain_name and model not in days):
                days[model] = day
    return days


def parse_shutdown_day(value: Any) -> dt.date | None:
    """A date from an ISO date or time, or from seconds since 1970; None for other values.

    >>> [parse_shutdown_day(value) for value in ("2027-01-14T00:00:00Z", 1_800_000_000, "soon", None)]
    [datetime.date(2027, 1, 14), datetime.date(2027, 1, 15), None, None]
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return dt.datetime.fromtimestamp(value, dt.UTC).date() if value else None
        return dt.date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
