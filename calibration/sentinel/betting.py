"""Sequential tests by betting: log evidence that stays valid however often it is inspected. No I/O.

A claim is expressed as ratios r_i >= 0. While the claim holds, the mean of each ratio given the earlier ones is at most
1. A bet of the fraction f on the next ratio multiplies the bettor's wealth by 1 + f (r_i - 1). While the claim holds,
no bet gains on average, so by Ville's inequality the wealth ever reaches 1/a with probability at most a (Waudby-Smith
and Ramdas 2024, Estimating means of bounded random variables by betting, sections 3 and 4).

The wealth is split evenly over the bets in `FRACTIONS`, because the best fraction depends on an unknown mean. The mean
of their wealth is itself a valid bet, and splitting over L fractions costs at most log L of log evidence.

New bets start at a change point every `CHANGE_POINT_INTERVAL` observations, so that wealth won or lost before a change
does not hide the change. The k-th change point gets the share 1/(k(k+1)) of the error probability. The shares sum to 1,
so by the union bound all change points together err as often as one test. This is the union of the confidence
sequences of Shekhar and Ramdas 2023, Sequential changepoint detection via backward confidence sequences, with summable
errors instead of a bounded run length.
"""

from __future__ import annotations

import math

import numpy as np

from router.policy.vocabulary import Floats

FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)
CHANGE_POINT_INTERVAL = 50  # observations


def change_points(n: int) -> list[int]:
    """The indices, counted from 0, of the observations at which new bets start.

    >>> change_points(0), change_points(50), change_points(51)
    ([0], [0], [0, 50])
    """
    return list(range(0, max(n, 1), CHANGE_POINT_INTERVAL))


def log_error_share(change_point: int) -> float:
    """The natural logarithm of a change point's share of the error probability.

    >>> [round(math.exp(log_error_share(index)), 3) for index in (0, 50, 100)]
    [0.5, 0.167, 0.083]
    """
    k = change_point // CHANGE_POINT_INTERVAL + 1
    return -math.log(k * (k + 1))


def log_wealth(ratios: Floats) -> float:
    """The natural logarithm of the wealth after all `ratios` (n,), starting from wealth 1."""
    gains = np.log1p(np.outer(ratios - 1.0, FRACTIONS)).sum(axis=0)
    return float(np.logaddexp.reduce(gains)) - math.log(len(FRACTIONS))


def max_log_evidence(ratios: Floats) -> tuple[float, int]:
    """The largest log evidence against the claim over all change points, error share included, and its change point."""
    gains = _cumulative_log_gains(ratios)
    points = change_points(len(ratios))
    log_shares = np.array([log_error_share(point) for point in points]) - math.log(len(FRACTIONS))
    log_evidence = np.logaddexp.reduce(gains[-1] - gains[points], axis=1) + log_shares
    best = int(log_evidence.argmax())
    return float(log_evidence[best]), points[best]


def first_crossing(ratios: Floats, threshold: float) -> int | None:
    """The number of ratios after which the log evidence first reaches `threshold`; None if it never does."""
    gains = _cumulative_log_gains(ratios)
    points = np.array(change_points(len(ratios)))
    log_shares = np.array([log_error_share(point) for point in points])[:, None]
    for block, begin in enumerate(points):
        past = slice(0, block + 1)
        log_wealths = (  # (change points, ratios of this block, fractions)
            gains[None, begin + 1 : begin + CHANGE_POINT_INTERVAL + 1] - gains[points[past], None]
        )
        if (log_wealths.max(axis=2) + log_shares[past] < threshold).all():  # the mean is at most the largest
            continue
        log_evidence = np.logaddexp.reduce(log_wealths, axis=2) + log_shares[past] - math.log(len(FRACTIONS))
        crossings = np.flatnonzero((log_evidence >= threshold).any(axis=0))
        if len(crossings):
            return int(begin) + int(crossings[0]) + 1
    return None


def growth_rate(ratios: Floats, weights: Floats) -> float:
    """The largest mean log gain per observation over `FRACTIONS`; `ratios` occur in proportion to `weights`, both (n,).

    The bet with this rate reaches the log evidence b after b / rate observations on average, plus the overshoot of the
    last observation (Wald 1947, Sequential Analysis, appendix 2). At a rate of 0 or less it never reaches b.
    """
    return float((weights @ np.log1p(np.outer(ratios - 1.0, FRACTIONS))).max() / weights.sum())


def _cumulative_log_gains(ratios: Floats) -> Floats:
    """The log wealth of each fraction after 0, 1, ..., n ratios, (n + 1, fractions)."""
    log_gains = np.log1p(np.outer(ratios - 1.0, FRACTIONS)).cumsum(axis=0)
    return np.vstack([np.zeros(len(FRACTIONS)), log_gains])
