"""What a change of prices does to a policy that was certified at other ones. Pure.

A policy's thresholds are quality for a dollar, in the dollars of the day on which it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from router.policy.prices import Price, PriceBook
from router.policy.rules import Model, Rules


class Moved(NamedTuple):
    """A model's price in a policy, and what it is now."""

    model: str
    then: Price
    now: Price

    @property
    def told(self) -> str:
        """The two prices of plain tokens in words, in dollars per million."""
        then, now = self.then, self.now
        return (
            f"{self.model} {then.usd_per_million_input_tokens:g}/{then.usd_per_million_output_tokens:g} -> "
            f"{now.usd_per_million_input_tokens:g}/{now.usd_per_million_output_tokens:g} (input/output)"
        )


def moved(models: Sequence[Model], prices: PriceBook) -> list[Moved]:
    """The models whose prices of plain tokens are others now than in the policy; one without a price now is left out.

    Prices of details, such as tokens from the cache, move no threshold: certificates are made of plain tokens.
    """
    found = []
    for model in models:
        now = prices.price(model.name)
        if now is not None and _plain(now) != _plain(model.price):
            found.append(Moved(model.name, model.price, now))
    return found


def _plain(price: Price) -> tuple[float, float]:
    return price.usd_per_million_input_tokens, price.usd_per_million_output_tokens


def saving_now(rules: Rules, prices: PriceBook, target: float) -> tuple[float, float] | None:
    """What `target` saves at the prices of now if every decision stays as it is: the least and the most.

    Of two models, as if all their dollars were of input, and as if all were of output. None where that cannot be told.
    """
    rule = rules.rule_for(target)
    if rule is None or len(rules.models) != 2:
        return None
    cheap, strong = rules.models
    new_cheap, new_strong = prices.price(cheap.name), prices.price(strong.name)
    if new_cheap is None or new_strong is None:
        return None
    found = []
    for before, after in zip(_ratios(cheap.price, strong.price), _ratios(new_cheap, new_strong), strict=True):
        if before is None or after is None or before >= 1:
            return None
        found.append(rule.expected_saving.estimate / (1 - before) * (1 - after))
    return min(found), max(found)


def _ratios(cheap: Price, strong: Price) -> tuple[float | None, float | None]:
    """Cheap over strong, of input and of output."""
    cheap_in, cheap_out = _plain(cheap)
    strong_in, strong_out = _plain(strong)
    return cheap_in / strong_in if strong_in else None, cheap_out / strong_out if strong_out else None
