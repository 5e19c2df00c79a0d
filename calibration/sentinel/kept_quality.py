"""What a type keeps of the strong model's quality, from sampled requests: a band that holds at all times. No I/O.

The claim that is watched: of the requests of a type, the answers that the router gave keep at least `k` of the strong
model's quality. A request that the cheap model answered has a score w, and the strong model's answer to it a score s;
it contributes w - k s. One that the strong model answered itself loses nothing and contributes (1 - k) s, where the
mean s of the pairs before it stands for its score, which nobody asks a judge for. The claim is that the mean of the
contributions, given all before, is at least 0. As ratios with a mean of at most 1 (`betting.py`): 1 - w + k s for the
claim "at least k", and 1 + (w - k s) / k for "at most k". Both are monotone in k, so that the values of k against
which there is not enough evidence are an interval: a confidence sequence of the quality kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.sentinel import betting
from router.policy.rules import Interval
from router.policy.vocabulary import Floats

ERROR = 0.05  # that any type is ever called drifted though it keeps its floor, over all types and all looks
MOST_KEPT = 2.0
_STEPS = 24  # of bisection: 1e-7 of the scale


@dataclass(frozen=True, slots=True)
class Observed:
    """One sampled request."""

    by_cheap: bool
    cheap: float = 0.0  # score of the cheap model's answer, in [0, 1]; without meaning where the strong one answered
    strong: float = 0.0  # score of the strong model's answer


@dataclass(frozen=True, slots=True)
class Kept:
    """What a type keeps, since a start."""

    band: Interval
    start: int  # the request, counted from 0, from which on it counts
    against_floor: float  # log evidence that less than the floor is kept, with the share of its start


def needed(types: int, error: float = ERROR) -> float:
    """The log evidence that shows something of one of so many types: each has an equal share of the error."""
    return math.log(max(types, 1) / error)


@dataclass(frozen=True, slots=True)
class Contributions:
    """Scores of sampled requests of one type, in the order in which they were sampled, (n,) each.

    Where the strong model answered, both are the mean of its scores before.
    """

    cheap: Floats
    strong: Floats

    @classmethod
    def of(cls, observed: Sequence[Observed]) -> Contributions:
        """The contributions of requests."""
        by_cheap = np.array([each.by_cheap for each in observed], dtype=bool)
        cheap = np.array([each.cheap for each in observed], dtype=np.float64)
        strong = np.array([each.strong for each in observed], dtype=np.float64)
        pairs = np.cumsum(by_cheap)
        mean = np.divide(np.cumsum(strong * by_cheap), pairs, out=np.zeros(len(pairs)), where=pairs > 0)
        return cls(np.where(by_cheap, cheap, mean), np.where(by_cheap, strong, mean))

    def since(self, start: int) -> Contributions:
        """Those from one request on."""
        return Contributions(self.cheap[start:], self.strong[start:])

    def at_least(self, kept: float) -> Floats:
        """The ratios against "at least `kept`" (n,)."""
        return np.asarray(1.0 - self.cheap + kept * self.strong)

    def at_most(self, kept: float) -> Floats:
        """The ratios against "at most `kept`" (n,)."""
        return np.asarray(1.0 + (self.cheap - kept * self.strong) / kept)


def kept_quality(observed: Sequence[Observed], floor: float, needed: float) -> Kept:
    """What a type keeps, with a band that is passed on either side with a chance of at most exp(-needed), ever.

    The band is that of all requests, unless a later start has more evidence against the floor, and more than twice
    what chance gives: then it tells what is kept since.
    """
    if not observed:
        return Kept(Interval(0.0, 1.0, MOST_KEPT), 0, 0.0)
    whole = Contributions.of(observed)
    against, start = betting.evidence(whole.at_least(floor))
    if against < math.log(2.0):
        start = 0
    since, least = whole.since(start), needed - betting.log_share(start)
    high = _first(lambda kept: betting.log_wealth(since.at_least(kept)) >= least, 0.0, MOST_KEPT)
    low = MOST_KEPT - _first(
        lambda below: betting.log_wealth(since.at_most(MOST_KEPT - below)) >= least, 0.0, MOST_KEPT
    )
    strong = float(since.strong.sum())
    estimate = min(float(since.cheap.sum()) / strong, MOST_KEPT) if strong else 1.0
    return Kept(Interval(min(low, estimate), estimate, max(high, estimate)), start, against)


def until_drifted(observed: Sequence[Observed], floor: float, needed: float) -> tuple[Sequence[Observed], bool]:
    """The requests until less than the floor was shown to be kept, and whether it was: what is shown stays so."""
    at = betting.first_reached(Contributions.of(observed).at_least(floor), needed) if observed else None
    return (observed, False) if at is None else (observed[:at], True)


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least number from which on `holds` does, to 1e-7; `high` where it does nowhere before."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
