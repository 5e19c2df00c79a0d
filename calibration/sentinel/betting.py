"""Evidence that may be looked at after every observation: wealth won by bets against a claim. No I/O.

A claim is put as ratios r_i >= 0 whose mean, given all before, is at most 1 where it holds. A bet of the fraction f on
the next ratio multiplies its wealth by 1 + f (r_i - 1). While the claim holds no bet gains on average, so that by
Ville's inequality the wealth ever reaches 1/a with a probability of at most a, however often it is looked at
(Waudby-Smith and Ramdas 2024, Estimating means of bounded random variables by betting, sections 3 and 4).

The wealth is spread over several fractions, since the best one depends on what is not known: their mean is bet against
as well, and the best of L costs log L at most. Bets begin anew every START_EVERY observations, so that what was won or
lost before a change does not count against it. The k-th beginning has a share 1/(k(k+1)) of the error; shares sum to 1,
so that all beginnings together err as one (the union of the confidence sequences of Shekhar and Ramdas 2023, Sequential
changepoint detection via backward confidence sequences, with errors that sum instead of a run length that is bounded).
"""

from __future__ import annotations

import math

import numpy as np

from router.policy.vocabulary import Floats

FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)
START_EVERY = 50


def starts(n: int) -> list[int]:
    """The observations, counted from 0, at which bets begin.

    >>> starts(0), starts(50), starts(51)
    ([0], [0], [0, 50])
    """
    return list(range(0, max(n, 1), START_EVERY))


def log_share(start: int) -> float:
    """The logarithm of the share of the error that a start has.

    >>> round(math.exp(log_share(0)), 3), round(math.exp(log_share(50)), 3), round(math.exp(log_share(100)), 3)
    (0.5, 0.167, 0.083)
    """
    k = start // START_EVERY + 1
    return -math.log(k * (k + 1))


def log_wealth(ratios: Floats) -> float:
    """The logarithm of the wealth after all `ratios` (n,), from 1."""
    gains = np.log1p(np.outer(ratios - 1.0, FRACTIONS)).sum(axis=0)
    return float(np.logaddexp.reduce(gains)) - math.log(len(FRACTIONS))


def evidence(ratios: Floats) -> tuple[float, int]:
    """The most that any start has against the claim, in logarithms with the start's share; and that start."""
    gains = np.vstack([np.zeros(len(FRACTIONS)), np.log1p(np.outer(ratios - 1.0, FRACTIONS)).cumsum(axis=0)])
    begun = starts(len(ratios))
    shares = np.array([log_share(start) for start in begun]) - math.log(len(FRACTIONS))
    won = np.logaddexp.reduce(gains[-1] - gains[begun], axis=1) + shares
    best = int(won.argmax())
    return float(won[best]), begun[best]


def first_reached(ratios: Floats, needed: float) -> int | None:
    """After how many ratios the evidence first reaches `needed`; None where it never does."""
    gains = np.vstack([np.zeros(len(FRACTIONS)), np.log1p(np.outer(ratios - 1.0, FRACTIONS)).cumsum(axis=0)])
    begun = np.array(starts(len(ratios)))
    shares = np.array([log_share(start) for start in begun])[:, None]
    for block, begin in enumerate(begun):
        before = slice(0, block + 1)
        won = gains[None, begin + 1 : begin + START_EVERY + 1] - gains[begun[before], None]  # start, ratio, fraction
        if (won.max(axis=2) + shares[before] < needed).all():  # the mean over fractions is at most the best of them
            continue
        mean = np.logaddexp.reduce(won, axis=2) + shares[before] - math.log(len(FRACTIONS))
        reached = np.flatnonzero((mean >= needed).any(axis=0))
        if len(reached):
            return int(begin) + int(reached[0]) + 1
    return None


def growth_rate(ratios: Floats, weights: Floats) -> float:
    """The largest mean logarithm that a bet gains an observation, where `ratios` come as often as `weights` say.

    A bet of this fraction reaches the logarithm b after b / rate observations on average, and the overshoot of the last
    one (Wald 1947, Sequential Analysis, appendix 2); a rate of 0 or less never does.
    """
    return float((weights @ np.log1p(np.outer(ratios - 1.0, FRACTIONS))).max() / weights.sum())
