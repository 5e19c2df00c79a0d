"""A prediction and a policy become a decision, with its reason and its evidence.

Calibration replays `decide` and the proxy serves it, so a certificate holds for what the proxy does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from router.policy.expected_cost import expected_cost_usd, savings_usd
from router.policy.features import Features
from router.policy.guards import eligible_models, evidence_guard, meets_target
from router.policy.prediction import Prediction
from router.policy.question_parts import QuestionParts
from router.policy.reasons import Reason
from router.policy.rules import UNCERTIFIED_KINDS, Evidence, Promise, Rules

NO_QUESTION = QuestionParts("")


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Which model answers, and why."""

    model: str
    reason: Reason
    target: float
    question_type: str
    type_probabilities: Mapping[str, float]
    quality: Mapping[str, float]
    expected_cost_usd: Mapping[str, float]
    gap: float  # expected quality of the strong model minus the cheap one; ranks requests for escalation
    novelty: float
    evidence: Evidence
    policy_version: str
    promise: Promise | None = None  # how well the target is supported; None if only the strong model keeps it
    text_tokens: int | None = None  # estimate for the text alone; set if images are billed as well
    parts: QuestionParts = NO_QUESTION
    tools_matching: int = 0  # offered tools that match the question
    cached_model: str | None = None  # the model expected to have the earlier turns in its cache


def decide(rules: Rules, features: Features, prediction: Prediction, target: float) -> Decision:
    """Choose the model with the largest `quality + quality_per_usd * dollars saved`.

    The strong model's quality is increased by `caution` (see `cautious_gap`). Dollars are expected ones: earlier turns
    cost the cached price on the model that answered them. That model follows from the request itself, since each
    earlier turn is decided again as it was then.

    Guards come first, in this order: capabilities of the models; a type without evidence; a type that drifted; an
    uncertain type; a novel request; a target without a threshold. Each of the last five sends the request to the
    strong model. A type with published results only goes to the cheap model only where these results meet the target.
    """
    cached: str | None = None
    for turn in prediction.earlier:
        cached = _choose(rules, features, turn, target, cached)[0]
    costs = {m.name: expected_cost_usd(m, features, prediction, m.name == cached) for m in rules.models}
    model, reason = _choose(rules, features, prediction, target, cached)
    cheap, strong = rules.models[0].name, rules.strong.name
    rule, evidence = rules.rule_for(target), rules.evidence_of(prediction.question_type)
    return Decision(
        model=model,
        reason=reason,
        target=target,
        question_type=prediction.question_type,
        type_probabilities=prediction.type_probabilities,
        quality=prediction.quality,
        expected_cost_usd=costs,
        gap=prediction.quality[strong] - prediction.quality[cheap],
        novelty=prediction.novelty,
        evidence=evidence,
        policy_version=rules.version,
        promise=None if rule is None else Promise.EXPECTED if evidence.kind in UNCERTIFIED_KINDS else rule.promise,
        text_tokens=features.input_tokens if features.images else None,
        parts=prediction.turn.parts,
        tools_matching=prediction.tools_matching,
        cached_model=cached if prediction.turn.is_cached else None,
    )


def _choose(
    rules: Rules, features: Features, prediction: Prediction, target: float, cached: str | None
) -> tuple[str, Reason]:
    eligible, guard = eligible_models(rules, features)
    strong = eligible[-1].name
    if len(eligible) == 1 and guard is not None:
        return strong, guard
    guard = evidence_guard(rules, features, prediction)
    if guard is not None:
        return strong, guard
    rule = rules.rule_for(target)
    if rule is None or rule.quality_per_usd is None:
        return strong, Reason.NOT_CERTIFIED
    evidence = rules.evidence_of(prediction.question_type)
    if evidence.is_results_only:
        chosen = next(
            m.name for m in eligible if m.name == strong or meets_target(rules, evidence, m.name, strong, rule.target)
        )
    else:
        per_usd = min(rule.quality_per_usd, rule.type_limits.get(prediction.question_type, rule.quality_per_usd))
        savings = savings_usd(rules, features, prediction, cached)
        chosen = max(
            reversed(eligible), key=lambda m: _net_benefit(rules, prediction, savings, m.name, strong, per_usd)
        ).name
    return chosen, Reason.STRONG_IS_BETTER if chosen == strong else Reason.CHEAP_IS_ENOUGH


def _net_benefit(
    rules: Rules, prediction: Prediction, savings: Mapping[str, float], model: str, strong: str, per_usd: float
) -> float:
    """Quality that the saved dollars are worth, minus the quality lost; 0 for the strong model."""
    if model == strong:
        return 0.0
    return per_usd * savings[model] - cautious_gap(rules, prediction, model, strong)


def cautious_gap(rules: Rules, prediction: Prediction, model: str, strong: str) -> float:
    """The quality that the strong model adds: as expected, plus the allowances for error, doubt and risk."""
    own, best = prediction.quality[model], prediction.quality[strong]
    risk = own * (1 - best) + best * (1 - own)  # probability that only one is right, if they were independent
    return best - own + rules.caution + rules.doubt_weight * prediction.doubt[model] + rules.risk_weight * risk


def quality_per_usd_needed(rules: Rules, features: Features, prediction: Prediction, target: float) -> float:
    """The lowest price of quality at which `decide` chooses a cheaper model than the strong one.

    Infinite if it never does, and minus infinite if published results alone choose the cheaper model.
    """
    slopes, offsets = benefit_lines(rules, features, prediction, target)
    if -math.inf in offsets:
        return -math.inf
    return min((offset / slope for slope, offset in zip(slopes, offsets, strict=True) if slope > 0), default=math.inf)


def benefit_lines(
    rules: Rules, features: Features, prediction: Prediction, target: float
) -> tuple[list[float], list[float]]:
    """Slope and offset of each model: at any price of quality `decide` chooses the largest `slope * price - offset`.

    Both are 0 for the strong model. The offset is infinite for a model that is never chosen.
    """
    eligible, _ = eligible_models(rules, features)
    column = {model.name: i for i, model in enumerate(rules.models)}
    strong = eligible[-1].name
    slopes, offsets = [0.0] * len(column), [math.inf] * len(column)
    offsets[column[strong]] = 0.0
    if len(eligible) == 1 or evidence_guard(rules, features, prediction) is not None:
        return slopes, offsets
    evidence = rules.evidence_of(prediction.question_type)
    savings = savings_usd(rules, features, prediction, None)
    for model in eligible[:-1]:
        if not evidence.is_results_only:
            slopes[column[model.name]] = savings[model.name]
            offsets[column[model.name]] = cautious_gap(rules, prediction, model.name, strong)
        elif meets_target(rules, evidence, model.name, strong, target):
            offsets[column[model.name]] = -math.inf
            break
    return slopes, offsets


def likely_types(decision: Decision, least: float = 0.02) -> dict[str, float]:
    """The question types with at least this probability, the likeliest first."""
    ranked = sorted(decision.type_probabilities.items(), key=lambda item: -item[1])
    return {name: probability for name, probability in ranked if probability >= least}
