"""What a policy would have done on outcomes that are known: its decisions, their quality and cost, and the baselines.

Decisions come from `router.policy.decision.decide`, the line that the proxy runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from calibration.learning.corpus import Ints
from calibration.learning.examples import read_features
from calibration.learning.predictions import Predictions, table_of
from calibration.outcomes import Outcome, Result
from router.policy.decision import (
    Decision,
    Interval,
    Model,
    Rules,
    decide,
    expected_cost_usd,
    lines_of_worth,
    quality_per_usd_needed,
    stands_alone,
)
from router.policy.features import Features
from router.policy.prediction import Prediction, Predictor, predict
from router.policy.usage import Usage
from router.policy.vocabulary import Floats


@dataclass(frozen=True, slots=True)
class Replay:
    """Outcomes with what the predictor says of them: n questions, M models from cheap to strong."""

    outcomes: Sequence[Outcome]
    features: Sequence[Features]
    predictions: Sequence[Prediction]
    scores: Floats  # (n, M)
    costs_usd: Floats  # (n, M) from the recorded tokens; expected dollars where they are unknown
    models: tuple[Model, ...]

    @property
    def gaps(self) -> Floats:
        """What the strong model is expected to add on each question (n,): the rank of escalation."""
        cheap, strong = self.models[0].name, self.models[-1].name
        return np.array([p.quality[strong] - p.quality[cheap] for p in self.predictions])

    @property
    def question_types(self) -> np.ndarray:
        """What type each question is taken for (n,)."""
        return self.types_told[0]

    @property
    def types_told(self) -> tuple[np.ndarray, Floats]:
        """What type each question is taken for (n,), and how probable that is (n,)."""
        types = self._types()
        told = table_of(self.features, self.predictions, partial(_type_told, types))
        return np.array(types)[told[:, 0].astype(np.int64)], told[:, 1]

    def _types(self) -> list[str]:
        """All types that a question may be taken for."""
        if isinstance(self.predictions, Predictions):
            return self.predictions.types
        return sorted({prediction.question_type for prediction in self.predictions})

    def worth(self, rules: Rules, targets: Sequence[float]) -> list[Worth]:
        """At each target, at which price of quality which model is chosen for each question."""
        row = _needed if len(self.models) == 2 else _lines
        table = table_of(self.features, self.predictions, partial(row, rules, tuple(targets)))
        each = table.reshape(len(table), len(targets), -1)
        return [Worth(np.ascontiguousarray(each[:, at]), len(self.models)) for at in range(len(targets))]

    def needed(self, rules: Rules, target: float) -> Floats:
        """The quality per dollar from which on each question leaves the strong model (n,): the rank by dollars.

        Infinite where it never does, and minus infinite where published results alone send it to a cheaper one.
        """
        return self.worth(rules, [target])[0].needed

    def decisions(self, rules: Rules, target: float) -> list[Decision]:
        """The proxy's decision on each question."""
        return [decide(rules, f, p, target) for f, p in zip(self.features, self.predictions, strict=True)]

    def chosen(self, rules: Rules, target: float) -> Ints:
        """The column of the model decided on, for each question (n,)."""
        column = {model.name: i for i, model in enumerate(self.models)}
        return np.array([column[decision.model] for decision in self.decisions(rules, target)])

    def choices(self, rules: Rules, target: float) -> Callable[[Floats], Ints]:
        """The same as a function of the price of quality of each question (n,), which no certificate stands behind."""
        return self.worth(rules, [target])[0].chosen


@dataclass(frozen=True, slots=True)
class Worth:
    """What a dollar must buy for each question to leave the strong model, at one target."""

    table: Floats  # (n, 1) the price needed, of two models; else (n, 2 M) the slopes and offsets of `lines_of_worth`
    models: int

    @property
    def needed(self) -> Floats:
        """The quality per dollar from which on each question leaves the strong model (n,)."""
        if self.models == 2:
            return self.table[:, 0]
        slopes, offsets = self.table[:, : self.models], self.table[:, self.models :]
        prices = np.divide(offsets, slopes, out=np.full_like(offsets, np.inf), where=slopes > 0)
        return np.where(np.isneginf(offsets).any(axis=1), -np.inf, prices.min(axis=1))

    def chosen(self, quality_per_usd: Floats) -> Ints:
        """The column of the model that is chosen at a price of quality for each question (n,)."""
        if self.models == 2:
            return np.where(self.table[:, 0] <= quality_per_usd, 0, 1)
        # of equal worth the stronger model is taken
        slopes, offsets = self.table[:, self.models - 1 :: -1], self.table[:, : self.models - 1 : -1]
        return np.asarray(self.models - 1 - np.argmax(quality_per_usd[:, None] * slopes - offsets, axis=1))


def _needed(rules: Rules, targets: Sequence[float], features: Features, prediction: Prediction) -> list[float]:
    return _at_targets(lambda t: [quality_per_usd_needed(rules, features, prediction, t)], rules, targets, prediction)


def _lines(rules: Rules, targets: Sequence[float], features: Features, prediction: Prediction) -> list[float]:
    def slopes_and_offsets(target: float) -> list[float]:
        slopes, offsets = lines_of_worth(rules, features, prediction, target)
        return slopes + offsets

    return _at_targets(slopes_and_offsets, rules, targets, prediction)


def _at_targets(
    values: Callable[[float], list[float]], rules: Rules, targets: Sequence[float], prediction: Prediction
) -> list[float]:
    """Values at each target; they depend on it only where results are all that is known of the type."""
    if stands_alone(rules.evidence_of(prediction.question_type)):
        return [value for target in targets for value in values(target)]
    return values(targets[0]) * len(targets)


def _type_told(types: Sequence[str], _: Features, prediction: Prediction) -> tuple[float, float]:
    name = prediction.question_type
    return types.index(name), prediction.type_probabilities[name]


def replayed(outcomes: Sequence[Outcome], predictor: Predictor, models: Sequence[Model]) -> Replay:
    """Predict every question of `outcomes` as the proxy would."""
    features = read_features(outcomes)
    return replay_of(outcomes, features, [predict(predictor, f) for f in features], models)


def replay_of(
    outcomes: Sequence[Outcome],
    features: Sequence[Features],
    predictions: Sequence[Prediction],
    models: Sequence[Model],
) -> Replay:
    """Outcomes with predictions that are there already."""
    costs_usd = np.array([[_cost_usd(m, o.results[m.name]) for m in models] for o in outcomes])
    if np.isnan(costs_usd).any():
        expected = table_of(features, predictions, partial(_expected_costs, tuple(models)))
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
    """Dollars by the recorded tokens; NaN where they are unknown."""
    if result.input_tokens is None or result.output_tokens is None:
        return math.nan
    return model.price.cost_usd(Usage(input_tokens=result.input_tokens, output_tokens=result.output_tokens))


def _expected_costs(models: Sequence[Model], features: Features, prediction: Prediction) -> list[float]:
    return [expected_cost_usd(model, features, prediction) for model in models]


def picked(table: Floats, chosen: Ints) -> Floats:
    """The entry of the chosen model for each question; `table` is (n, M)."""
    return np.asarray(table[np.arange(len(table)), chosen])


# Metrics of a ranking, after RouteLLM (Ong et al. 2024, section 3): the performance gap recovered (PGR) is 0 for
# always-cheap and 1 for always-strong; APGR is its mean over all shares of strong calls; CPT(x) the share at PGR x.


def pgr_curve(ranks: Floats, scores: Floats) -> Floats:
    """PGR after escalating the k questions of highest rank, k 0 to n; equal ranks share their gain. Shape (n+1,)."""
    gains = scores[:, -1] - scores[:, 0]
    order = np.argsort(-ranks, kind="stable")
    _, first, counts = np.unique(-ranks[order], return_index=True, return_counts=True)
    even = np.repeat(np.add.reduceat(gains[order], first) / counts, counts)
    whole = gains.sum()
    return np.concatenate([[0.0], np.cumsum(even)]) / (whole if whole else np.nan)


def apgr(ranks: Floats, scores: Floats) -> float:
    """Average performance gap recovered; 0.5 for a random ranking."""
    return float(np.trapezoid(pgr_curve(ranks, scores), dx=1 / len(ranks)))


def cpt(ranks: Floats, scores: Floats, recovered: float) -> float:
    """The smallest share of strong calls that recovers this share of the gap; NaN where none does."""
    reached = np.flatnonzero(pgr_curve(ranks, scores) >= recovered)
    return float(reached[0] / len(ranks)) if len(reached) else float("nan")


def saved_cost(ranks: Floats, scores: Floats, costs_usd: Floats, kept: float) -> float:
    """The largest share of the strong model's dollars saved on these questions with at least `kept` of its quality.

    The threshold is chosen in hindsight: this measures the ranking. What is promised stands in the certificate.
    """
    order = np.argsort(-ranks, kind="stable")
    gains, extra = (np.concatenate([[0.0], np.cumsum((t[:, -1] - t[:, 0])[order])]) for t in (scores, costs_usd))
    enough = scores[:, 0].sum() + gains >= kept * scores[:, -1].sum()
    spent = costs_usd[:, 0].sum() + extra
    return float(1 - spent[enough].min() / costs_usd[:, -1].sum()) if enough.any() else 0.0


def bootstrap(statistic: Callable[[Ints], float], groups: Ints, rounds: int, seed: int) -> Interval:
    """A 95 % interval of a statistic of rows, resampling whole groups (near-duplicates come and go together)."""
    rng = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(np.unique(groups, return_inverse=True)[1])
    starts = np.cumsum(sizes) - sizes
    values = []
    for _ in range(rounds):
        drawn = rng.integers(len(sizes), size=len(sizes))
        taken = sizes[drawn]
        within = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
        values.append(statistic(order[np.repeat(starts[drawn], taken) + within]))
    known = np.array(values)[~np.isnan(values)]  # where the models never differ, no ranking has a value
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return Interval(float(low), float(statistic(np.arange(len(groups)))), float(high))


def baselines(replay: Replay) -> Mapping[str, Ints]:
    """What routing is to be measured against: always one model, and the best model in hindsight."""
    n = len(replay.outcomes)
    best = replay.scores.max(axis=1, keepdims=True)
    return {
        "always_cheap": np.zeros(n, dtype=np.int64),
        "always_strong": np.full(n, len(replay.models) - 1, dtype=np.int64),
        "oracle": np.argmin(np.where(replay.scores == best, replay.costs_usd, np.inf), axis=1),
    }
