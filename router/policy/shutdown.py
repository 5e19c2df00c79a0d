"""The days on which models leave their upstream, by its list of models. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from router.policy.naming import without_effort


def listed_days(listed: object, models: Sequence[str], aliases: Mapping[str, str]) -> dict[str, dt.date]:
    """The days on which `models` leave, as the answer of `GET /v1/models` tells them in `shutdown_date`.

    A model goes by its own name, at whatever effort, else by the name of a dated snapshot in `aliases`. Models that no
    day is told of are left out.

    >>> listed = {"data": [{"id": "gpt-4o-2024-08-06", "shutdown_date": "2027-01-14"}]}
    >>> listed_days(listed, ["gpt-4o", "gpt-4o-mini"], {"gpt-4o-2024-08-06": "gpt-4o"})
    {'gpt-4o': datetime.date(2027, 1, 14)}
    """
    rows = listed.get("data") if isinstance(listed, dict) else None
    days: dict[str, dt.date] = {}
    for row in rows if isinstance(rows, list) else ():
        day = shutdown_day(row.get("shutdown_date")) if isinstance(row, dict) else None
        if day is None:
            continue
        name = str(row.get("id"))
        for model in models:
            own = without_effort(model)
            if own == name or (aliases.get(name) == own and model not in days):
                days[model] = day
    return days


def shutdown_day(value: Any) -> dt.date | None:
    """A day, from a date or a moment in text, or from seconds since 1970; None where it is none of these.

    >>> shutdown_day("2027-01-14T00:00:00Z"), shutdown_day(1_800_000_000), shutdown_day("soon"), shutdown_day(None)
    (datetime.date(2027, 1, 14), datetime.date(2027, 1, 15), None, None)
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return dt.datetime.fromtimestamp(value, dt.UTC).date() if value else None
        return dt.date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
