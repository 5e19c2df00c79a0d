"""The effect of changed prices on a policy that was certified at earlier ones. Pure.

A policy's thresholds are quality per dollar, at the prices of the day on which it was calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from router.policy.prices import Price, PriceBook
from router.policy.rules import Model, Rules


class PriceChange(NamedTuple):
    """A model's price in a policy, and its current price."""

    model: str
    then: Price
    now: Price

    @property
    def description(self) -> str:
        """Both prices of input and output tokens in words, in dollars per million."""
        then, now = self.then, self.now
        return (
            f"{self.model} {then.usd_per_million_input_tokens:g}/{then.usd_per_million_output_tokens:g} -> "
            f"{now.usd_per_million_input_tokens:g}/{now.usd_per_million_output_tokens:g} (input/output)"
        )


def price_changes(models: Sequence[Model], prices: PriceBook) -> list[PriceChange]:
    """The models whose prices of input or output tokens differ from those in the policy; without unpriced models.

    Other prices, such as that of cached tokens, affect no threshold: certificates use plain input and output tokens.
    """
    changes = []
    for model in models:
        now = prices.price(model.name)
        if now is not None and _plain(now) != _plain(model.price):
            changes.append(PriceChange(model.name, model.price, now))
    return changes


def _plain(price: Price) -> tuple[float, float]:
    return price.usd_per_million_input_tokens, price.usd_per_million_output_tokens


def saving_at_current_prices(rules: Rules, prices: PriceBook, target: float) -> tuple[float, float] | None:
    """The smallest and the largest share of cost that `target` saves at current prices, with unchanged decisions.

    For two models: as if all cost were for input, and as if all were for output. None if it cannot be computed.
    """
    rule = rules.rule_for(target)
    if rule is None or len(rules.models) != 2:
        return None
    cheap, strong = rules.models
    new_cheap, new_strong = prices.price(cheap.name), prices.price(strong.name)
    if new_cheap is None or new_strong is None:
        return None
    savings = []
    for before, after in zip(_ratios(cheap.price, strong.price), _ratios(new_cheap, new_strong), strict=True):
        if before is None or after is None or before >= 1:
            return None
        savings.append(rule.expected_saving.estimate / (1 - before) * (1 - after))
    return min(savings), max(savings)


def _ratios(cheap: Price, strong: Price) -> tuple[float | None, float | None]:
    """Price of the cheap model over that of the strong one, for input and for output; None if the latter is 0."""
    cheap_in, cheap_out = _plain(cheap)
    strong_in, strong_out = _plain(strong)
    return cheap_in / strong_in if strong_in else None, cheap_out / strong_out if strong_out else None
