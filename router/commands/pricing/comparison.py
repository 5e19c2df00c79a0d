"""Compare the price table at one moment with a public price map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from router.commands.pricing.public_map import PublicMap, Row
from router.commands.pricing.rates import Rate, rates
from router.policy.prices import PriceBook, period_at

TOLERANCE = 1e-9  # relative; absorbs rounding between dollars per token and per million tokens


class Finding(StrEnum):
    """The kind of a difference."""

    DIFFERENT_PRICE = "different_price"
    ONLY_OURS = "only_ours"
    ONLY_THEIRS = "only_theirs"
    NOT_IN_FILE = "not_in_file"  # the file lacks the model
    NO_PRICE_OF_OURS = "no_price_of_ours"  # the price table has no price for the model on that day
    NOT_A_PRICE = "not_a_price"  # a value in the file is invalid
    DIFFERENT_SHUTDOWN = "different_shutdown"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the tables. Prices are US dollars per million tokens."""

    model: str
    finding: Finding
    rate: Rate | None = None  # None: the difference concerns the whole model
    ours_usd: float | None = None
    theirs_usd: float | None = None
    told: str = ""  # further explanation; written to JSON under this name

    @property
    def relative(self) -> float | None:
        """Relative difference of their price from ours; None if a price is missing or ours is 0."""
        if self.ours_usd is None or self.theirs_usd is None or self.ours_usd == 0:
            return None
        share = self.theirs_usd / self.ours_usd - 1
        return share if math.isfinite(share) else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The compared models and their differences."""

    models: tuple[str, ...]
    differences: tuple[Difference, ...]
    not_compared: Mapping[str, tuple[str, ...]]  # model -> price keys that the price table does not support


def compare(
    book: PriceBook,
    public: PublicMap,
    unix_ns: int,
    models: Iterable[str] | None = None,
    shutdown_days: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare the prices that apply at a moment.

    Without `models`, compare all models of the price table. Aliases are billed like their models, so only prices that
    both tables list are compared for them. `shutdown_days` maps models to their shutdown days.
    """
    named = tuple(dict.fromkeys(book.prices if models is None else models))
    differences: list[Difference] = []
    not_compared: dict[str, tuple[str, ...]] = {}
    for model in named:
        row = public.row(model)
        differences += _of_model(book, model, row, unix_ns)
        if row is not None:
            differences += _of_shutdown(model, row, (shutdown_days or {}).get(book.name_of(model)))
            if row.others:
                not_compared[model] = row.others
    aliases = book.aliases if models is None else ()
    listed = [(alias, row) for alias in aliases if (row := public.row(alias)) is not None]
    for alias, row in listed:
        differences += [
            difference
            for difference in _of_model(book, alias, row, unix_ns)
            if difference.finding in (Finding.DIFFERENT_PRICE, Finding.NOT_A_PRICE)
        ]
        differences += _of_shutdown(alias, row, (shutdown_days or {}).get(book.name_of(alias)))
    return Comparison((*named, *(alias for alias, _ in listed)), tuple(differences), not_compared)


def _of_model(book: PriceBook, model: str, row: Row | None, unix_ns: int) -> list[Difference]:
    period = period_at(book.history(model), unix_ns)
    if row is None:
        return [] if period is None else [Difference(model, Finding.NOT_IN_FILE)]
    ours = {} if period is None else rates(period)
    not_prices = [
        Difference(
            model,
            Finding.NOT_A_PRICE,
            invalid.rate,
            None if invalid.rate is None else ours.get(invalid.rate),
            told=f"{invalid.key or 'the row'} is {invalid.value}",
        )
        for invalid in row.invalid
    ]
    if period is None:
        return [Difference(model, Finding.NO_PRICE_OF_OURS), *not_prices]
    if any(invalid.rate is None for invalid in row.invalid):
        return not_prices
    compared = {*ours, *row.rates} - {invalid.rate for invalid in row.invalid}
    differences = [_of_rate(model, rate, ours, row.rates) for rate in sorted(compared, key=_order)]
    return [*(difference for difference in differences if difference is not None), *not_prices]


def _order(rate: Rate) -> tuple[str, int, int]:
    return rate.tier, rate.above_input_tokens, list(type(rate.kind)).index(rate.kind)


def _of_rate(model: str, rate: Rate, ours: Mapping[Rate, float], theirs: Mapping[Rate, float]) -> Difference | None:
    our, their = ours.get(rate), theirs.get(rate)
    if our is not None and their is not None:
        return None if _same(our, their) else Difference(model, Finding.DIFFERENT_PRICE, rate, our, their)
    # a price for long requests that equals the general price is no difference
    general = rate._replace(above_input_tokens=0)
    if our is None:
        same = rate.above_input_tokens and _same(ours.get(general), their)
        return None if same else Difference(model, Finding.ONLY_THEIRS, rate, None, their)
    same = rate.above_input_tokens and _same(our, theirs.get(general))
    return None if same else Difference(model, Finding.ONLY_OURS, rate, our, None)


def _same(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-15)


def _of_shutdown(model: str, row: Row, ours: str | None) -> list[Difference]:
    if ours is None or not row.shutdown or row.shutdown == ours:
        return []
    return [
        Difference(model, Finding.DIFFERENT_SHUTDOWN, told=f"on {ours} in models.json, on {row.shutdown} in the file")
    ]
