"""A pair of models beside the pair that follows it: what each way to answer is worth, costs and fails at, by type.

The ways are compared on the same questions, with verdicts of one judge: each model of both pairs alone, what the old
policy makes of the old pair, and what the new policy makes of the new one.
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
WORSE = 0.03  # of quality, by which a type is named as one that loses


@dataclass(frozen=True, slots=True)
class Way:
    """One way to answer the questions of a type, or of all."""

    question_type: str
    name: str  # a model, or what a policy makes of its models
    n: int
    quality: Interval
    difference: Interval  # to the old strong model, question by question
    usd_per_1000: float  # requests, at the prices of today
    output_tokens: float  # mean of an answer
    seconds: float  # median until an answer was whole; nan where none was timed
    refused: int
    cut_off: int
    malformed: int  # answers without the form that was asked for: JSON, or a call of a tool

    @property
    def failures(self) -> int:
        """Answers that nobody can use."""
        return self.refused + self.cut_off + self.malformed


@dataclass(frozen=True, slots=True)
class Chosen:
    """The models of a policy, from cheap to strong, and which of them answers each question (n,)."""

    models: Sequence[str]
    columns: Ints
    target: float | None  # that the policy keeps; None where it sends all to the strong model


def chosen_by(policy: Policy, replay: Replay) -> Chosen:
    """What a policy decides on each question of a replay, at its default target or the strictest that it routes by."""
    rule = best_rule(policy)
    target = policy.default_target if rule is None else rule.target
    names = [model.name for model in policy.rules.models]
    return Chosen(names, replay.choose(policy.rules, target), None if rule is None else rule.target)


def chosen_on(policy: Policy, outcomes: Sequence[Outcome]) -> Chosen:
    """What a policy that learnt from other questions decides on each of `outcomes`."""
    return chosen_by(policy, replay_outcomes(outcomes, policy.predictor, policy.rules.models))


def ways(judged: JudgedQuestions, old: Chosen, new: Chosen | None, prices: PriceBook) -> list[Way]:
    """Every way for all questions, then for each type; `judged` has answers and judgements of the models of both."""
    strong = old.models[-1]
    columns: dict[str, list[str]] = {model: [model] * len(judged) for model in reversed(old.models)}
    columns[OLD_ROUTED] = [old.models[at] for at in old.columns]
    if new is not None:
        columns |= {model: [model] * len(judged) for model in reversed(new.models)}
        columns[NEW_ROUTED] = [new.models[at] for at in new.columns]
    types = sorted({question.question_type or "" for question, _, _ in judged})
    found = []
    for name in (ALL, *types):
        rows = [at for at, (q, _, _) in enumerate(judged) if name == ALL or (q.question_type or "") == name]
        for way, models in columns.items():
            picked = [(judged[at], models[at]) for at in rows]
            found.append(_way(name, way, picked, strong, prices))
    return found


Picked = Sequence[tuple[tuple[Question, Mapping[str, Answer], Mapping[str, Judgement]], str]]


def _way(question_type: str, name: str, picked: Picked, strong: str, prices: PriceBook) -> Way:
    answers = [(question, given[model]) for (question, given, _), model in picked]
    scores = np.array([found[model].score for (_, _, found), model in picked])
    before = np.array([found[strong].score for (_, _, found), _ in picked])
    dollars = [_usd(answer, prices) for _, answer in answers]
    timed = [answer.seconds for _, answer in answers if answer.seconds]
    return Way(
        question_type=question_type,
        name=name,
        n=len(picked),
        quality=mean_interval(scores, 0.0, 1.0),
        difference=mean_interval(scores - before, -1.0, 1.0),
        usd_per_1000=1000 * float(np.mean(dollars)),
        output_tokens=float(np.mean([answer.usage.output_tokens for _, answer in answers])),
        seconds=float(np.median(timed)) if timed else float("nan"),
        refused=sum(answer.finish_reason in (REFUSED, "content_filter") for _, answer in answers),
        cut_off=sum(answer.finish_reason == "length" for _, answer in answers),
        malformed=sum(_is_malformed(question, answer) for question, answer in answers),
    )


def _usd(answer: Answer, prices: PriceBook) -> float:
    """Dollars of an answer at the prices of today; as it was billed where no model is named."""
    cost = prices.cost_usd(answer.model, answer.usage)
    return answer.cost_usd if cost is None else cost


def _is_malformed(question: Question, answer: Answer) -> bool:
    """Whether an answer lacks the form that the question asks for, whatever it says."""
    if question.check is None or answer.finish_reason in (REFUSED, "content_filter", "length"):
        return False
    if question.check.name == "json":
        return not contains_json(answer.text)
    if question.check.name == "tool_call" and question.check.reference:
        return not _is_calls(answer.text)
    return False


def _is_calls(text: str) -> bool:
    try:
        calls = json.loads(text)
    except ValueError:
        return False
    return isinstance(calls, list) and all(isinstance(call, dict) and "name" in call for call in calls)


def losing_types(found: Sequence[Way]) -> list[Way]:
    """The types on which the new policy is shown to be worse than the strong model that leaves, the worst first."""
    routed = [way for way in found if way.name == NEW_ROUTED and way.question_type != ALL]
    return sorted((way for way in routed if way.difference.high < -WORSE), key=lambda way: way.difference.estimate)


def way_of(found: Sequence[Way], question_type: str, name: str) -> Way:
    """One of the ways."""
    return next(way for way in found if way.question_type == question_type and way.name == name)
