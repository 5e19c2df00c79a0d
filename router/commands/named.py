"""How keys and teams are printed: as a table, as fields, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from router.client import keystore
from router.client.keyfile import Limits


def print_rows(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], *, as_data: bool) -> None:
    """Print keys or teams as a table, or as JSON."""
    if as_data:
        sys.stdout.write(msgspec.json.encode(list(rows)).decode() + "\n")
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(_day(row[name]) if name in _MOMENTS else row[name]) for name in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_fields(fields: dict[str, Any]) -> None:
    """Print a key or a team, one field a line."""
    for field, value in fields.items():
        sys.stdout.write(f"{field + ':':<16}{_cell(value)}\n")


def limits_in_words(limits: Limits | None) -> str:
    """The limits as text, such as `$5 a day, 60 requests a minute`."""
    mapping = keystore.limits_as_mapping(limits)
    return _cell(mapping) if mapping else "no limits"


_MOMENTS = ("created", "expires")  # tables show only the day


def _day(moment: str | None) -> str | None:
    return moment and moment[:10]


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_limit_in_words(name, amount) for name, amount in value.items()) or "-"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return {True: "yes", False: "no", None: "-"}[value] if value is None or isinstance(value, bool) else str(value)


def _limit_in_words(name: str, amount: float) -> str:
    """A limit as text.

    >>> _limit_in_words("usd_a_day", 2.5), _limit_in_words("requests_a_minute", 60)
    ('$2.5 a day', '60 requests a minute')
    """
    if name in ("soft", "floor"):
        return f"{name} {amount:g}"
    unit, _, time = name.partition("_a_")
    return f"${amount:g} a {time}" if unit == "usd" else f"{amount} {unit} a {time}"
