"""Prices by kind of token, service tier and request length."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from router.policy.prices import Period, Price


class Kind(StrEnum):
    """Kinds of tokens that have their own price."""

    INPUT = "input"
    CACHED_INPUT = "cached input"
    CACHE_WRITE = "cache write"
    AUDIO_INPUT = "audio input"
    IMAGE_INPUT = "image input"
    OUTPUT = "output"
    REASONING = "reasoning"
    AUDIO_OUTPUT = "audio output"


FIELDS: Mapping[Kind, str] = {
    Kind.INPUT: "usd_per_million_input_tokens",
    Kind.CACHED_INPUT: "usd_per_million_cached_input_tokens",
    Kind.CACHE_WRITE: "usd_per_million_cache_write_tokens",
    Kind.AUDIO_INPUT: "usd_per_million_audio_input_tokens",
    Kind.IMAGE_INPUT: "usd_per_million_image_input_tokens",
    Kind.OUTPUT: "usd_per_million_output_tokens",
    Kind.REASONING: "usd_per_million_reasoning_tokens",
    Kind.AUDIO_OUTPUT: "usd_per_million_audio_output_tokens",
}
WRITTEN = frozenset({Kind.OUTPUT, Kind.REASONING, Kind.AUDIO_OUTPUT})
STANDARD = ""  # the standard tier


class Rate(NamedTuple):
    """The kind, tier and request length that a price applies to."""

    kind: Kind
    tier: str = STANDARD
    above_input_tokens: int = 0  # 0: all requests without a price for their length


def rates(period: Period) -> dict[Rate, float]:
    """All prices of a model in a period, in US dollars per million tokens, with the factors for long requests applied.

    >>> from router.policy.prices import LongContext
    >>> price = Price(2.0, 10.0, long_context=LongContext(272_000, 2.0, 1.5))
    >>> [(rate.kind.value, rate.above_input_tokens, usd) for rate, usd in rates(Period(0, price, {})).items()]
    [('input', 0, 2.0), ('input', 272000, 4.0), ('output', 0, 10.0), ('output', 272000, 15.0)]
    """
    prices = _of_tier(STANDARD, period.price)
    for tier, price in period.tiers.items():
        prices.update(_of_tier(tier, price))
    return prices


def _of_tier(tier: str, price: Price) -> dict[Rate, float]:
    prices: dict[Rate, float] = {}
    context = price.long_context
    for kind, field in FIELDS.items():
        usd: float | None = getattr(price, field)
        if usd is None:
            continue
        prices[Rate(kind, tier)] = usd
        if context is not None:
            factor = context.output_factor if kind in WRITTEN else context.input_factor
            prices[Rate(kind, tier, context.above_input_tokens)] = usd * factor
    return prices
