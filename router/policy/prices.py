"""Prices of models, and the cost of usage. Nothing else converts tokens to dollars.

Prices are found by exact name or listed alias and never guessed: `"gpt-4o" in "gpt-4o-mini"` is true. A price is valid
from a day on (in UTC). A request is billed at the price of its day, so a price change does not affect earlier bills.
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
    """The price table is invalid."""


@dataclass(frozen=True, slots=True)
class LongContext:
    """The surcharge on long requests: above a number of input tokens, all tokens of a request cost more."""

    above_input_tokens: int
    input_factor: float = 1.0  # for all input tokens: plain, cached, and written to the cache
    output_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model in US dollars per million tokens. Unlisted details cost as much as plain tokens."""

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
        """Dollars for `usage`, with details such as cached tokens at their own price if listed.

        >>> mini = Price(0.15, 0.60, usd_per_million_cached_input_tokens=0.075)
        >>> f"{mini.cost_usd(Usage(input_tokens=1_000_000, output_tokens=500_000, cached_input_tokens=400_000)):.6f}"
        '0.420000'
        """
        input_price, output_price = self.usd_per_million_input_tokens, self.usd_per_million_output_tokens
        plain_in, plain_out, cost_in, cost_out = usage.input_tokens, usage.output_tokens, 0.0, 0.0
        if usage.cached_input_tokens and (price := self.usd_per_million_cached_input_tokens) is not None:
            plain_in, cost_in = plain_in - usage.cached_input_tokens, usage.cached_input_tokens * price
        if usage.cache_write_tokens and (price := self.usd_per_million_cache_write_tokens) is not None:
            plain_in, cost_in = plain_in - usage.cache_write_tokens, cost_in + usage.cache_write_tokens * price
        if usage.audio_input_tokens and (price := self.usd_per_million_audio_input_tokens) is not None:
            plain_in, cost_in = plain_in - usage.audio_input_tokens, cost_in + usage.audio_input_tokens * price
        if usage.image_input_tokens and (price := self.usd_per_million_image_input_tokens) is not None:
            plain_in, cost_in = plain_in - usage.image_input_tokens, cost_in + usage.image_input_tokens * price
        if usage.audio_output_tokens and (price := self.usd_per_million_audio_output_tokens) is not None:
            plain_out, cost_out = plain_out - usage.audio_output_tokens, usage.audio_output_tokens * price
        if usage.reasoning_tokens and (price := self.usd_per_million_reasoning_tokens) is not None:
            plain_out, cost_out = plain_out - usage.reasoning_tokens, cost_out + usage.reasoning_tokens * price
        # tokens may count towards two details, such as cached audio, so the remainder could be negative
        cost_in += plain_in * input_price if plain_in > 0 else 0.0
        cost_out += plain_out * output_price if plain_out > 0 else 0.0
        context = self.long_context
        if context is not None and usage.input_tokens > context.above_input_tokens:
            cost_in, cost_out = cost_in * context.input_factor, cost_out * context.output_factor
        return (cost_in + cost_out) / 1e6

    def total_usd(self, usage: Usage, requests: int) -> float:
        """Dollars for the total usage of many requests, as if each had the mean length."""
        long = self.long_context is not None and usage.input_tokens > self.long_context.above_input_tokens * requests
        return (self if long else replace(self, long_context=None)).cost_usd(usage)


@dataclass(frozen=True, slots=True)
class Period:
    """The price of a model from a day on."""

    since_unix_ns: int  # start of that day in UTC; 0 if unlimited
    price: Price
    tiers: Mapping[str, Price]
    source: str = ""  # "" means that of the table


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by exact model name, with the aliases (dated snapshots) that have the same price.

    `prices` and `tiers` are the current ones. If the price of a model changes over time, `periods` lists all its
    prices, and requests are billed by them.
    """

    prices: Mapping[str, Price]
    aliases: Mapping[str, str]
    as_of: str = ""
    source: str = ""
    tiers: Mapping[str, Mapping[str, Price]] = field(default_factory=dict)  # model -> tier -> price
    periods: Mapping[str, tuple[Period, ...]] = field(default_factory=dict)  # model -> prices, oldest first
    sources: Mapping[str, str] = field(default_factory=dict)  # model -> source of its price, if not `source`

    @classmethod
    def parse(cls, table: Any, now_unix_ns: int | None = None) -> PriceBook:
        """Read the decoded content of `data/prices.json`. Current prices are those at `now_unix_ns` (None: now).

        Raises:
            PriceError: the table is invalid. The message names the model.
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
            model_periods = _periods(name, row)
            valid = period_at(model_periods, now) or model_periods[0]
            prices[name], tiers[name], sources[name] = valid.price, valid.tiers, valid.source
            if len(model_periods) > 1 or model_periods[0].since_unix_ns:
                periods[name] = model_periods
            for alias in _aliases(name, row):
                if alias in aliases or alias in table["models"]:
                    raise PriceError(f"model {alias!r} has two prices")
                aliases[alias] = name
        return cls(prices, aliases, str(table.get("as_of", "")), str(table.get("source", "")), tiers, periods, sources)

    def price(self, model: str, tier: str = "", unix_ns: int | None = None) -> Price | None:
        """The price of `model` on a service tier at a time (None: now); None if it is not listed or not yet valid.

        A name with a reasoning effort has the price of its model.
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
        """The name that lists the price of `model`: its own, that of an alias, or that without a reasoning effort."""
        if model in self.prices:
            return model
        base = without_effort(model)
        return self.aliases.get(model) or self.aliases.get(base, base)

    def history(self, model: str) -> tuple[Period, ...]:
        """All prices of `model`, oldest first; empty if it has none."""
        name = self.name_of(model)
        price = self.prices.get(name)
        if price is None:
            return ()
        return self.periods.get(name) or (Period(0, price, self.tiers.get(name, {}), self.sources.get(name, "")),)

    def cost_usd(self, model: str, usage: Usage, tier: str = "", unix_ns: int | None = None) -> float | None:
        """Dollars for `usage` on `model` at a time (None: now); None if the model has no price then on that tier."""
        price = self.price(model, tier, unix_ns)
        return None if price is None else price.cost_usd(usage)

    def merged_with(self, other: PriceBook) -> PriceBook:
        """These prices, replaced on all tiers and days by those of `other` for the models that it lists."""
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
    """The one of `periods` (oldest first) that is valid at a time; None before the first."""
    valid = None
    for period in periods:
        if period.since_unix_ns <= unix_ns:
            valid = period
    return valid


def _periods(name: str, row: Any) -> tuple[Period, ...]:
    """A model's prices, oldest first: that of the row, and the earlier ones it lists."""
    if not isinstance(row, Mapping):
        raise PriceError(f"model {name!r}: expected an object of prices")
    earlier = row.get("earlier", [])
    if not isinstance(earlier, list):
        raise PriceError(f"model {name!r}: earlier is not a list of prices")
    periods = []
    for entry in (row, *earlier):
        price = _price(name, entry)
        tiers = {tier: _with_long_context(tier_price, price) for tier, tier_price in _tiers(name, entry).items()}
        periods.append(Period(_since(name, entry), price, tiers, str(entry.get("source", row.get("source", "")))))
    if len({period.since_unix_ns for period in periods}) < len(periods):
        raise PriceError(f"model {name!r} has two prices from the same day on; set a different day in 'since'")
    return tuple(sorted(periods, key=lambda period: period.since_unix_ns))


def _with_long_context(price: Price, standard: Price) -> Price:
    """A tier's price, with the surcharge of the standard price if it lists none."""
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
    """The start of a day in UTC, in nanoseconds since 1970."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9


def _price(name: str, row: Any) -> Price:
    if not isinstance(row, Mapping):
        raise PriceError(f"model {name!r}: expected an object of prices")
    values: dict[str, float] = {}
    for column in fields(Price):
        value = row.get(column.name)
        if value is None or column.name == "long_context":
            continue
        values[column.name] = _number(name, column.name, value, "a price")
    for required in ("usd_per_million_input_tokens", "usd_per_million_output_tokens"):
        if required not in values:
            raise PriceError(f"model {name!r}: {required} is missing")
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


def _number(name: str, column: str, value: Any, kind: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise PriceError(f"model {name!r}: {column} is not {kind}: {value!r}")
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
