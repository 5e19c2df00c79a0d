"""A model of a policy, from what is known of it: its price, what it holds and reads, and which model follows it."""

from __future__ import annotations

from dataclasses import replace

from router.policy.catalogue import Catalogue
from router.policy.prices import PriceBook
from router.policy.rules import Model


def model_named(name: str, prices: PriceBook, catalogue: Catalogue) -> Model | None:
    """The model that a policy calls `name`, at the price of today; None where it has no price."""
    price, known = prices.price(name), catalogue.of(name)
    return None if price is None else replace(Model(name, price, successor=known.successor), **known.traits)
