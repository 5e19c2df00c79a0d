"""Tokens become money here and nowhere else.

Prices are looked up by exact name or listed alias, never by likeness: `"gpt-4o" in "gpt-4o-mini"` is true, and a price
that is guessed is worse than one that is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

STANDARD_TIERS = ("", "default", "auto", "standard")  # all billed at the price of the model itself


class PriceError(ValueError):
    """The price table does not fit its form."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request as the upstream billed them. Each detail is a subset of its total."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0

    @classmethod
    def from_openai(cls, usage: Mapping[str, Any]) -> Usage:
        """Read the `usage` object of chat completions, completions, embeddings or responses; what is absent is 0."""
        read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        written = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
        return cls(
            input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
            output_tokens=_count(usage, "completion_tokens", "output_tokens"),
            cached_input_tokens=_count(read, "cached_tokens"),
            reasoning_tokens=_count(written, "reasoning_tokens"),
            audio_input_tokens=_count(read, "audio_tokens"),
            audio_output_tokens=_count(written, "audio_tokens"),
            image_input_tokens=_count(read, "image_tokens"),
        )

    @staticmethod
    def is_told(usage: Mapping[str, Any]) -> bool:
        """Whether a `usage` object of OpenAI's form tells what was billed: totals, all of them numbers of tokens."""
        told = False
        for name in _TOTALS:
            value = usage.get(name)
            if value is not None:
                if _tokens(value) is None:
                    return False
                told = True
        return told

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


_TOTALS = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
_MOST_TOKENS = 2**53  # what is larger is no count, and no table holds it


def _count(values: Any, *names: str) -> int:
    if isinstance(values, dict):
        for name in names:
            value = values.get(name)
            if value is not None and (count := _tokens(value)) is not None:
                return count
    return 0


def _tokens(value: Any) -> int | None:
    """A number of tokens; None where it is none. Some servers write 12.0."""
    if value.__class__ is int:
        return value if 0 <= value < _MOST_TOKENS else None
    if isinstance(value, float) and value.is_integer():
        return _tokens(int(value))
    return None


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in US dollars per million tokens."""

    usd_per_million_input_tokens: float
    usd_per_million_output_tokens: float
    usd_per_million_cached_input_tokens: float | None = None
    usd_per_million_audio_input_tokens: float | None = None
    usd_per_million_audio_output_tokens: float | None = None
    usd_per_million_image_input_tokens: float | None = None

    def cost_usd(self, usage: Usage) -> float:
        """Dollars for `usage`; cached and audio tokens at their own price, or at the plain one where none is listed.

        >>> mini = Price(0.15, 0.60, usd_per_million_cached_input_tokens=0.075)
        >>> f"{mini.cost_usd(Usage(input_tokens=1_000_000, output_tokens=500_000, cached_input_tokens=400_000)):.6f}"
        '0.420000'
        """
        of_image = self.usd_per_million_image_input_tokens
        images = 0 if of_image is None else usage.image_input_tokens
        plain_input = usage.input_tokens - usage.cached_input_tokens - usage.audio_input_tokens - images
        plain_output = usage.output_tokens - usage.audio_output_tokens
        of_input, of_output = self.usd_per_million_input_tokens, self.usd_per_million_output_tokens
        return (
            max(plain_input, 0) * of_input
            + max(plain_output, 0) * of_output
            + usage.cached_input_tokens * _or(self.usd_per_million_cached_input_tokens, of_input)
            + usage.audio_input_tokens * _or(self.usd_per_million_audio_input_tokens, of_input)
            + images * _or(of_image, of_input)
            + usage.audio_output_tokens * _or(self.usd_per_million_audio_output_tokens, of_output)
        ) / 1e6


def _or(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by exact model name, with the aliases (dated snapshots) that are billed alike."""

    prices: Mapping[str, Price]
    aliases: Mapping[str, str]
    as_of: str = ""
    source: str = ""
    tiers: Mapping[str, Mapping[str, Price]] = field(default_factory=dict)  # model -> tier -> price

    @classmethod
    def parse(cls, table: Any) -> PriceBook:
        """Read the form of `data/prices.json`.

        Raises:
            PriceError: what is wrong, with the model's name.
        """
        if not isinstance(table, Mapping) or not isinstance(table.get("models"), Mapping):
            raise PriceError('expected an object with "models": {name: price}')
        prices: dict[str, Price] = {}
        aliases: dict[str, str] = {}
        tiers: dict[str, dict[str, Price]] = {}
        for name, row in table["models"].items():
            prices[name] = _price(name, row)
            tiers[name] = _tiers(name, row)
            for alias in _aliases(name, row):
                if alias in aliases or alias in table["models"]:
                    raise PriceError(f"model {alias!r} has two prices")
                aliases[alias] = name
        return cls(prices, aliases, str(table.get("as_of", "")), str(table.get("source", "")), tiers)

    def price(self, model: str, tier: str = "") -> Price | None:
        """The price of `model` on a service tier, or None: a price is never guessed."""
        name = self.aliases.get(model, model)
        if tier in STANDARD_TIERS:
            return self.prices.get(name)
        return self.tiers.get(name, {}).get(tier)

    def cost_usd(self, model: str, usage: Usage, tier: str = "") -> float | None:
        """Dollars for `usage` on `model`; None where the model has no price on that tier."""
        price = self.price(model, tier)
        return None if price is None else price.cost_usd(usage)

    def extended(self, other: PriceBook) -> PriceBook:
        """These prices with those of `other` in their place where both have one."""
        return PriceBook(
            {**self.prices, **other.prices},
            {**self.aliases, **other.aliases},
            other.as_of or self.as_of,
            other.source or self.source,
            {**self.tiers, **other.tiers},
        )


def _price(name: str, row: Any) -> Price:
    if not isinstance(row, Mapping):
        raise PriceError(f"model {name!r}: expected an object of prices")
    values: dict[str, float] = {}
    for each in fields(Price):
        value = row.get(each.name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise PriceError(f"model {name!r}: {each.name} is not a price: {value!r}")
        values[each.name] = float(value)
    for needed in ("usd_per_million_input_tokens", "usd_per_million_output_tokens"):
        if needed not in values:
            raise PriceError(f"model {name!r}: {needed} is missing")
    return Price(**values)


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
