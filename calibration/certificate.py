"""How a threshold is chosen so that its promise holds: Learn then Test.

A target is the share of the strong model's quality to keep. A grid of thresholds, fixed before the test questions are
looked at, is walked from the always-strong end; the walk stops at the first threshold that cannot be shown to keep the
target. Fixed-sequence testing makes the error of the whole walk that of one test (Angelopoulos et al. 2021, Learn then
Test, section 3). Each test is exact at any number of questions: bets on the quality kept, whose size is fixed by the
number of questions and the target alone (Waudby-Smith and Ramdas 2023, Estimating means of bounded random variables by
betting, sections 4 and 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from calibration.replay import Replay, bootstrap, picked
from router.policy.decision import Interval, Rule, Rules
from router.policy.prediction import Floats

CONFIDENCE = 0.95
TARGETS = (0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)
STEPS = 50
_AROUND = np.array([2 / 3, 1.0, 3 / 2])  # bets of the test, as multiples of the one that suits the expected spread
ROUNDS = 200
MOST_QUESTIONS = 1e7  # a target that needs more is not worth asking for


def losses(scores: Floats, chosen: np.ndarray, target: float) -> Floats:
    """Quality kept beyond the target, in points of score (n,): its mean is at least 0 where the promise holds.

    With eps = 1 - target, an escalated question gives eps * s, another w - (1 - eps) * s; s and w are the scores of the
    strong model and of the one chosen.
    """
    return np.asarray(picked(scores, chosen) - target * scores[:, -1])


def p_value(values: Floats, low: float) -> float:
    """Evidence against "the mean of `values` is at most 0", for independent values of at least `low` < 0.

    A gambler bets on the mean being above 0, with constant bets. Whatever the distribution, the chance that the wealth
    ever reaches x is at most 1/x (Ville), so one over the largest wealth is a p-value. The way to it counts: `values`
    come in an order that has nothing to do with them.

    >>> p_value(np.full(200, 0.1), -0.9) < 0.01
    True
    >>> p_value(np.full(200, -0.1), -0.9)
    1.0
    """
    if not len(values):
        return 1.0
    logs = np.cumsum(np.log1p(np.outer(_bets(len(values), low) / -low, values)), axis=1)
    wealth = logsumexp(logs, axis=0) - math.log(len(logs))
    return math.exp(-min(max(float(wealth.max()), 0.0), 700.0))


def _bets(n: int, low: float) -> Floats:
    """Bets that find the least gain that `n` questions can show, as shares of the largest that is safe.

    At the edge of the promise about a share of 1 + `low` of the answers is lost, and as much won back elsewhere.
    """
    variance = 2 * max(1 + low, 0.005)
    return np.minimum(_AROUND * math.sqrt(2 * math.log(1 / (1 - CONFIDENCE)) / (n * variance)), 0.9)


def threshold_grid(gaps_per_usd: Floats) -> Floats:
    """Prices of quality from always-strong to always-cheap (STEPS,), even in the share of questions that stay cheap.

    Made from the questions that the predictor was fitted on, so that it is fixed before the test.
    """
    return np.quantile(gaps_per_usd, np.linspace(0, 1, STEPS + 1)[1:]) * (1 + 1e-9)


@dataclass(frozen=True, slots=True)
class Walk:
    """Every step of the grid on the test questions."""

    grid: Floats  # (G,)
    rules: Rules
    replay: Replay
    groups: np.ndarray

    def chosen(self, target: float, step: int) -> np.ndarray:
        """The column of the chosen model for each question, guards and all, at a step of the walk."""
        return self.replay.chosen_at(self.rules, target, float(self.grid[step]))

    def rule(self, target: float, seed: int, confidence: float = CONFIDENCE) -> Rule:
        """The cheapest threshold of the walk that is shown to keep `target`, with what it saves."""
        passed, chosen = -1, self.chosen(target, 0)
        n = len(self.replay.outcomes)
        order = np.random.default_rng(seed).permutation(n)
        for step in range(len(self.grid)):
            tried = self.chosen(target, step)
            if p_value(losses(self.replay.scores, tried, target)[order], -target) > 1 - confidence:
                break
            passed, chosen = step, tried
        if passed < 0:
            more = questions_needed(losses(self.replay.scores, chosen, target), -target, confidence)
            return Rule(target, None, False, n, confidence, Interval(0.0, 0.0, 0.0), more)
        costs = self.replay.costs_usd
        spent = picked(costs, chosen)
        saving = bootstrap(lambda rows: 1 - spent[rows].sum() / costs[rows, -1].sum(), self.groups, ROUNDS, seed)
        return Rule(target, float(self.grid[passed]), True, n, confidence, saving)


def questions_needed(values: Floats, low: float, confidence: float = CONFIDENCE) -> int | None:
    """How many more questions like these would pass the test; None where more of the same would not.

    The log of the wealth grows with the questions as it did on average over these, at the bets that suit so many.
    """
    if not len(values):
        return None
    for n in np.geomspace(len(values), MOST_QUESTIONS, 400):
        growth = np.log1p(np.outer(_bets(int(n), low) / -low, values)).mean(axis=1)
        if logsumexp(n * growth) - math.log(len(growth)) >= -math.log(1 - confidence):
            return max(math.ceil(float(n)) - len(values), 1)
    return None
