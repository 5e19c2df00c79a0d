"""The share of the strong model's quality that a question type keeps, with an anytime-valid confidence band. No I/O.

The monitored claim: on the requests of a type, the answers of the router keep at least the share k of the strong
model's quality. A request that the cheap model answered has the score w, and the strong model's answer to the same
request has the score s. The request contributes w - k s. A request that the strong model answered loses nothing. It
contributes (1 - k) s, where the mean s of the earlier pairs replaces its own score, because the judge does not score
it. The claim states that the mean of the contributions, given the earlier ones, is at least 0.

As ratios with a mean of at most 1 (`betting.py`), the claim "at least k" is 1 - w + k s, and the claim "at most k" is
1 + (w - k s) / k. Both are monotone in k, so the values of k that are not rejected form an interval: a confidence
sequence of the kept quality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.sentinel import betting
from router.policy.rules import Interval
from router.policy.vocabulary import Floats

ERROR = 0.05  # probability that any type is ever reported as drifted while it keeps its floor, over all inspections
MAX_KEPT_QUALITY = 2.0  # upper end of the band: the cheap model may be better than the strong one
_BISECTION_STEPS = 24  # precision: 1e-7 of the scale


@dataclass(frozen=True, slots=True)
class Observation:
    """One sampled request."""

    by_cheap: bool
    cheap: float = 0.0  # score of the cheap model's answer, in [0, 1]; unused if the strong model answered
    strong: float = 0.0  # score of the strong model's answer, in [0, 1]; unused if the strong model answered


@dataclass(frozen=True, slots=True)
class KeptQuality:
    """The quality that a type keeps, from a change point on."""

    band: Interval  # share of the strong model's quality
    change_point: int  # index, counted from 0, of the first request that the band covers
    log_evidence: float  # that the type keeps less than its floor, including the error share of the change point


def log_evidence_threshold(types: int, error: float = ERROR) -> float:
    """The log evidence that rejects a claim about one of `types` types, which share `error` equally."""
    return math.log(max(types, 1) / error)


@dataclass(frozen=True, slots=True)
class Contributions:
    """Scores of the sampled requests of one type, in the order of sampling, (n,) each.

    For a request that the strong model answered, both scores are the mean score of the strong model so far.
    """

    cheap: Floats
    strong: Floats

    @classmethod
    def from_observations(cls, observations: Sequence[Observation]) -> Contributions:
        by_cheap = np.array([observation.by_cheap for observation in observations], dtype=bool)
        cheap = np.array([observation.cheap for observation in observations], dtype=np.float64)
        strong = np.array([observation.strong for observation in observations], dtype=np.float64)
        pairs = np.cumsum(by_cheap)
        mean = np.divide(np.cumsum(strong * by_cheap), pairs, out=np.zeros(len(pairs)), where=pairs > 0)
        return cls(np.where(by_cheap, cheap, mean), np.where(by_cheap, strong, mean))

    def from_change_point(self, index: int) -> Contributions:
        """The contributions of the requests from `index` on."""
        return Contributions(self.cheap[index:], self.strong[index:])

    def ratios_of_at_least(self, kept: float) -> Floats:
        """The ratios of the claim "keeps at least `kept`", (n,)."""
        return np.asarray(1.0 - self.cheap + kept * self.strong)

    def ratios_of_at_most(self, kept: float) -> Floats:
        """The ratios of the claim "keeps at most `kept`", (n,)."""
        return np.asarray(1.0 + (self.cheap - kept * self.strong) / kept)


def estimate_kept_quality(observations: Sequence[Observation], floor: float, threshold: float) -> KeptQuality:
    """Estimate the kept quality; each end of the band is ever wrong with probability at most exp(-threshold).

    The band covers all requests, unless a later change point has the largest log evidence against the floor and that
    evidence is at least log 2. Then the band covers the requests from that change point on.
    """
    if not observations:
        return KeptQuality(Interval(0.0, 1.0, MAX_KEPT_QUALITY), 0, 0.0)
    contributions = Contributions.from_observations(observations)
    log_evidence, change_point = betting.max_log_evidence(contributions.ratios_of_at_least(floor))
    if log_evidence < math.log(2.0):
        change_point = 0
    covered = contributions.from_change_point(change_point)
    threshold -= betting.log_error_share(change_point)
    high = _bisect(
        lambda kept: betting.log_wealth(covered.ratios_of_at_least(kept)) >= threshold, 0.0, MAX_KEPT_QUALITY
    )
    low = MAX_KEPT_QUALITY - _bisect(
        lambda below: betting.log_wealth(covered.ratios_of_at_most(MAX_KEPT_QUALITY - below)) >= threshold,
        *(0.0, MAX_KEPT_QUALITY),
    )
    strong = float(covered.strong.sum())
    estimate = min(float(covered.cheap.sum()) / strong, MAX_KEPT_QUALITY) if strong else 1.0
    return KeptQuality(Interval(min(low, estimate), estimate, max(high, estimate)), change_point, log_evidence)


def truncate_at_drift(
    observations: Sequence[Observation], floor: float, threshold: float
) -> tuple[Sequence[Observation], bool]:
    """The observations up to the detection of a drift, and whether a drift was detected.

    A detected drift is final: later observations do not change the result.
    """
    if not observations:
        return observations, False
    ratios = Contributions.from_observations(observations).ratios_of_at_least(floor)
    crossing = betting.first_crossing(ratios, threshold)
    return (observations, False) if crossing is None else (observations[:crossing], True)


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest number in [low, high] from which on `holds` is true, to 1e-7 of the scale; `high` if none is."""
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
