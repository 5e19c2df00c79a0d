"""Comparison of old and new models on the same questions, judged by one judge, by question type.

A strategy answers every question with one model, or with the model that a policy chooses. The compared strategies are
each old and each new model, the old policy over the old models, and the new policy over the new models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.answers.answers import REFUSED, Answer
from calibration.checks.comparisons import contains_json
from calibration.comparison.tradeoffs import ALL, JudgedQuestions
from calibration.comparison.verdict import best_rule
from calibration.judging.judgements import Judgement
from calibration.learning.corpus import Ints
from calibration.learning.intervals import mean_interval
from calibration.learning.replay import Replay, replay_outcomes
from calibration.outcomes import Outcome
from calibration.questions.questions import Question
from router.policy.document import Policy
from router.policy.prices import PriceBook
from router.policy.rules import Interval

OLD_ROUTED, NEW_ROUTED = "old routed", "new routed"
WORSE = 0.03  # loss of quality from which a question type is reported


@dataclass(frozen=True, slots=True)
class StrategyResult:
    """The result of one strategy on the questions of one type, or on all questions."""

    question_type: str
    name: str  # a model, OLD_ROUTED or NEW_ROUTED
    n: int
    quality: Interval
    difference: Interval  # paired difference to the old strong model
    usd_per_1000: float  # requests, at current prices
    output_tokens: float  # mean per answer
    seconds: float  # median time to a complete answer; NaN if no answer was timed
    refused: int
    cut_off: int
    malformed: int  # answers without the requested form: JSON, or a tool call

    @property
    def failures(self) -> int:
        """The number of unusable answers."""
        return self.refused + self.cut_off + self.malformed


@dataclass(frozen=True, slots=True)
class Choices:
    """The models of a policy, from cheap to strong, and the index of the model that answers each question, (n,)."""

    models: Sequence[str]
    columns: Ints
    target: float | None  # that the policy keeps; None if it sends every question to the strong model


def replay_choices(policy: Policy, replay: Replay) -> Choices:
    """The choices of a policy on a replay, at its default target or at the strictest target that it routes by."""
    rule = best_rule(policy)
    target = policy.default_target if rule is None else rule.target
    names = [model.name for model in policy.rules.models]
    return Choices(names, replay.choose(policy.rules, target), None if rule is None else rule.target)


def choices_on(policy: Policy, outcomes: Sequence[Outcome]) -> Choices:
    """The choices of a policy on outcomes that it was not learnt from."""
    return replay_choices(policy, replay_outcomes(outcomes, policy.predictor, policy.rules.models))


def compare_strategies(
    judged: JudgedQuestions, old: Choices, new: Choices | None, prices: PriceBook
) -> list[StrategyResult]:
    """The result of every strategy, on all questions and then by type; `judged` covers the models of old and new."""
    strong = old.models[-1]
    strategies: dict[str, list[str]] = {model: [model] * len(judged) for model in reversed(old.models)}
    strategies[OLD_ROUTED] = [old.models[column] for column in old.columns]
    if new is not None:
        strategies |= {model: [model] * len(judged) for model in reversed(new.models)}
        strategies[NEW_ROUTED] = [new.models[column] for column in new.columns]
    types = [question.question_type or "" for question, _, _ in judged]
    results = []
    for question_type in (ALL, *sorted(set(types))):
        rows = [row for row, name in enumerate(types) if question_type in (ALL, name)]
        for name, models in strategies.items():
            answered = [(judged[row], models[row]) for row in rows]
            results.append(_measure(question_type, name, answered, strong, prices))
    return results


Answered = Sequence[tuple[tuple[Question, Mapping[str, Answer], Mapping[str, Judgement]], str]]


def _measure(question_type: str, name: str, answered: Answered, strong: str, prices: PriceBook) -> StrategyResult:
    """Measure one strategy; `answered` has each judged question and the model that answers it."""
    answers = [(question, by_model[model]) for (question, by_model, _), model in answered]
    scores = np.array([judgements[model].score for (_, _, judgements), model in answered])
    strong_scores = np.array([judgements[strong].score for (_, _, judgements), _ in answered])
    costs_usd = [_current_cost_usd(answer, prices) for _, answer in answers]
    seconds = [answer.seconds for _, answer in answers if answer.seconds]
    return StrategyResult(
        question_type=question_type,
        name=name,
        n=len(answered),
        quality=mean_interval(scores, 0.0, 1.0),
        difference=mean_interval(scores - strong_scores, -1.0, 1.0),
        usd_per_1000=1000 * float(np.mean(costs_usd)),
        output_tokens=float(np.mean([answer.usage.output_tokens for _, answer in answers])),
        seconds=float(np.median(seconds)) if seconds else float("nan"),
        refused=sum(answer.finish_reason in (REFUSED, "content_filter") for _, answer in answers),
        cut_off=sum(answer.finish_reason == "length" for _, answer in answers),
        malformed=sum(_is_malformed(question, answer) for question, answer in answers),
    )


def _current_cost_usd(answer: Answer, prices: PriceBook) -> float:
    """The cost of an answer at current prices; the billed cost if its model has no price."""
    cost_usd = prices.cost_usd(answer.model, answer.usage)
    return answer.cost_usd if cost_usd is None else cost_usd


def _is_malformed(question: Question, answer: Answer) -> bool:
    """Whether a complete answer lacks the form that the question requests."""
    if question.check is None or answer.finish_reason in (REFUSED, "content_filter", "length"):
        return False
    if question.check.name == "json":
        return not contains_json(answer.text)
    if question.check.name == "tool_call" and question.check.reference:
        return not _is_tool_calls(answer.text)
    return False


def _is_tool_calls(text: str) -> bool:
    try:
        calls = json.loads(text)
    except ValueError:
        return False
    return isinstance(calls, list) and all(isinstance(call, dict) and "name" in call for call in calls)


def worse_types(results: Sequence[StrategyResult]) -> list[StrategyResult]:
    """The types on which the new policy is significantly worse than the old strong model, the worst first."""
    routed = [result for result in results if result.name == NEW_ROUTED and result.question_type != ALL]
    worse = [result for result in routed if result.difference.high < -WORSE]
    return sorted(worse, key=lambda result: result.difference.estimate)


def find_result(results: Sequence[StrategyResult], question_type: str, name: str) -> StrategyResult:
    """The result of one strategy on one type."""
    return next(result for result in results if result.question_type == question_type and result.name == name)
