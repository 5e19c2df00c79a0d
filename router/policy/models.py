"""Builds a model of a policy from the price book and the table of models."""

from __future__ import annotations

from dataclasses import replace

from router.policy.catalogue import Catalogue
from router.policy.prices import PriceBook
from router.policy.rules import Model


def model_named(name: str, prices: PriceBook, catalogue: Catalogue) -> Model | None:
    """The model that a policy calls `name`, at its current price; None if it has no price."""
    price, facts = prices.price(name), catalogue.facts(name)
    return None if price is None else replace(Model(name, price, successor=facts.successor), **facts.traits)
