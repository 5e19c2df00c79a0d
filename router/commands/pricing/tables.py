"""Prices and their differences as they are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.commands.pricing.comparison import Comparison, Difference, Finding
from router.commands.pricing.rates import FIELDS, STANDARD, Kind, Rate
from router.policy.prices import Period, Price, PriceBook, period_at

ALWAYS_SHOWN = (Kind.INPUT, Kind.CACHED_INPUT, Kind.CACHE_WRITE, Kind.OUTPUT)
_WORDS = {
    Finding.ONLY_OURS: "only ours",
    Finding.ONLY_THEIRS: "only theirs",
    Finding.NOT_IN_FILE: "the file does not have this model",
    Finding.NO_PRICE_OF_OURS: "our table has no price for this model on that day",
    Finding.NOT_A_PRICE: "not a price",
    Finding.DIFFERENT_SHUTDOWN: "shutdown",
}


def print_prices(book: PriceBook, models: Iterable[str], unix_ns: int | None) -> None:
    """Print the prices of `models`: all that were, are and will be, or those of one moment."""
    rows = [(model, *row) for model in models for row in _rows(book.history(model), unix_ns)]
    listed = [price for _, _, _, price in rows if price is not None]
    kinds = [kind for kind in Kind if kind in ALWAYS_SHOWN or any(getattr(price, FIELDS[kind]) for price in listed)]
    table = Table("model", "from", "tier", *kinds, "long requests", title="US dollars per million tokens")
    for column in table.columns[3 : 3 + len(kinds)]:
        column.justify = "right"
    shown = ("", "")
    for model, period, tier, price in rows:
        days = _days(period)
        first = (model, days) if (model, days) != shown else ("", "")
        shown = (model, days)
        cells = ["no price on that day"] if price is None else [_usd(getattr(price, FIELDS[kind])) for kind in kinds]
        cells += [""] * (len(kinds) - len(cells))
        table.add_row(*map(Text, (*first, tier or "standard", *cells, "" if price is None else _long(price))))
    console = _console()
    console.print(table)
    console.print("A price that is not listed is that of plain tokens: input, or output.", style="dim")
    sources: dict[str, list[str]] = {}
    for model, period, _, _ in rows:
        if period is None:
            continue
        names = sources.setdefault(period.source or f"{book.source}, {book.as_of}", [])
        if model not in names:
            names.append(model)
    for source, names in sources.items():
        console.print(Text(f"{', '.join(names)}: {source}"))


def _rows(history: Sequence[Period], unix_ns: int | None) -> list[tuple[Period | None, str, Price | None]]:
    periods = history if unix_ns is None else [period_at(tuple(history), unix_ns)]
    rows: list[tuple[Period | None, str, Price | None]] = []
    for period in reversed(periods):
        if period is None:
            rows.append((None, STANDARD, None))
        else:
            rows += [(period, tier, price) for tier, price in {STANDARD: period.price, **period.tiers}.items()]
    return rows


def _days(period: Period | None) -> str:
    if period is None:
        return ""
    return str(datetime.fromtimestamp(period.since_unix_ns // 10**9, UTC).date()) if period.since_unix_ns else "always"


def _long(price: Price) -> str:
    context = price.long_context
    if context is None:
        return ""
    return f"> {context.above_input_tokens:,}: input × {context.input_factor:g}, output × {context.output_factor:g}"


def print_comparison(comparison: Comparison, file: str, day: date) -> None:
    """Print what differs, and what could not be compared."""
    console = _console()
    models = len(comparison.models)
    if comparison.differences:
        table = Table("model", "price of", "tier", title=f"US dollars per million tokens, {day} (UTC)")
        for name in ("ours", "theirs", "difference"):
            table.add_column(name, justify="right")
        shown = ""
        for each in comparison.differences:
            table.add_row(*map(Text, ("" if each.model == shown else each.model, *_cells(each))))
            shown = each.model
        console.print(table)
        differing = len({each.model for each in comparison.differences})
        found = len(comparison.differences)
        console.print(Text(f"Differences from {file}: {found}, in {differing} of {models} models compared"))
    else:
        console.print(Text(f"Differences from {file}: none, in {models} models compared, at our prices of {day} (UTC)"))
    keys = sorted({key for keys in comparison.not_compared.values() for key in keys})
    if keys:
        console.print(Text(f"not compared, since our table has no such price: {', '.join(keys)}"), style="dim")


def _cells(each: Difference) -> tuple[str, ...]:
    words = f"{_WORDS.get(each.finding, '')}{': ' if each.told else ''}{each.told}"
    if each.rate is None:
        return "", "", "", "", words
    share = each.relative
    if each.finding is Finding.DIFFERENT_PRICE:
        words = "ours is 0" if share is None else f"{share:+.2%}"
    return _kind(each.rate), each.rate.tier or "standard", _usd(each.ours_usd), _usd(each.theirs_usd), words


def _kind(rate: Rate) -> str:
    return f"{rate.kind} > {rate.above_input_tokens:,} tokens" if rate.above_input_tokens else rate.kind


def _usd(usd: float | None) -> str:
    return "—" if usd is None else f"{usd:.10g}"


def as_json(comparison: Comparison, file: str, day: date) -> dict[str, Any]:
    """A comparison for machines."""
    return {
        "file": file,
        "day": str(day),
        "models": list(comparison.models),
        "differences": [_difference(each) for each in comparison.differences],
        "not_compared": {model: list(keys) for model, keys in comparison.not_compared.items()},
    }


def _difference(each: Difference) -> dict[str, Any]:
    rate = each.rate
    return {
        "model": each.model,
        "difference": each.finding.value,
        "kind": None if rate is None else rate.kind.value,
        "tier": None if rate is None else rate.tier or "standard",
        "above_input_tokens": None if rate is None else rate.above_input_tokens,
        "ours_usd_per_million_tokens": each.ours_usd,
        "theirs_usd_per_million_tokens": each.theirs_usd,
        "relative_difference": each.relative,
        "told": each.told,
    }


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)
