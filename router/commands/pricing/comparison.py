"""Our prices of one moment beside those of a public map: what differs, and what only one of them has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from router.commands.pricing.public_map import PublicMap, Row
from router.commands.pricing.rates import Rate, rates
from router.policy.prices import PriceBook, period_at

TOLERANCE = 1e-9  # relative: what is written as 1.5e-07 dollars per token is 0.15 per million


class Finding(StrEnum):
    """What a difference is."""

    DIFFERENT_PRICE = "different_price"
    ONLY_OURS = "only_ours"
    ONLY_THEIRS = "only_theirs"
    NOT_IN_FILE = "not_in_file"  # the model
    NO_PRICE_OF_OURS = "no_price_of_ours"  # the model, on that day
    NOT_A_PRICE = "not_a_price"  # a value of the file
    DIFFERENT_SHUTDOWN = "different_shutdown"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which the tables differ; prices are US dollars per million tokens."""

    model: str
    finding: Finding
    rate: Rate | None = None  # None: it is about the model as a whole
    ours_usd: float | None = None
    theirs_usd: float | None = None
    told: str = ""  # more of it, in words

    @property
    def relative(self) -> float | None:
        """By how much their price is higher than ours, as a share of ours; None where that cannot be said."""
        if self.ours_usd is None or self.theirs_usd is None or self.ours_usd == 0:
            return None
        share = self.theirs_usd / self.ours_usd - 1
        return share if math.isfinite(share) else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, and what differs."""

    models: tuple[str, ...]
    differences: tuple[Difference, ...]
    not_compared: Mapping[str, tuple[str, ...]]  # model -> keys of prices for which our table has no place


def compare(
    book: PriceBook,
    public: PublicMap,
    unix_ns: int,
    models: Iterable[str] | None = None,
    leaves: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare the prices that hold at a moment.

    Without `models`, all of ours are compared, and of their aliases the prices that both tables have: an alias is
    billed as its model is. `leaves` are days of shutdown by model, as far as they are known.
    """
    named = tuple(dict.fromkeys(book.prices if models is None else models))
    differences: list[Difference] = []
    not_compared: dict[str, tuple[str, ...]] = {}
    for model in named:
        row = public.row(model)
        differences += _of_model(book, model, row, unix_ns)
        if row is not None:
            differences += _of_shutdown(model, row, (leaves or {}).get(book.name_of(model)))
            if row.others:
                not_compared[model] = row.others
    aliases = book.aliases if models is None else ()
    listed = [(alias, row) for alias in aliases if (row := public.row(alias)) is not None]
    for alias, row in listed:
        differences += [
            each
            for each in _of_model(book, alias, row, unix_ns)
            if each.finding in (Finding.DIFFERENT_PRICE, Finding.NOT_A_PRICE)
        ]
        differences += _of_shutdown(alias, row, (leaves or {}).get(book.name_of(alias)))
    return Comparison((*named, *(alias for alias, _ in listed)), tuple(differences), not_compared)


def _of_model(book: PriceBook, model: str, row: Row | None, unix_ns: int) -> list[Difference]:
    period = period_at(book.history(model), unix_ns)
    if row is None:
        return [] if period is None else [Difference(model, Finding.NOT_IN_FILE)]
    ours = {} if period is None else rates(period)
    odd = [
        Difference(
            model,
            Finding.NOT_A_PRICE,
            each.rate,
            None if each.rate is None else ours.get(each.rate),
            told=f"{each.key or 'the row'} is {each.value}",
        )
        for each in row.odd
    ]
    if period is None:
        return [Difference(model, Finding.NO_PRICE_OF_OURS), *odd]
    if any(each.rate is None for each in row.odd):
        return odd
    compared = {*ours, *row.rates} - {each.rate for each in row.odd}
    found = [_of_rate(model, rate, ours, row.rates) for rate in sorted(compared, key=_order)]
    return [*(each for each in found if each is not None), *odd]


def _order(rate: Rate) -> tuple[str, int, int]:
    return rate.tier, rate.above_input_tokens, list(type(rate.kind)).index(rate.kind)


def _of_rate(model: str, rate: Rate, ours: Mapping[Rate, float], theirs: Mapping[Rate, float]) -> Difference | None:
    our, their = ours.get(rate), theirs.get(rate)
    if our is not None and their is not None:
        return None if _same(our, their) else Difference(model, Finding.DIFFERENT_PRICE, rate, our, their)
    # a price of long requests that is that of all others needs no line of its own
    anywhere = rate._replace(above_input_tokens=0)
    if our is None:
        same = rate.above_input_tokens and _same(ours.get(anywhere), their)
        return None if same else Difference(model, Finding.ONLY_THEIRS, rate, None, their)
    same = rate.above_input_tokens and _same(our, theirs.get(anywhere))
    return None if same else Difference(model, Finding.ONLY_OURS, rate, our, None)


def _same(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-15)


def _of_shutdown(model: str, row: Row, ours: str | None) -> list[Difference]:
    if ours is None or not row.shutdown or row.shutdown == ours:
        return []
    return [Difference(model, Finding.DIFFERENT_SHUTDOWN, told=f"leaves on {ours}, {row.shutdown} in the file")]
