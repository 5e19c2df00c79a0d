"""What a policy would have done on recorded outcomes: its decisions, with their quality and cost.

The decisions come from `router.policy.decision.decide`, the function that the proxy calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from calibration.learning.corpus import Ints
from calibration.learning.examples import read_features
from calibration.learning.predictions import compute_table
from calibration.outcomes import Outcome, Result
from router.policy.decision import Decision, benefit_lines, decide, quality_per_usd_needed
from router.policy.expected_cost import expected_cost_usd
from router.policy.features import Features
from router.policy.prediction import Prediction, Predictor, predict
from router.policy.rules import Model, Rule, Rules
from router.policy.usage import Usage
from router.policy.vocabulary import Floats


@dataclass(frozen=True, slots=True)
class Replay:
    """Outcomes with the predictions of their questions: n questions, M models from cheap to strong."""

    outcomes: Sequence[Outcome]
    features: Sequence[Features]
    predictions: Sequence[Prediction]
    scores: Floats  # (n, M)
    costs_usd: Floats  # (n, M) from the recorded tokens; expected costs where tokens were not recorded
    models: tuple[Model, ...]

    @property
    def gaps(self) -> Floats:
        """The predicted quality of the strong model minus that of the cheap one (n,): the rank for escalation."""
        cheap, strong = self.models[0].name, self.models[-1].name
        return np.array([p.quality[strong] - p.quality[cheap] for p in self.predictions])

    @property
    def question_types(self) -> np.ndarray:
        """The predicted type of each question (n,)."""
        return self.type_predictions[0]

    @property
    def type_predictions(self) -> tuple[np.ndarray, Floats]:
        """The predicted type of each question (n,), and its probability (n,)."""
        types, probabilities = zip(*map(_type_and_probability, self.predictions), strict=True)
        return np.array(types), np.array(probabilities)

    def thresholds(self, rules: Rules, targets: Sequence[float]) -> list[Thresholds]:
        """For each target, the thresholds at which each question changes its model."""
        row = _threshold_row if len(self.models) == 2 else _lines_row
        table = compute_table(self.features, self.predictions, partial(row, rules, tuple(targets)))
        by_target = table.reshape(len(table), len(targets), -1)
        return [Thresholds(np.ascontiguousarray(by_target[:, at]), len(self.models)) for at in range(len(targets))]

    def switch_thresholds(self, rules: Rules, target: float) -> Floats:
        """The threshold from which each question goes to a cheaper model (n,): the rank for escalation by cost.

        Infinite where the question always stays with the strong model; minus infinite where published results alone
        send it to a cheaper one.
        """
        return self.thresholds(rules, [target])[0].switch_thresholds

    def decisions(self, rules: Rules, target: float) -> list[Decision]:
        """The proxy's decision on each question."""
        return [decide(rules, f, p, target) for f, p in zip(self.features, self.predictions, strict=True)]

    def choose(self, rules: Rules, target: float) -> Ints:
        """The column of the model that the proxy decides on, for each question (n,)."""
        column = {model.name: i for i, model in enumerate(self.models)}
        return np.array([column[decision.model] for decision in self.decisions(rules, target)])

    def chooser(self, rules: Rules, target: float) -> Callable[[Floats], Ints]:
        """The same as a function of a threshold for each question (n,), certified or not."""
        return self.thresholds(rules, [target])[0].choose


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How the chosen model of each question depends on the threshold (quality per dollar), at one target."""

    table: Floats  # two models: (n, 1) switch thresholds; more: (n, 2 M) slopes and offsets of `lines_of_worth`
    models: int

    @property
    def switch_thresholds(self) -> Floats:
        """The threshold from which each question goes to a cheaper model than the strong one (n,)."""
        if self.models == 2:
            return self.table[:, 0]
        slopes, offsets = self.table[:, : self.models], self.table[:, self.models :]
        switches = np.divide(offsets, slopes, out=np.full_like(offsets, np.inf), where=slopes > 0)
        return np.where(np.isneginf(offsets).any(axis=1), -np.inf, switches.min(axis=1))

    def choose(self, quality_per_usd: Floats) -> Ints:
        """The column of the chosen model (n,) at a threshold for each question (n,)."""
        if self.models == 2:
            return np.where(self.table[:, 0] <= quality_per_usd, 0, 1)
        # columns are reversed, so that argmax returns the stronger one of equally good models
        slopes, offsets = self.table[:, self.models - 1 :: -1], self.table[:, : self.models - 1 : -1]
        return np.asarray(self.models - 1 - np.argmax(quality_per_usd[:, None] * slopes - offsets, axis=1))


def largest_thresholds(rule: Rule, question_types: np.ndarray) -> Floats:
    """The threshold at which a rule chooses the model of each question (n,): its own, or a lower limit of the type."""
    assert rule.quality_per_usd is not None
    limits = [rule.type_limits.get(str(name), np.inf) for name in question_types]
    return np.minimum(rule.quality_per_usd, limits)


def _threshold_row(rules: Rules, targets: Sequence[float], features: Features, prediction: Prediction) -> list[float]:
    return _repeat_for_targets(
        lambda t: [quality_per_usd_needed(rules, features, prediction, t)], rules, targets, prediction
    )


def _lines_row(rules: Rules, targets: Sequence[float], features: Features, prediction: Prediction) -> list[float]:
    def slopes_and_offsets(target: float) -> list[float]:
        slopes, offsets = benefit_lines(rules, features, prediction, target)
        return slopes + offsets

    return _repeat_for_targets(slopes_and_offsets, rules, targets, prediction)


def _repeat_for_targets(
    values: Callable[[float], list[float]], rules: Rules, targets: Sequence[float], prediction: Prediction
) -> list[float]:
    """The values at each target. They depend on the target only for a type whose evidence is published results."""
    if rules.evidence_of(prediction.question_type).is_results_only:
        return [value for target in targets for value in values(target)]
    return values(targets[0]) * len(targets)


def _type_and_probability(prediction: Prediction) -> tuple[str, float]:
    name = prediction.question_type
    return name, prediction.type_probabilities[name]


def replay_outcomes(outcomes: Sequence[Outcome], predictor: Predictor, models: Sequence[Model]) -> Replay:
    """Predict every question of `outcomes` as the proxy does."""
    features = read_features(outcomes)
    return build_replay(outcomes, features, [predict(predictor, f) for f in features], models)


def build_replay(
    outcomes: Sequence[Outcome],
    features: Sequence[Features],
    predictions: Sequence[Prediction],
    models: Sequence[Model],
) -> Replay:
    """A replay from outcomes and their predictions."""
    costs_usd = np.array([[_cost_usd(m, o.results[m.name]) for m in models] for o in outcomes])
    if np.isnan(costs_usd).any():
        expected = compute_table(features, predictions, partial(_expected_costs, tuple(models)))
        costs_usd = np.where(np.isnan(costs_usd), expected, costs_usd)
    return Replay(
        outcomes=outcomes,
        features=features,
        predictions=predictions,
        scores=np.array([[o.results[m.name].score for m in models] for o in outcomes]),
        costs_usd=costs_usd,
        models=tuple(models),
    )


def _cost_usd(model: Model, result: Result) -> float:
    """The cost of the recorded tokens; NaN where they were not recorded."""
    if result.input_tokens is None or result.output_tokens is None:
        return math.nan
    return model.price.cost_usd(Usage(input_tokens=result.input_tokens, output_tokens=result.output_tokens))


def _expected_costs(models: Sequence[Model], features: Features, prediction: Prediction) -> list[float]:
    return [expected_cost_usd(model, features, prediction) for model in models]


def pick_columns(table: Floats, chosen: Ints) -> Floats:
    """The entry of the chosen column in each row (n,); `table` is (n, M), `chosen` (n,)."""
    return np.asarray(table[np.arange(len(table)), chosen])


def baseline_choices(replay: Replay) -> Mapping[str, Ints]:
    """The choices that routing is compared with: always the cheap model, always the strong one, and the oracle.

    The oracle takes the cheapest of the models with the best score of each question.
    """
    n = len(replay.outcomes)
    best = replay.scores.max(axis=1, keepdims=True)
    return {
        "always_cheap": np.zeros(n, dtype=np.int64),
        "always_strong": np.full(n, len(replay.models) - 1, dtype=np.int64),
        "oracle": np.argmin(np.where(replay.scores == best, replay.costs_usd, np.inf), axis=1),
    }
