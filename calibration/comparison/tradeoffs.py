"""Outcomes become the comparison: what each model is worth and costs, by type, and what routing would give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from calibration.answers.answers import Answer
from calibration.judging.judgements import COMPLETENESS, CORRECTNESS, Judgement
from calibration.learning.learning import Learnt, mean_interval
from calibration.learning.replay import Replay, baselines, bootstrap, picked
from calibration.outcomes import Outcome
from calibration.questions.questions import Question
from router.policy.decision import Interval
from router.policy.document import Policy
from router.policy.vocabulary import Floats

ALL = "all"
BOOTSTRAP_ROUNDS = 300
MOST_QUESTIONS = 100_000  # more would not be asked


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one type of question, or on all."""

    question_type: str
    model: str
    n: int
    correctness: Interval | None
    completeness: Interval | None  # None where no judge was asked
    score: Interval  # the weakest verdict of each answer
    input_tokens: int
    output_tokens: int
    cost_usd: float
    correct: float  # answers that are right; halves where a scorer gives halves

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def cost_per_correct_answer_usd(self) -> float:
        return self.cost_usd / self.correct if self.correct else math.nan

    @property
    def cost_per_correct_pct(self) -> float:
        """Dollars of all answers by the share that is correct, as in the document."""
        share = self.correctness.estimate if self.correctness else self.score.estimate
        return self.cost_usd / share if share else math.nan

    @property
    def mean_output_tokens(self) -> float:
        return self.output_tokens / self.n


@dataclass(frozen=True, slots=True)
class Pair:
    """A cheaper model against the strong one on one type of question, question by question."""

    question_type: str
    model: str
    n: int
    quality_difference: Interval  # cheaper minus strong, in [-1, 1]; below 0 the cheaper model is worse
    cost_ratio: float  # cheaper over strong
    settled: bool  # whether it is known to keep the target, or known not to
    keeps_target: bool  # where it is settled
    more_questions: int | None  # that would settle it; None where more than can be asked


Judged = Sequence[tuple[Question, Mapping[str, Answer], Mapping[str, Judgement]]]


def rows(judged: Judged, models: Sequence[str]) -> list[Row]:
    """The comparison of all models, for all questions and then for each type."""
    return [_row(name, part, model) for name, part in _by_type(judged) for model in models]


def _by_type(judged: Judged) -> list[tuple[str, Judged]]:
    types = sorted({question.question_type or "" for question, _, _ in judged})
    parts = [(name, [each for each in judged if (each[0].question_type or "") == name]) for name in types]
    return [(ALL, judged), *parts]


def _row(name: str, part: Judged, model: str) -> Row:
    answers = [answers[model] for _, answers, _ in part]
    found = [judgements[model] for _, _, judgements in part]
    scores = np.array([judgement.score for judgement in found])
    return Row(
        question_type=name,
        model=model,
        n=len(part),
        correctness=_verdicts(found, CORRECTNESS),
        completeness=_verdicts(found, COMPLETENESS),
        score=mean_interval(scores, 0.0, 1.0),
        input_tokens=sum(answer.usage.input_tokens for answer in answers),
        output_tokens=sum(answer.usage.output_tokens for answer in answers),
        cost_usd=sum(answer.cost_usd for answer in answers),
        correct=float(sum(judgement.scores.get(CORRECTNESS, judgement.score) for judgement in found)),
    )


def _verdicts(found: Sequence[Judgement], scorer: str) -> Interval | None:
    values = [judgement.scores[scorer] for judgement in found if scorer in judgement.scores]
    return mean_interval(np.array(values), 0.0, 1.0) if values else None


def pairs(judged: Judged, models: Sequence[str], target: float) -> list[Pair]:
    """Every cheaper model against the strong one (the last), for all questions and then for each type."""
    return [_pair(name, part, model, models[-1], target) for name, part in _by_type(judged) for model in models[:-1]]


def _pair(name: str, part: Judged, model: str, strong: str, target: float) -> Pair:
    cheap_scores, strong_scores = (np.array([j[m].score for _, _, j in part]) for m in (model, strong))
    cheap_cost, strong_cost = (sum(a[m].cost_usd for _, a, _ in part) for m in (model, strong))
    difference = cheap_scores - strong_scores
    kept = mean_interval(cheap_scores - target * strong_scores, -target, 1.0)
    settled = kept.low >= 0 or kept.high < 0
    return Pair(
        question_type=name,
        model=model,
        n=len(part),
        quality_difference=mean_interval(difference, -1.0, 1.0),
        cost_ratio=cheap_cost / strong_cost if strong_cost else math.nan,
        settled=settled,
        keeps_target=settled and kept.low >= 0,
        more_questions=0 if settled else _more(cheap_scores - target * strong_scores, target),
    )


def _more(values: Floats, target: float) -> int | None:
    """How many more questions alike would put 0 outside the interval around the mean of `values`."""
    padded = np.concatenate([values, [-target, 1.0]])
    distance, spread = abs(float(values.mean())), float(padded.std(ddof=1))
    if distance < 1e-9:
        return None
    needed = math.ceil((float(stats.norm.ppf(0.975)) * spread / distance) ** 2)
    return max(needed - len(values), 1) if needed <= MOST_QUESTIONS else None


@dataclass(frozen=True, slots=True)
class Point:
    """A way to answer the held-out questions: its quality and its dollars for each request."""

    name: str
    quality: Interval
    cost_usd: Interval
    strong_share: float  # of requests


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What routing gives on questions that the predictor has not seen."""

    n: int
    points: Mapping[str, Point]  # always_<model>, random_mix, type_means, oracle, and each target as "0.97"
    frontier: Sequence[tuple[float, float]]  # dollars a request and quality, as the threshold moves
    gain_over_mix: Mapping[float, Interval]  # by target: quality above a random mix of the same cost


def held_out(learnt: Learnt, seed: int) -> HeldOut:
    """What a policy gives on the questions it was learnt from, each predicted by what was learnt without it."""
    return measured(learnt.policy, learnt.replay, learnt.groups, seed, learnt.replay.outcomes)


def measured(policy: Policy, replay: Replay, groups: np.ndarray, seed: int, train: Sequence[Outcome] = ()) -> HeldOut:
    """The points of a policy and of what it is measured against."""

    def interval(statistic: Callable[[np.ndarray], float]) -> Interval:
        return bootstrap(statistic, groups, BOOTSTRAP_ROUNDS, seed)

    def point(name: str, chosen: np.ndarray) -> Point:
        quality, cost = picked(replay.scores, chosen), picked(replay.costs_usd, chosen)
        strong = float((chosen == len(replay.models) - 1).mean())
        return Point(name, interval(lambda i: quality[i].mean()), interval(lambda i: cost[i].mean()), strong)

    chosen = {f"always_{model.name}": np.full(len(replay.outcomes), i) for i, model in enumerate(replay.models)}
    chosen["oracle"] = baselines(replay)["oracle"]
    if train:
        chosen["type_means"] = _by_type_means(replay, train, policy.default_target)
    routed = {rule.target: replay.chosen(policy.rules, rule.target) for rule in policy.rules.targets}
    points = {name: point(name, column) for name, column in chosen.items()}
    points |= {f"{target:g}": point(f"{target:g}", column) for target, column in routed.items()}
    needed, choose = replay.needed(policy.rules, 1.0), replay.choices(policy.rules, 1.0)
    finite = needed[np.isfinite(needed)]
    grid = np.quantile(finite, np.linspace(0, 1, 41)) if len(finite) else np.zeros(1)
    curve = [choose(np.full(len(needed), price)) for price in grid]
    return HeldOut(
        n=len(replay.outcomes),
        points=points,
        frontier=[(picked(replay.costs_usd, c).mean(), picked(replay.scores, c).mean()) for c in curve],
        gain_over_mix={
            target: interval(lambda i, column=column: gain_over_mix(replay, column, i))  # type: ignore[misc]
            for target, column in routed.items()
        },
    )


def gain_over_mix(replay: Replay, chosen: np.ndarray, i: np.ndarray) -> float:
    """Quality above that of tossing a coin between the cheapest and the strong model at the same cost."""
    scores, costs = replay.scores[i], replay.costs_usd[i]
    cheap, strong = costs[:, 0].mean(), costs[:, -1].mean()
    spent = picked(costs, chosen[i]).mean()
    share = min(max((spent - cheap) / (strong - cheap), 0.0), 1.0) if strong != cheap else 1.0
    mixed = scores[:, 0].mean() * (1 - share) + scores[:, -1].mean() * share
    return float(picked(scores, chosen[i]).mean() - mixed)


def _by_type_means(replay: Replay, train: Sequence[Outcome], target: float) -> np.ndarray:
    """The cheapest model whose mean keeps the target on the question's recorded type; the strong one if none does."""
    names = [model.name for model in replay.models]
    means: dict[str, np.ndarray] = {}
    for name in {outcome.question_type or "" for outcome in train}:
        of_type = [o for o in train if (o.question_type or "") == name]
        means[name] = np.array([[o.results[m].score for m in names] for o in of_type]).mean(axis=0)
    chosen = np.full(len(replay.outcomes), len(names) - 1)
    for number, outcome in enumerate(replay.outcomes):
        known = means.get(outcome.question_type or "")
        if known is not None:
            chosen[number] = np.flatnonzero(known >= target * known[-1])[0]
    return chosen
