"""The comparison of models by type of question, and the results of routing on held-out questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from calibration.answers.answers import Answer
from calibration.judging.judgements import COMPLETENESS, CORRECTNESS, Judgement
from calibration.learning.intervals import bootstrap, mean_interval
from calibration.learning.learning import LearningResult
from calibration.learning.replay import Replay, baseline_choices, pick_columns
from calibration.outcomes import Outcome
from calibration.questions.questions import Question
from router.policy.document import Policy
from router.policy.rules import Interval
from router.policy.vocabulary import Floats

ALL = "all"
BOOTSTRAP_ROUNDS = 300
MAX_QUESTIONS = 100_000  # a comparison that needs more is reported as too close to call


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """The results of one model on one type of question, or on all questions."""

    question_type: str
    model: str
    n: int
    correctness: Interval | None
    completeness: Interval | None  # None where no judge scored the answers
    score: Interval  # of the lowest verdict of each answer
    input_tokens: int
    output_tokens: int
    cost_usd: float
    correct: float  # number of correct answers; fractional where a scorer gives fractions

    @property
    def total_tokens(self) -> int:
        """Input and output tokens of all answers."""
        return self.input_tokens + self.output_tokens

    @property
    def cost_per_correct_answer_usd(self) -> float:
        """The cost of all answers divided by the number of correct ones; NaN where none is correct."""
        return self.cost_usd / self.correct if self.correct else math.nan

    @property
    def cost_per_correct_pct(self) -> float:
        """The cost of all answers in dollars divided by the share that is correct; NaN where none is correct."""
        share = self.correctness.estimate if self.correctness else self.score.estimate
        return self.cost_usd / share if share else math.nan

    @property
    def mean_output_tokens(self) -> float:
        """Output tokens per answer."""
        return self.output_tokens / self.n


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """The paired comparison of a cheaper model with the strong one, on one type of question or on all."""

    question_type: str
    model: str
    n: int
    quality_difference: Interval  # cheaper minus strong, in [-1, 1]; below 0 the cheaper model is worse
    cost_ratio: float  # cheaper over strong
    is_conclusive: bool  # whether the model is shown to keep the target, or shown not to
    keeps_target: bool  # False also where the comparison is not conclusive
    more_questions: int | None  # for a conclusive comparison; None above MAX_QUESTIONS


JudgedQuestions = Sequence[tuple[Question, Mapping[str, Answer], Mapping[str, Judgement]]]


def summarise_models(judged: JudgedQuestions, models: Sequence[str]) -> list[ModelSummary]:
    """The results of every model, on all questions and then on each type."""
    return [_summarise(name, part, model) for name, part in _split_by_type(judged) for model in models]


def _split_by_type(judged: JudgedQuestions) -> list[tuple[str, JudgedQuestions]]:
    types = sorted({question.question_type or "" for question, _, _ in judged})
    parts = [(name, [row for row in judged if (row[0].question_type or "") == name]) for name in types]
    return [(ALL, judged), *parts]


def _summarise(name: str, part: JudgedQuestions, model: str) -> ModelSummary:
    answers = [answers[model] for _, answers, _ in part]
    verdicts = [judgements[model] for _, _, judgements in part]
    scores = np.array([judgement.score for judgement in verdicts])
    return ModelSummary(
        question_type=name,
        model=model,
        n=len(part),
        correctness=_verdict_mean(verdicts, CORRECTNESS),
        completeness=_verdict_mean(verdicts, COMPLETENESS),
        score=mean_interval(scores, 0.0, 1.0),
        input_tokens=sum(answer.usage.input_tokens for answer in answers),
        output_tokens=sum(answer.usage.output_tokens for answer in answers),
        cost_usd=sum(answer.cost_usd for answer in answers),
        correct=float(sum(judgement.scores.get(CORRECTNESS, judgement.score) for judgement in verdicts)),
    )


def _verdict_mean(judgements: Sequence[Judgement], scorer: str) -> Interval | None:
    values = [judgement.scores[scorer] for judgement in judgements if scorer in judgement.scores]
    return mean_interval(np.array(values), 0.0, 1.0) if values else None


def compare_models(judged: JudgedQuestions, models: Sequence[str], target: float) -> list[Tradeoff]:
    """Compare every cheaper model with the strong one (the last), on all questions and then on each type."""
    return [
        _compare(name, part, model, models[-1], target)
        for name, part in _split_by_type(judged)
        for model in models[:-1]
    ]


def _compare(name: str, part: JudgedQuestions, model: str, strong: str, target: float) -> Tradeoff:
    cheap_scores, strong_scores = (np.array([j[m].score for _, _, j in part]) for m in (model, strong))
    cheap_cost, strong_cost = (sum(a[m].cost_usd for _, a, _ in part) for m in (model, strong))
    excess = cheap_scores - target * strong_scores
    interval = mean_interval(excess, -target, 1.0)
    is_conclusive = interval.low >= 0 or interval.high < 0
    return Tradeoff(
        question_type=name,
        model=model,
        n=len(part),
        quality_difference=mean_interval(cheap_scores - strong_scores, -1.0, 1.0),
        cost_ratio=cheap_cost / strong_cost if strong_cost else math.nan,
        is_conclusive=is_conclusive,
        keeps_target=interval.low >= 0,
        more_questions=0 if is_conclusive else _more_questions(excess, target),
    )


def _more_questions(values: Floats, target: float) -> int | None:
    """How many more questions like these would put 0 outside the interval around the mean of `values` (n,)."""
    padded = np.concatenate([values, [-target, 1.0]])
    distance, spread = abs(float(values.mean())), float(padded.std(ddof=1))
    if distance < 1e-9:
        return None
    needed = math.ceil((float(stats.norm.ppf(0.975)) * spread / distance) ** 2)
    return max(needed - len(values), 1) if needed <= MAX_QUESTIONS else None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One way to choose models for the held-out questions: its mean quality and its mean cost per request."""

    name: str
    quality: Interval
    cost_usd: Interval
    strong_share: float  # share of requests that the strong model answers


@dataclass(frozen=True, slots=True)
class HeldOutResults:
    """The results of routing on questions that the predictor was not fitted on."""

    n: int
    points: Mapping[str, OperatingPoint]  # always_<model>, type_means, oracle, and each target as "0.97"
    frontier: Sequence[tuple[float, float]]  # cost per request in dollars and quality, by threshold
    gain_over_mix: Mapping[float, Interval]  # by target: quality minus that of a random mix of the same cost


def evaluate_held_out(learnt: LearningResult, seed: int) -> HeldOutResults:
    """The results of a policy on its own questions, by the cross-fitted replay."""
    return evaluate_policy(learnt.policy, learnt.replay, learnt.groups, seed, learnt.replay.outcomes)


def evaluate_policy(
    policy: Policy, replay: Replay, groups: np.ndarray, seed: int, train: Sequence[Outcome] = ()
) -> HeldOutResults:
    """The operating points of a policy and of its baselines; `train` are the outcomes of the type means."""

    def interval(statistic: Callable[[np.ndarray], float]) -> Interval:
        return bootstrap(statistic, groups, BOOTSTRAP_ROUNDS, seed)

    def point(name: str, chosen: np.ndarray) -> OperatingPoint:
        quality, cost = pick_columns(replay.scores, chosen), pick_columns(replay.costs_usd, chosen)
        strong = float((chosen == len(replay.models) - 1).mean())
        return OperatingPoint(name, interval(lambda i: quality[i].mean()), interval(lambda i: cost[i].mean()), strong)

    chosen = {f"always_{model.name}": np.full(len(replay.outcomes), i) for i, model in enumerate(replay.models)}
    chosen["oracle"] = baseline_choices(replay)["oracle"]
    if train:
        chosen["type_means"] = _choose_by_type_mean(replay, train, policy.default_target)
    routed = {rule.target: replay.choose(policy.rules, rule.target) for rule in policy.rules.targets}
    points = {name: point(name, column) for name, column in chosen.items()}
    points |= {f"{target:g}": point(f"{target:g}", column) for target, column in routed.items()}
    needed, choose = replay.switch_thresholds(policy.rules, 1.0), replay.chooser(policy.rules, 1.0)
    finite = needed[np.isfinite(needed)]
    grid = np.quantile(finite, np.linspace(0, 1, 41)) if len(finite) else np.zeros(1)
    curve = [choose(np.full(len(needed), price)) for price in grid]
    return HeldOutResults(
        n=len(replay.outcomes),
        points=points,
        frontier=[(pick_columns(replay.costs_usd, c).mean(), pick_columns(replay.scores, c).mean()) for c in curve],
        gain_over_mix={
            target: interval(lambda i, column=column: gain_over_mix(replay, column, i))  # type: ignore[misc]
            for target, column in routed.items()
        },
    )


def gain_over_mix(replay: Replay, chosen: np.ndarray, i: np.ndarray) -> float:
    """The quality of the chosen models minus that of a random mix of cheap and strong model, on rows `i` (k,).

    The random mix has the same mean cost.
    """
    scores, costs = replay.scores[i], replay.costs_usd[i]
    cheap, strong = costs[:, 0].mean(), costs[:, -1].mean()
    spent = pick_columns(costs, chosen[i]).mean()
    share = min(max((spent - cheap) / (strong - cheap), 0.0), 1.0) if strong != cheap else 1.0
    mixed = scores[:, 0].mean() * (1 - share) + scores[:, -1].mean() * share
    return float(pick_columns(scores, chosen[i]).mean() - mixed)


def _choose_by_type_mean(replay: Replay, train: Sequence[Outcome], target: float) -> np.ndarray:
    """The cheapest model whose mean score keeps the target on the recorded type; else the strong model (n,)."""
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
