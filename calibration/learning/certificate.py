"""Choosing a threshold whose promise is certified, by Learn then Test.

A target is the share of the strong model's quality to keep. A threshold is the quality that a dollar must buy to send a
question to the strong model. For each threshold of a grid, ordered from always-strong to always-cheap, the null
hypothesis is that the policy keeps less than the target. Fixed-sequence testing rejects one hypothesis after the other
and stops at the first that it cannot reject, so the family-wise error is that of a single test (Angelopoulos et al.
2021, Learn then Test, section 3).

The test statistic is the quality kept beyond the target, by `intervals.lower_bound`. Every question serves for both
learning and testing: its prediction comes from a model that was fitted without it (`crossfit.py`).
`benchmarks/certificate.py` measures how often a promise is violated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from calibration.learning.corpus import Ints
from calibration.learning.intervals import (
    CONFIDENCE,
    STANDARD_ERROR_INFLATION,
    bootstrap,
    clustered_mean,
    clustered_means,
    lower_bound,
    student_quantile,
)
from calibration.learning.ranking import saved_share
from calibration.learning.replay import Replay, Thresholds, pick_columns
from calibration.outcomes import question_types
from router.policy.rules import Interval, Promise, Rule, Rules
from router.policy.vocabulary import Floats

TARGETS = (0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)
GRID_STEPS = 200
BOOTSTRAP_ROUNDS = 200
RESPLITS = 100  # random halves that estimate how often an expected promise is violated
MAX_QUESTIONS = 1e6  # a target that needs more questions than this is reported as out of reach
USEFUL_SAVING = 0.05  # share of the strong model's cost; more questions are not suggested for a smaller saving
TYPE_MARGIN = 0.03  # by which a type may keep less than the target
TYPE_CONFIDENCE = 0.9  # at which a type must be shown to keep too little before its threshold is limited
MIN_TYPE_QUESTIONS = 10  # of a type that is examined by itself


def excess_quality(scores: Floats, chosen: Ints, target: float) -> Floats:
    """The quality kept beyond the target, in points of score (n,). The promise holds if its mean is at least 0."""
    return np.asarray(pick_columns(scores, chosen) - target * scores[:, -1])


@dataclass(frozen=True, slots=True)
class FixedSequenceTest:
    """Tests the thresholds of every target on replayed outcomes.

    The promise must hold twice: for new questions (`replay`, cross-fitted), and for questions of the calibration that
    users ask again (`in_sample`). The policy's predictor has learnt from the latter, so it is more certain of their
    types and sends more of them to the cheap model at the same threshold.
    """

    rules: Rules
    replay: Replay  # predictions by models that were fitted without the question
    in_sample: Replay  # the same questions, predicted by the policy's predictor, which was fitted on all of them
    groups: Ints  # (n,) near-duplicates share a number
    confidence: float = CONFIDENCE
    margin: float = TYPE_MARGIN

    def grid(self, target: float) -> Floats:
        """The thresholds from always-strong to always-cheap, evenly spaced in the share of cheap questions."""
        return _threshold_grid(self.replay.switch_thresholds(self.rules, target))

    def certify(self, targets: Sequence[float], seed: int, promise: Promise = Promise.CERTIFIED) -> list[Rule]:
        """For each target, the rule with the cheapest threshold that is certified (or expected) to keep it."""
        types, in_sample_types = self.replay.question_types, self.in_sample.question_types
        thresholds = self.replay.thresholds(self.rules, targets)
        in_sample = self.in_sample.thresholds(self.rules, targets)
        return [
            TargetTest(self, target, of_target, in_sample_of_target, types, in_sample_types).certify(seed, promise)
            for target, of_target, in_sample_of_target in zip(targets, thresholds, in_sample, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class TargetTest:
    """The sequence of hypotheses of one target."""

    sequence: FixedSequenceTest
    target: float
    thresholds: Thresholds
    in_sample: Thresholds
    types: np.ndarray  # (n,) predicted type of each question
    in_sample_types: np.ndarray  # (n,)

    def certify(self, seed: int, promise: Promise) -> Rule:
        """The rule with the cheapest threshold that is certified (or expected) to keep the target."""
        grid = _threshold_grid(self.thresholds.switch_thresholds)
        type_limits = self._type_limits(grid)
        served_limits = self._limits_for_serving(type_limits)
        tests = self._tests(grid, type_limits, served_limits)
        step, certified = min(map(self._last_certified_step, tests)), True
        if promise is Promise.EXPECTED and (expected := min(map(_last_step_kept, tests))) > step:
            step, certified = expected, False
        n, confidence = len(self.sequence.groups), self.sequence.confidence
        more = self._questions_needed(tests[0]) if step < 0 or not certified else None
        if step < 0:
            return Rule(self.target, None, False, n, confidence, Interval(0.0, 0.0, 0.0), more)
        chosen, costs = tests[0].choose(step), self.sequence.replay.costs_usd
        spent, threshold = pick_columns(costs, chosen), float(grid[step])
        return Rule(
            target=self.target,
            quality_per_usd=threshold,
            certified=certified,
            n=n,
            confidence=confidence,
            expected_saving=bootstrap(
                lambda rows: saved_share(spent[rows], costs[rows, -1]), self.sequence.groups, BOOTSTRAP_ROUNDS, seed
            ),
            more_questions_needed=more,
            type_limits={name: served_limits[name] for name, limit in type_limits.items() if limit < threshold},
            falls_short=None if certified else _resplit_miss_rate(list(tests[0]), self.sequence.groups, seed),
            kept_by_type=self._kept_by_type(chosen),
        )

    def _tests(
        self, grid: Floats, type_limits: Mapping[str, float], served_limits: Mapping[str, float]
    ) -> tuple[_ExcessQuality, _ExcessQuality, _ExcessQuality]:
        """The three tests that a threshold has to pass.

        They are: with the limits of types; without limits, so that what a limited type keeps does not compensate for
        losses of the others; and with limits on questions of the calibration that users ask again.
        """
        replay, in_sample = self.sequence.replay, self.sequence.in_sample
        limits = np.array([type_limits.get(name, np.inf) for name in self.types])
        in_sample_limits = np.array([served_limits.get(name, np.inf) for name in self.in_sample_types])
        unlimited = np.full(len(limits), np.inf)
        return (
            _ExcessQuality(grid, limits, self.thresholds, replay.scores, self.target),
            _ExcessQuality(grid, unlimited, self.thresholds, replay.scores, self.target),
            _ExcessQuality(grid, in_sample_limits, self.in_sample, in_sample.scores, self.target),
        )

    def _last_certified_step(self, test: _ExcessQuality) -> int:
        """The last step before the first hypothesis that is not rejected; -1 if that is the first one."""
        step = -1
        for step, values in enumerate(test):
            if lower_bound(values, self.sequence.groups, -self.target, self.sequence.confidence) < 0:
                return step - 1
        return step

    def _type_limits(self, grid: Floats) -> dict[str, float]:
        """For each type that would likely keep less than the target minus the margin: its largest threshold."""
        scores, groups, least = self.sequence.replay.scores, self.sequence.groups, self.target - self.sequence.margin
        chosen = np.empty((len(grid), len(self.types)), dtype=np.uint8)
        for step, threshold in enumerate(grid):
            chosen[step] = self.thresholds.choose(np.full(len(self.types), threshold))
        limits = {}
        for name in np.unique(self.types):
            rows = np.flatnonzero(self.types == name)
            if len(rows) < MIN_TYPE_QUESTIONS or not len(grid):
                continue
            values = scores[rows, chosen[:, rows]] - least * scores[rows, -1]
            means, errors = clustered_means(values, groups[rows])
            kept = np.flatnonzero(means + student_quantile(TYPE_CONFIDENCE, len(rows) - 1) * errors >= 0)
            step = kept[-1] if len(kept) else -1
            if step < len(grid) - 1:
                limits[str(name)] = float(grid[step]) if step >= 0 else float(grid[0]) - 1.0
        return limits

    def _limits_for_serving(self, limits: Mapping[str, float]) -> dict[str, float]:
        """The limits of types on the scale of the policy's predictor.

        A limit divides the questions of one type, whose thresholds are close together and differ from fit to fit. So
        the conversion keeps the share of them that goes to the cheap model.
        """
        cross_fitted, served = self.thresholds.switch_thresholds, self.in_sample.switch_thresholds
        finite = np.isfinite(cross_fitted) & np.isfinite(served)
        converted = dict(limits)
        for name, limit in limits.items():
            rows = finite & (self.types == name)
            if rows.any():
                converted[name] = float(np.quantile(served[rows], (cross_fitted[rows] <= limit).mean()))
        return converted

    def _kept_by_type(self, chosen: Ints) -> dict[str, Interval]:
        """The share of the strong model's quality that each recorded type keeps, with its 95 % interval."""
        scores, groups = self.sequence.replay.scores, self.sequence.groups
        types = np.array(question_types(self.sequence.replay.outcomes))
        kept: dict[str, Interval] = {}
        for name in np.unique(types):
            rows = np.flatnonzero(types == name)
            strong = float(scores[rows, -1].sum())
            if len(rows) < MIN_TYPE_QUESTIONS or not strong:
                continue
            share = float(pick_columns(scores[rows], chosen[rows]).sum()) / strong
            _, error, clusters = clustered_mean(excess_quality(scores[rows], chosen[rows], share), groups[rows])
            half = student_quantile(0.975, max(clusters - 1, 1)) * error * len(rows) / strong
            kept[str(name)] = Interval(max(share - half, 0.0), share, share + half)
        return kept

    def _questions_needed(self, test: _ExcessQuality) -> int | None:
        """How many more questions would certify a useful saving; None where more questions are not expected to."""
        n, needed = len(self.sequence.groups), math.inf
        costs = self.sequence.replay.costs_usd
        quantile = float(special.ndtri(self.sequence.confidence)) * STANDARD_ERROR_INFLATION
        for step, values in enumerate(test):
            if saved_share(pick_columns(costs, test.choose(step)), costs[:, -1]) < USEFUL_SAVING:
                continue
            mean, error, _ = clustered_mean(values, self.sequence.groups)
            if mean > 0:
                needed = min(needed, n * (quantile * error / mean) ** 2 + self.target / mean)
        return max(math.ceil(needed) - n, 1) if needed < MAX_QUESTIONS else None


@dataclass(frozen=True, slots=True)
class _ExcessQuality:
    """The excess quality (n,) at each threshold of a grid. Each step is computed when it is reached."""

    grid: Floats
    limits: Floats  # (n,) the largest threshold of each question
    thresholds: Thresholds
    scores: Floats
    target: float

    def __iter__(self) -> Iterator[Floats]:
        return (excess_quality(self.scores, self.choose(step), self.target) for step in range(len(self.grid)))

    def choose(self, step: int) -> Ints:
        """The column of the chosen model for each question (n,)."""
        return self.thresholds.choose(np.minimum(self.grid[step], self.limits))


def _threshold_grid(switch_thresholds: Floats) -> Floats:
    finite = switch_thresholds[np.isfinite(switch_thresholds)]
    if not len(finite):
        return np.zeros(0)
    return np.unique(np.quantile(finite, np.linspace(0, 1, GRID_STEPS + 1)[1:]) + 1e-9)


def _last_step_kept(steps: Iterable[Floats]) -> int:
    """The last step before the first whose mean excess quality is below 0; -1 if that is the first one."""
    step = -1
    for step, values in enumerate(steps):
        if values.mean() < 0:
            return step - 1
    return step


def _resplit_miss_rate(steps: list[Floats], groups: Ints, seed: int) -> float:
    """How often the threshold that is expected to keep the target on one half of the questions misses it on the other.

    The halves are random and keep groups together.
    """
    rng = np.random.default_rng(seed)
    names, places = np.unique(groups, return_inverse=True)
    misses = 0
    for _ in range(RESPLITS):
        half = (rng.permutation(len(names)) < len(names) / 2)[places]
        step = _last_step_kept(values[half] for values in steps)
        misses += bool(step >= 0 and steps[step][~half].mean() < 0)
    return misses / RESPLITS
