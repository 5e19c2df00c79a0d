"""How a threshold is chosen so that its promise holds: Learn then Test, on questions that also teach.

A target is the share of the strong model's quality to keep. Every question is decided on by what was learnt without it
(`crossfit.py`), at each threshold of a grid that is walked from always-strong to always-cheap. The walk stops at the
first threshold that cannot be shown to keep the target. Fixed-sequence testing makes the error of the whole walk that
of one test (Angelopoulos et al. 2021, Learn then Test, section 3).

The test is Student's on the quality kept beyond the target. It is approximate. Errors of cross-validation are larger
than a sample of independent questions would have, since the folds learn from each other's questions (Bates, Hastie and
Tibshirani 2023, Cross-validation: what does it estimate, section 4), so the standard error is multiplied by SPREAD.
Student's test promises too much where values are skewed (Johnson 1978, Modified t tests): few questions lose much, and
none may have lost anything yet. So one more question is counted that loses the more, the less others gain.
`benchmarks/certificate.py` measures how often a promise is violated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from calibration.learning.corpus import Ints
from calibration.learning.replay import Replay, Worth, bootstrap, picked
from router.policy.decision import Interval, Promise, Rule, Rules
from router.policy.vocabulary import Floats

CONFIDENCE = 0.95
TARGETS = (0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)
STEPS = 100
LOSSES_ASSUMED = 4.0  # questions that lose everything, before it is told that others gain
SPREAD = 1.1  # of the error of cross-fitted quality, against that of independent questions
ROUNDS = 200
MOST_QUESTIONS = 1e6  # a target that needs more is not worth asking for
USEFUL_SAVING = 0.05  # share of the strong model's dollars; a target that saves less is not worth more questions
TYPE_MARGIN = 0.03  # by which a type may keep less than the target
LIKELY = 0.9  # how probable it is that a type keeps less, before it is limited
MIN_TYPE_QUESTIONS = 10  # fewer say nothing of a type by themselves
_SHARES = 100  # resplits that tell how often an expected promise falls short


def losses(scores: Floats, chosen: Ints, target: float) -> Floats:
    """Quality kept beyond the target, in points of score (n,): its mean is at least 0 where the promise holds."""
    return np.asarray(picked(scores, chosen) - target * scores[:, -1])


def student(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution: as `scipy.stats.t.ppf` gives it, in a sixtieth of its time.

    >>> round(student(0.975, 10), 3)
    2.228
    """
    return float(special.stdtrit(freedom, probability))


def lower_bound(values: Floats, groups: Ints, low: float, confidence: float = CONFIDENCE) -> float:
    """The mean of `values` that is shown at this confidence, approximately; near-duplicates count as one question.

    `low` is the least that a value can be.

    >>> groups = np.arange(200)
    >>> lower_bound(np.full(200, 0.03), groups, -0.97) > 0, lower_bound(np.full(200, 0.0), groups, -0.97) > 0
    (True, False)
    """
    if len(values) < 2:
        return low
    more = np.append(values, low * _one_sided(values, low))
    mean, error, clusters = _mean_and_error(more, np.append(groups, groups.max() + 1))
    return mean - student(confidence, clusters - 1) * SPREAD * error


def _one_sided(values: Floats, low: float) -> float:
    """How much larger losses are than gains, from 0 (as large) to 1 (nothing is gained), by the cubes of their sizes.

    LOSSES_ASSUMED count as losses before any is seen. With them the error of the test is at most 5 % in simulations of
    targets from 90 to 98 %, 100 to 1,600 questions, and shares of losses and gains from none to many.
    """
    cubes, assumed = values**3, LOSSES_ASSUMED * -(low**3)
    return max(assumed - float(cubes.sum()), 0.0) / (assumed + float(np.abs(cubes).sum()))


def _mean_and_error(values: Floats, groups: Ints) -> tuple[float, float, int]:
    """The mean, its standard error with groups as clusters, and how many clusters there are."""
    mean = float(values.mean())
    totals = np.bincount(_places(groups), values - mean)
    clusters = len(totals)
    error = math.sqrt(float(totals @ totals) * clusters / max(clusters - 1, 1)) / len(values)
    return mean, error, clusters


def _places(groups: Ints) -> Ints:
    """The groups numbered without gaps, in their order; to sort them takes longer than to see that they are."""
    if np.bincount(groups).all():
        return groups
    return np.unique(groups, return_inverse=True)[1]


@dataclass(frozen=True, slots=True)
class Walk:
    """Every threshold of a grid on questions that are predicted by what was learnt without them.

    Where users ask what was asked in the calibration, the predictor that serves knows more: it is surer of their types,
    so that more goes cheap at the same price. The promise has to hold for them too.
    """

    rules: Rules
    replay: Replay
    known: Replay  # the same questions, predicted by what was learnt from all of them
    groups: Ints  # (n,) near-duplicates share a number
    confidence: float = CONFIDENCE
    margin: float = TYPE_MARGIN

    def grid(self, target: float) -> Floats:
        """Prices of quality from always-strong to always-cheap, even in the share of questions that go cheap."""
        return _grid(self.replay.needed(self.rules, target))

    def all_rules(self, targets: Sequence[float], seed: int, promise: Promise = Promise.CERTIFIED) -> list[Rule]:
        """For each target the cheapest threshold that keeps it, shown or expected, with what it saves."""
        types, known_types = self.replay.question_types, self.known.question_types
        of_targets = zip(
            targets, self.replay.worth(self.rules, targets), self.known.worth(self.rules, targets), strict=True
        )
        return [
            Steps(self, target, worth, known, types, known_types).rule(seed, promise)
            for target, worth, known in of_targets
        ]


@dataclass(frozen=True, slots=True)
class Steps:
    """The walk of one target. What is kept at a step is computed when it is looked at: a step has n numbers."""

    walk: Walk
    target: float
    worth: Worth
    known: Worth
    types: np.ndarray  # (n,) that the questions are taken for
    known_types: np.ndarray

    def rule(self, seed: int, promise: Promise) -> Rule:
        """The cheapest threshold that keeps the target, shown or expected, with what it saves."""
        walk, target, grid = self.walk, self.target, _grid(self.worth.needed)
        limits = self._type_limits(grid)
        served = self._as_served(limits)
        limit = np.array([limits.get(name, np.inf) for name in self.types])
        limit_served = np.array([served.get(name, np.inf) for name in self.known_types])
        kept = _Kept(grid, limit, self.worth, walk.replay.scores, target)
        # what a limited type does not lose is no licence for others to lose more: the walk must hold without limits too
        without = _Kept(grid, np.full(len(limit), np.inf), self.worth, walk.replay.scores, target)
        # and where users ask what was asked in the calibration
        seen = _Kept(grid, limit_served, self.known, walk.known.scores, target)
        passed = min(self._certified(each) for each in (kept, without, seen))
        kind = Promise.CERTIFIED
        if promise is Promise.EXPECTED and (wished := min(map(_expected, (kept, without, seen)))) > passed:
            passed, kind = wished, Promise.EXPECTED
        n, more = len(walk.groups), None
        if passed < 0 or kind is Promise.EXPECTED:
            more = self._questions_needed(kept)
        if passed < 0:
            return Rule(target, None, False, n, walk.confidence, Interval(0.0, 0.0, 0.0), more)
        chosen, costs = kept.chosen(passed), walk.replay.costs_usd
        spent, price = picked(costs, chosen), float(grid[passed])
        return Rule(
            target=target,
            quality_per_usd=price,
            certified=kind is Promise.CERTIFIED,
            n=n,
            confidence=walk.confidence,
            expected_saving=bootstrap(
                lambda rows: 1 - spent[rows].sum() / costs[rows, -1].sum(), walk.groups, ROUNDS, seed
            ),
            more_questions_needed=more,
            type_limits={name: served[name] for name, limit in limits.items() if limit < price},
            falls_short=_falls_short(list(kept), walk.groups, seed) if kind is Promise.EXPECTED else None,
            kept_by_type=self._kept_by_type(chosen),
        )

    def _certified(self, kept: _Kept) -> int:
        """The last step of the walk that is shown to keep the target; -1 where the first is not."""
        step = -1
        for step, values in enumerate(kept):
            if lower_bound(values, self.walk.groups, -self.target, self.walk.confidence) < 0:
                return step - 1
        return step

    def _type_limits(self, grid: Floats) -> dict[str, float]:
        """By type, the price of quality from which on it would likely keep less than the target less the margin."""
        rows = {str(name): np.flatnonzero(self.types == name) for name in np.unique(self.types)}
        rows = {name: mine for name, mine in rows.items() if len(mine) >= MIN_TYPE_QUESTIONS}
        likely = {name: student(LIKELY, max(len(mine) - 1, 1)) for name, mine in rows.items()}
        keeping = dict.fromkeys(rows, -1)
        scores, least = self.walk.replay.scores, self.target - self.walk.margin
        for step, price in enumerate(grid):
            chosen = self.worth.chosen(np.full(len(self.types), price))
            for name, mine in rows.items():
                mean, error, _ = _mean_and_error(losses(scores[mine], chosen[mine], least), self.walk.groups[mine])
                if mean + likely[name] * error >= 0:
                    keeping[name] = step
        return {
            name: float(grid[step]) if step >= 0 else float(grid[0]) - 1.0
            for name, step in keeping.items()
            if step < len(grid) - 1
        }

    def _as_served(self, limits: Mapping[str, float]) -> dict[str, float]:
        """The limits of types on the scale of the predictor that serves.

        A limit cuts through the questions of one type, whose prices lie close together and which each fit places
        elsewhere: the share of them that goes cheap stays.
        """
        before, after = self.worth.needed, self.known.needed
        both = np.isfinite(before) & np.isfinite(after)
        served = dict(limits)
        for name, limit in limits.items():
            mine = both & (self.types == name)
            if mine.any():
                served[name] = float(np.quantile(after[mine], (before[mine] <= limit).mean()))
        return served

    def _kept_by_type(self, chosen: Ints) -> dict[str, Interval]:
        """The share of the strong model's quality that each recorded type keeps, with its interval."""
        scores, groups = self.walk.replay.scores, self.walk.groups
        types = np.array([outcome.question_type or "unknown" for outcome in self.walk.replay.outcomes])
        kept: dict[str, Interval] = {}
        for name in np.unique(types):
            mine = np.flatnonzero(types == name)
            strong = float(scores[mine, -1].sum())
            if len(mine) < MIN_TYPE_QUESTIONS or not strong:
                continue
            share = float(picked(scores[mine], chosen[mine]).sum()) / strong
            _, error, clusters = _mean_and_error(losses(scores[mine], chosen[mine], share), groups[mine])
            half = student(0.975, max(clusters - 1, 1)) * error * len(mine) / strong
            kept[str(name)] = Interval(max(share - half, 0.0), share, share + half)
        return kept

    def _questions_needed(self, kept: _Kept) -> int | None:
        """How many more questions like these would certify a useful saving; None where more of the same would not."""
        n, needed = len(self.walk.groups), math.inf
        costs = self.walk.replay.costs_usd
        quantile = float(special.ndtri(self.walk.confidence)) * SPREAD
        for step, values in enumerate(kept):
            if 1 - picked(costs, kept.chosen(step)).sum() / costs[:, -1].sum() < USEFUL_SAVING:
                continue
            mean, error, _ = _mean_and_error(values, self.walk.groups)
            if mean > 0:
                needed = min(needed, n * (quantile * error / mean) ** 2 + self.target / mean)
        return max(math.ceil(needed) - n, 1) if needed < MOST_QUESTIONS else None


@dataclass(frozen=True, slots=True)
class _Kept:
    """What each price of a grid keeps beyond the target, with limits on the price of each question (n,)."""

    grid: Floats
    limit: Floats
    worth: Worth
    scores: Floats
    target: float

    def __iter__(self) -> Iterator[Floats]:
        return (losses(self.scores, self.chosen(step), self.target) for step in range(len(self.grid)))

    def chosen(self, step: int) -> Ints:
        return self.worth.chosen(np.minimum(self.grid[step], self.limit))


def _grid(needed: Floats) -> Floats:
    finite = needed[np.isfinite(needed)]
    if not len(finite):
        return np.zeros(0)
    return np.unique(np.quantile(finite, np.linspace(0, 1, STEPS + 1)[1:]) + 1e-9)


def _expected(kept: _Kept) -> int:
    """The last step of the walk before the first that is not expected to keep the target."""
    return _last_kept(iter(kept))


def _last_kept(kept: Iterator[Floats]) -> int:
    step = -1
    for step, values in enumerate(kept):
        if values.mean() < 0:
            return step - 1
    return step


def _falls_short(kept: list[Floats], groups: Ints, seed: int) -> float:
    """How often the threshold that is expected to keep the target on one half of the questions fails on the other."""
    rng = np.random.default_rng(seed)
    names, places = np.unique(groups, return_inverse=True)
    missed = 0
    for _ in range(_SHARES):
        half = (rng.permutation(len(names)) < len(names) / 2)[places]
        step = _last_kept(values[half] for values in kept)
        missed += bool(step >= 0 and kept[step][~half].mean() < 0)
    return missed / _SHARES
