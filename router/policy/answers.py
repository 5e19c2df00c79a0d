"""Decides by the cheap model's answer whether to return it or to ask the strong model.

This is a decision in two steps. A question of an inspected type goes to the cheap model unless a guard forbids it, and
then its answer decides. Questions of other types are decided by the question alone, at the routing threshold that was
certified together with the threshold of answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec import structs

from router.policy.answer_prediction import AnswerPredictor, answer_gap
from router.policy.decision import Decision, decide
from router.policy.expected_cost import savings_usd
from router.policy.features import Features
from router.policy.logprobs import Logprobs
from router.policy.prediction import Prediction
from router.policy.reasons import Reason
from router.policy.rules import Rule, Rules


@dataclass(frozen=True, slots=True)
class AnswerRule(Rule):
    """A target with two thresholds certified together: `quality_per_usd` for questions, `answer_limit` for answers.

    `expected_saving` includes both calls if the strong model is asked as well.
    """

    answer_limit: float | None = None  # quality that a dollar must buy for the strong model to be asked


@dataclass(frozen=True, slots=True)
class AnswerBenefit:
    """The benefit of inspecting answers of one type, measured by cross-fitting."""

    n: int
    # average performance gap recovered, by the question and its answer; None where the models score the same
    apgr: float | None
    apgr_without: float | None  # likewise, by the question alone
    score: float  # Student's t of the improvement


@dataclass(frozen=True, slots=True)
class Answers:
    """The part of a policy of two models that inspects answers of its cheap model."""

    predictor: AnswerPredictor
    types: Mapping[str, AnswerBenefit]  # the inspected question types
    targets: Sequence[AnswerRule]  # ascending

    def rules(self, rules: Rules) -> Rules:
        """The rules of a policy with the thresholds that were certified with inspected answers."""
        return replace(rules, targets=self.targets)


@dataclass(frozen=True, slots=True)
class FirstStep:
    """The first step: the model to ask, and whether to inspect its answer."""

    decision: Decision
    inspects_answer: bool


def decide_first_step(
    answers: Answers,
    rules: Rules,
    features: Features,
    prediction: Prediction,
    target: float,
    has_logprobs: bool = True,
) -> FirstStep:
    """Decide which model to ask first; `rules` are the policy's own.

    Without log probabilities (`has_logprobs`), an answer is not inspected if its type reads them.

    A question of an inspected type goes to the cheap model where `decide` compared quality with dollars. The decisions
    of guards remain, and so does that for a type whose limit accepts no cheap answer.
    """
    decision = decide(answers.rules(rules), features, prediction, target)
    if decision.question_type not in answers.types:
        return FirstStep(decision, False)
    if not has_logprobs and answers.predictor.reads_logprobs(decision.question_type):
        return FirstStep(decision, False)
    cheap = rules.models[0].name
    if decision.reason is Reason.STRONG_IS_BETTER and decision.evidence.kind == "measured":
        return FirstStep(structs.replace(decision, model=cheap, reason=Reason.CHEAP_IS_ENOUGH), True)
    return FirstStep(decision, decision.model == cheap)


def accepts_answer(
    answers: Answers,
    rules: Rules,
    features: Features,
    prediction: Prediction,
    target: float,
    answer: str,
    logprobs: Logprobs | None = None,
) -> bool:
    """The second step: whether to return a complete answer of the cheap model. If not, the strong model is asked.

    An answer without the log probabilities that its type reads is not accepted.
    """
    if logprobs is None and answers.predictor.reads_logprobs(prediction.question_type):
        return False
    gap = answer_gap(answers.predictor, features, prediction, answer, logprobs)
    saving = savings_usd(rules, features, prediction, None)[rules.models[0].name]
    rule = answers.rules(rules).rule_for(target)
    if rule is None:
        return False
    return answer_quality_per_usd(gap, saving) <= answer_limit_for(rule, prediction.question_type)


def answer_quality_per_usd(gap: float, saving_usd: float) -> float:
    """The lowest threshold, in quality per dollar, that accepts an answer; infinite if that saves nothing."""
    return gap / saving_usd if saving_usd > 0 else float("inf")


def answer_limit_for(rule: Rule, question_type: str) -> float:
    """The answer threshold for a type, in quality per dollar."""
    limit = rule.answer_limit if isinstance(rule, AnswerRule) else None
    if limit is None:
        return float("-inf")
    return min(limit, rule.type_limits.get(question_type, limit))
