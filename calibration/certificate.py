"""How a threshold is chosen so that its promise holds: Learn then Test.

A target is the share of the strong model's quality to keep. A grid of thresholds, fixed before the test questions are
looked at, is walked from the always-strong end; the walk stops at the first threshold that cannot be shown to keep the
target. Fixed-sequence testing makes the error of the whole walk that of one test (Angelopoulos et al. 2021, Learn then
Test, section 3). Each test is exact at any number of questions: a mixture of betting strategies (Waudby-Smith and
Ramdas 2023, Estimating means of bounded random variables by betting, appendix B.6, "grid Kelly").
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
_BETS = np.concatenate(
    [np.geomspace(0.005, 0.3, 24), np.linspace(0.35, 0.95, 8)]
)  # share of the largest bet that is safe
ROUNDS = 200


def losses(scores: Floats, chosen: np.ndarray, target: float) -> Floats:
    """Quality kept beyond the target, in points of score (n,): its mean is at least 0 where the promise holds.

    With eps = 1 - target, an escalated question gives eps * s, another w - (1 - eps) * s; s and w are the scores of the
    strong model and of the one chosen.
    """
    return np.asarray(picked(scores, chosen) - target * scores[:, -1])


def p_value(values: Floats, low: float) -> float:
    """Evidence against "the mean of `values` is at most 0", for independent values of at least `low` < 0.

    The wealth of a gambler who splits it over constant bets on the mean being above 0 is at most 1 in expectation, so
    one over it is a p-value (Markov), whatever the distribution.

    >>> p_value(np.full(200, 0.1), -1.0) < 1e-6
    True
    >>> p_value(np.array([0.5, -0.5] * 50), -1.0)
    1.0
    """
    if not len(values):
        return 1.0
    logs = np.log1p(np.outer(_BETS / -low, values)).sum(axis=1)
    return float(min(1.0, math.exp(-min(logsumexp(logs) - math.log(len(_BETS)), 700.0))))


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
        for step in range(len(self.grid)):
            tried = self.chosen(target, step)
            if p_value(losses(self.replay.scores, tried, target), -target) > 1 - confidence:
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

    The log of the wealth grows in proportion to the number of questions; the best bet's growth says when it is enough.
    """
    if not len(values):
        return None
    growth = float(np.log1p(np.outer(_BETS / -low, values)).mean(axis=1).max())
    needed = (math.log(len(_BETS)) - math.log(1 - confidence)) / growth if growth > 0 else math.inf
    return max(math.ceil(needed) - len(values), 1) if needed < 1e7 else None
