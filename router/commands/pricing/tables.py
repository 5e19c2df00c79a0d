"""Print prices and price differences."""

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
    Finding.ONLY_OURS: "only in our table",
    Finding.ONLY_THEIRS: "only in the file",
    Finding.NOT_IN_FILE: "the file does not have this model",
    Finding.NO_PRICE_OF_OURS: "our table has no price for this model on that day",
    Finding.NOT_A_PRICE: "not a price",
    Finding.DIFFERENT_SHUTDOWN: "shutdown",
}


def print_prices(book: PriceBook, models: Iterable[str], unix_ns: int | None) -> None:
    """Print all past, current and future prices of `models`, or those at one moment."""
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
    console.print("Tokens without a listed price are billed as plain input or output tokens.", style="dim")
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
    """Print the differences, and the price keys that were not compared."""
    console = _console()
    models = len(comparison.models)
    if comparison.differences:
        table = Table("model", "price of", "tier", title=f"US dollars per million tokens, {day} (UTC)")
        for name in ("ours", "theirs", "difference"):
            table.add_column(name, justify="right")
        shown = ""
        for difference in comparison.differences:
            model = difference.model
            table.add_row(*map(Text, ("" if model == shown else model, *_cells(difference))))
            shown = model
        console.print(table)
        differing = len({difference.model for difference in comparison.differences})
        total = len(comparison.differences)
        console.print(Text(f"Differences from {file}: {total}, in {differing} of {models} models compared"))
    else:
        console.print(Text(f"Differences from {file}: none, in {models} models compared, at the prices of {day} (UTC)"))
    keys = sorted({key for keys in comparison.not_compared.values() for key in keys})
    if keys:
        console.print(
            Text(f"not compared because our table does not support these prices: {', '.join(keys)}"), style="dim"
        )


def _cells(difference: Difference) -> tuple[str, ...]:
    words = f"{_WORDS.get(difference.finding, '')}{': ' if difference.told else ''}{difference.told}"
    if difference.rate is None:
        return "", "", "", "", words
    share = difference.relative
    if difference.finding is Finding.DIFFERENT_PRICE:
        words = "ours is 0" if share is None else f"{share:+.2%}"
    return (
        _kind(difference.rate),
        difference.rate.tier or "standard",
        _usd(difference.ours_usd),
        _usd(difference.theirs_usd),
        words,
    )


def _kind(rate: Rate) -> str:
    return f"{rate.kind} > {rate.above_input_tokens:,} tokens" if rate.above_input_tokens else rate.kind


def _usd(usd: float | None) -> str:
    return "—" if usd is None else f"{usd:.10g}"


def as_json(comparison: Comparison, file: str, day: date) -> dict[str, Any]:
    """A comparison as JSON values."""
    return {
        "file": file,
        "day": str(day),
        "models": list(comparison.models),
        "differences": [_difference(difference) for difference in comparison.differences],
        "not_compared": {model: list(keys) for model, keys in comparison.not_compared.items()},
    }


def _difference(difference: Difference) -> dict[str, Any]:
    rate = difference.rate
    return {
        "model": difference.model,
        "difference": difference.finding.value,
        "kind": None if rate is None else rate.kind.value,
        "tier": None if rate is None else rate.tier or "standard",
        "above_input_tokens": None if rate is None else rate.above_input_tokens,
        "ours_usd_per_million_tokens": difference.ours_usd,
        "theirs_usd_per_million_tokens": difference.theirs_usd,
        "relative_difference": difference.relative,
        "told": difference.told,
    }


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)
