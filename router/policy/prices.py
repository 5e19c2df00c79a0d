"""Tokens become money here and nowhere else.

Prices are looked up by exact name or listed alias, never by likeness: `"gpt-4o" in "gpt-4o-mini"` is true, and a price
that is guessed is worse than one that is missing. A price holds from a day on (in UTC): a request is priced by its own
day, and a change of prices changes nothing that was billed before.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime
from typing import Any

from router.policy.naming import without_effort
from router.policy.usage import Usage

STANDARD_TIERS = ("", "default", "auto", "standard")  # all billed at the price of the model itself


class PriceError(ValueError):
    """The price table does not fit its form."""


@dataclass(frozen=True, slots=True)
class LongContext:
    """What a long request costs: beyond so many input tokens, all of it costs more."""

    above_input_tokens: int
    input_factor: float = 1.0  # for input of every kind: plain, from the cache, and written to it
    output_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in US dollars per million tokens. A price that is not listed is that of plain tokens."""

    usd_per_million_input_tokens: float
    usd_per_million_output_tokens: float
    usd_per_million_cached_input_tokens: float | None = None
    usd_per_million_audio_input_tokens: float | None = None
    usd_per_million_audio_output_tokens: float | None = None
    usd_per_million_image_input_tokens: float | None = None
    usd_per_million_cache_write_tokens: float | None = None
    usd_per_million_reasoning_tokens: float | None = None
    long_context: LongContext | None = None

    def cost_usd(self, usage: Usage) -> float:
        """Dollars for `usage`; details such as cached tokens at their own price, where one is listed.

        >>> mini = Price(0.15, 0.60, usd_per_million_cached_input_tokens=0.075)
        >>> f"{mini.cost_usd(Usage(input_tokens=1_000_000, output_tokens=500_000, cached_input_tokens=400_000)):.6f}"
        '0.420000'
        """
        of_input, of_output = self.usd_per_million_input_tokens, self.usd_per_million_output_tokens
        plain, plain_written, read, written = usage.input_tokens, usage.output_tokens, 0.0, 0.0
        if usage.cached_input_tokens and (price := self.usd_per_million_cached_input_tokens) is not None:
            plain, read = plain - usage.cached_input_tokens, usage.cached_input_tokens * price
        if usage.cache_write_tokens and (price := self.usd_per_million_cache_write_tokens) is not None:
            plain, read = plain - usage.cache_write_tokens, read + usage.cache_write_tokens * price
        if usage.audio_input_tokens and (price := self.usd_per_million_audio_input_tokens) is not None:
            plain, read = plain - usage.audio_input_tokens, read + usage.audio_input_tokens * price
        if usage.image_input_tokens and (price := self.usd_per_million_image_input_tokens) is not None:
            plain, read = plain - usage.image_input_tokens, read + usage.image_input_tokens * price
        if usage.audio_output_tokens and (price := self.usd_per_million_audio_output_tokens) is not None:
            plain_written, written = plain_written - usage.audio_output_tokens, usage.audio_output_tokens * price
        if usage.reasoning_tokens and (price := self.usd_per_million_reasoning_tokens) is not None:
            plain_written, written = plain_written - usage.reasoning_tokens, written + usage.reasoning_tokens * price
        # a detail may be told twice, as audio from the cache: what is left of the total is never less than nothing
        read += plain * of_input if plain > 0 else 0.0
        written += plain_written * of_output if plain_written > 0 else 0.0
        context = self.long_context
        if context is not None and usage.input_tokens > context.above_input_tokens:
            read, written = read * context.input_factor, written * context.output_factor
        return (read + written) / 1e6

    def total_usd(self, usage: Usage, requests: int) -> float:
        """Dollars for the summed usage of many requests, each as long as their mean."""
        long = self.long_context is not None and usage.input_tokens > self.long_context.above_input_tokens * requests
        return (self if long else replace(self, long_context=None)).cost_usd(usage)


@dataclass(frozen=True, slots=True)
class Period:
    """What a model costs from a day on."""

    since_unix_ns: int  # the first moment of that day in UTC; 0: from the beginning
    price: Price
    tiers: Mapping[str, Price]
    source: str = ""  # "": that of the table


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by exact model name, with the aliases (dated snapshots) that are billed alike.

    `prices` and `tiers` hold what is valid now. Of a model whose price changed, or will, `periods` holds every price;
    it is the periods that requests are priced by.
    """

    prices: Mapping[str, Price]
    aliases: Mapping[str, str]
    as_of: str = ""
    source: str = ""
    tiers: Mapping[str, Mapping[str, Price]] = field(default_factory=dict)  # model -> tier -> price
    periods: Mapping[str, tuple[Period, ...]] = field(default_factory=dict)  # model -> prices, the oldest first
    sources: Mapping[str, str] = field(default_factory=dict)  # model -> where its price is from, if not from `source`

    @classmethod
    def parse(cls, table: Any, now_unix_ns: int | None = None) -> PriceBook:
        """Read the form of `data/prices.json`. What is valid now is that of `now_unix_ns`, else of the clock.

        Raises:
            PriceError: what is wrong, with the model's name.
        """
        if not isinstance(table, Mapping) or not isinstance(table.get("models"), Mapping):
            raise PriceError('expected an object with "models": {name: price}')
        now = time.time_ns() if now_unix_ns is None else now_unix_ns
        prices: dict[str, Price] = {}
        aliases: dict[str, str] = {}
        tiers: dict[str, Mapping[str, Price]] = {}
        periods: dict[str, tuple[Period, ...]] = {}
        sources: dict[str, str] = {}
        for name, row in table["models"].items():
            found = _periods(name, row)
            valid = period_at(found, now) or found[0]
            prices[name], tiers[name], sources[name] = valid.price, valid.tiers, valid.source
            if len(found) > 1 or found[0].since_unix_ns:
                periods[name] = found
            for alias in _aliases(name, row):
                if alias in aliases or alias in table["models"]:
                    raise PriceError(f"model {alias!r} has two prices")
                aliases[alias] = name
        return cls(prices, aliases, str(table.get("as_of", "")), str(table.get("source", "")), tiers, periods, sources)

    def price(self, model: str, tier: str = "", unix_ns: int | None = None) -> Price | None:
        """The price of `model` on a service tier at a moment (None: now), or None: a price is never guessed.

        Before the first day of a model's first price there is none. A reasoning effort has the price of its model.
        """
        name = self.name_of(model)
        periods = self.periods.get(name)
        if periods is None:
            return self.prices.get(name) if tier in STANDARD_TIERS else self.tiers.get(name, {}).get(tier)
        valid = period_at(periods, time.time_ns() if unix_ns is None else unix_ns)
        if valid is None:
            return None
        return valid.price if tier in STANDARD_TIERS else valid.tiers.get(tier)

    def name_of(self, model: str) -> str:
        """The name under which `model` has its price: its own, that of an alias, or that without a reasoning effort."""
        if model in self.prices:
            return model
        base = without_effort(model)
        return self.aliases.get(model) or self.aliases.get(base, base)

    def history(self, model: str) -> tuple[Period, ...]:
        """Every price of `model`, the oldest first; empty where it has none."""
        name = self.name_of(model)
        price = self.prices.get(name)
        if price is None:
            return ()
        return self.periods.get(name) or (Period(0, price, self.tiers.get(name, {}), self.sources.get(name, "")),)

    def cost_usd(self, model: str, usage: Usage, tier: str = "", unix_ns: int | None = None) -> float | None:
        """Dollars for `usage` on `model` at a moment; None where the model has no price on that tier then."""
        price = self.price(model, tier, unix_ns)
        return None if price is None else price.cost_usd(usage)

    def extended(self, other: PriceBook) -> PriceBook:
        """These prices with those of `other` in their place where both have one, on every tier and every day."""
        kept = {name: periods for name, periods in self.periods.items() if name not in other.prices}
        tiers = {name: tiers for name, tiers in self.tiers.items() if name not in other.prices}
        return PriceBook(
            {**self.prices, **other.prices},
            {**self.aliases, **other.aliases},
            other.as_of or self.as_of,
            other.source or self.source,
            {**tiers, **other.tiers},
            {**kept, **other.periods},
            {**self.sources, **dict.fromkeys(other.prices, ""), **other.sources},
        )


def period_at(periods: tuple[Period, ...], unix_ns: int) -> Period | None:
    """The one of `periods`, the oldest first, that holds at a moment; None before the first."""
    valid = None
    for period in periods:
        if period.since_unix_ns <= unix_ns:
            valid = period
    return valid


def _periods(name: str, row: Any) -> tuple[Period, ...]:
    """A model's prices, the oldest first: the row's own, and those that held before."""
    if not isinstance(row, Mapping):
        raise PriceError(f"model {name!r}: expected an object of prices")
    earlier = row.get("earlier", [])
    if not isinstance(earlier, list):
        raise PriceError(f"model {name!r}: earlier is not a list of prices")
    found = []
    for each in (row, *earlier):
        price = _price(name, each)
        tiers = {tier: _in_tier(price, its) for tier, its in _tiers(name, each).items()}
        found.append(Period(_since(name, each), price, tiers, str(each.get("source", row.get("source", "")))))
    if len({period.since_unix_ns for period in found}) < len(found):
        raise PriceError(f"model {name!r} has two prices from the same day on; give each a day in since")
    return tuple(sorted(found, key=lambda period: period.since_unix_ns))


def _in_tier(standard: Price, price: Price) -> Price:
    """A tier bills long contexts as the model does, unless it says otherwise."""
    return price if price.long_context is not None else replace(price, long_context=standard.long_context)


def _since(name: str, row: Mapping[str, Any]) -> int:
    day = row.get("since", "")
    if day == "":
        return 0
    try:
        return day_unix_ns(date.fromisoformat(day))
    except (TypeError, ValueError):
        raise PriceError(f"model {name!r}: since is not a day such as 2026-09-22: {day!r}") from None


def day_unix_ns(day: date) -> int:
    """The first moment of a day in UTC, in nanoseconds since 1970."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9


def _price(name: str, row: Any) -> Price:
    if not isinstance(row, Mapping):
        raise PriceError(f"model {name!r}: expected an object of prices")
    values: dict[str, float] = {}
    for each in fields(Price):
        value = row.get(each.name)
        if value is None or each.name == "long_context":
            continue
        values[each.name] = _number(name, each.name, value, "a price")
    for needed in ("usd_per_million_input_tokens", "usd_per_million_output_tokens"):
        if needed not in values:
            raise PriceError(f"model {name!r}: {needed} is missing")
    return Price(**values, long_context=_long_context(name, row.get("long_context")))


def _long_context(name: str, row: Any) -> LongContext | None:
    if row is None:
        return None
    if not isinstance(row, Mapping):
        raise PriceError(f"model {name!r}: long_context is not an object")
    above = row.get("above_input_tokens")
    if above.__class__ is not int or above < 0:
        raise PriceError(f"model {name!r}: above_input_tokens is not a number of tokens: {above!r}")
    factors = [_number(name, key, row.get(key, 1.0), "a factor") for key in ("input_factor", "output_factor")]
    return LongContext(above, *factors)


def _number(name: str, what: str, value: Any, kind: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise PriceError(f"model {name!r}: {what} is not {kind}: {value!r}")
    return float(value)


def _tiers(name: str, row: Mapping[str, Any]) -> dict[str, Price]:
    tiers = row.get("tiers", {})
    if not isinstance(tiers, Mapping):
        raise PriceError(f"model {name!r}: tiers is not an object of prices")
    return {tier: _price(f"{name}, tier {tier}", prices) for tier, prices in tiers.items()}


def _aliases(name: str, row: Mapping[str, Any]) -> Iterable[str]:
    aliases = row.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise PriceError(f"model {name!r}: aliases is not a list of names")
    return aliases
