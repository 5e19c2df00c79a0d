"""Which answers of the cheap model are passed on where they are looked at, and which are asked of the strong model.

Looking is a decision in two steps. A question of a type that is looked at goes to the cheap model, whatever the
question alone says, unless a guard speaks against it; then its answer decides. Other types are decided on by the
question, at the routing threshold that was certified together with the one of answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from router.policy.answer_prediction import AnswerPredictor, answer_gap
from router.policy.decision import Decision, decide
from router.policy.expected_cost import savings_usd
from router.policy.features import Features
from router.policy.prediction import Prediction
from router.policy.reasons import Reason
from router.policy.rules import Rule, Rules


@dataclass(frozen=True, slots=True)
class AnswerRule(Rule):
    """A target with both thresholds, certified as one: `quality_per_usd` of questions, `answer_limit` of answers.

    `expected_saving` counts both calls where the strong model is asked as well.
    """

    answer_limit: float | None = None  # quality that a dollar must buy for an answer to be asked for again


@dataclass(frozen=True, slots=True)
class Help:
    """What looking at answers gives on one type, on questions that were predicted by what was learnt without them."""

    n: int
    apgr: float  # average performance gap recovered by the question and its answer
    apgr_without: float  # by the question alone
    score: float  # Student's t of what the answer adds


@dataclass(frozen=True, slots=True)
class Answers:
    """What a policy knows of answers of its cheap model; policies of two models only."""

    predictor: AnswerPredictor
    types: Mapping[str, Help]  # that are looked at
    targets: Sequence[AnswerRule]  # ascending

    def rules(self, rules: Rules) -> Rules:
        """The rules of a policy with the thresholds that were certified with answers looked at."""
        return replace(rules, targets=self.targets)


@dataclass(frozen=True, slots=True)
class Tried:
    """The first step: which model is asked, and whether its answer is to be looked at."""

    decision: Decision
    is_looked_at: bool


def decide_first(answers: Answers, rules: Rules, features: Features, prediction: Prediction, target: float) -> Tried:
    """Decide which model is asked first; `rules` are the policy's own.

    A type that is looked at goes to the cheap model where `decide` weighed quality against dollars at all. A guard
    stands, and so does a type whose limit admits no cheap answer.
    """
    decision = decide(answers.rules(rules), features, prediction, target)
    if decision.question_type not in answers.types:
        return Tried(decision, False)
    cheap = rules.models[0].name
    if decision.reason is Reason.STRONG_IS_BETTER and decision.evidence.kind == "measured":
        return Tried(replace(decision, model=cheap, reason=Reason.CHEAP_IS_ENOUGH), True)
    return Tried(decision, decision.model == cheap)


def answer_holds(
    answers: Answers, rules: Rules, features: Features, prediction: Prediction, target: float, answer: str
) -> bool:
    """The second step: whether a whole answer of the cheap model is passed on. False asks the strong model."""
    gap = answer_gap(answers.predictor, features, prediction, answer)
    saving = savings_usd(rules, features, prediction, None)[rules.models[0].name]
    rule = answers.rules(rules).rule_for(target)
    if rule is None:
        return False
    return answer_usd_needed(gap, saving) <= limit_of(rule, prediction.question_type)


def answer_usd_needed(gap: float, saving_usd: float) -> float:
    """Quality per dollar from which on an answer is passed on; infinite where passing it on saves nothing."""
    return gap / saving_usd if saving_usd > 0 else float("inf")


def limit_of(rule: Rule, question_type: str) -> float:
    """The answer threshold of a type, in quality per dollar."""
    limit = rule.answer_limit if isinstance(rule, AnswerRule) else None
    if limit is None:
        return float("-inf")
    return min(limit, rule.type_limits.get(question_type, limit))
