"""Guards of a decision: which models can take a request, and whether the evidence applies to it."""

from __future__ import annotations

from collections.abc import Sequence

from router.policy.expected_cost import input_tokens
from router.policy.features import Features
from router.policy.prediction import Prediction
from router.policy.reasons import Reason
from router.policy.rules import Evidence, Model, Rules


def eligible_models(rules: Rules, features: Features) -> tuple[Sequence[Model], Reason | None]:
    """The models that can take the request, and why the others cannot. The strong model remains if none can."""
    eligible: list[Model] = []
    reason: Reason | None = None
    for model in rules.models:
        obstacle = capability_guard(model, features)
        if obstacle is None:
            eligible.append(model)
        else:
            reason = obstacle
    return eligible or [rules.strong], reason


def capability_guard(model: Model, features: Features) -> Reason | None:
    """Why `model` cannot take the request, or None."""
    if features.unsuitable_models and model.name in features.unsuitable_models:
        return Reason(features.unsuitable_models[model.name])
    if (features.images and not model.images) or (features.audio_parts and not model.audio):
        return Reason.MODALITY
    if features.tool_characters and not model.tools:
        return Reason.TOOLS
    needed_tokens = input_tokens(model, features) + (features.max_output_tokens or 0)
    return Reason.CONTEXT_WINDOW if needed_tokens > model.context_tokens else None


def evidence_guard(rules: Rules, features: Features, prediction: Prediction) -> Reason | None:
    """Why the policy's evidence does not apply to the request, or None."""
    if rules.evidence_of(prediction.question_type).kind == "none" or features.has_attachments:
        return Reason.NO_EVIDENCE
    if prediction.question_type in rules.drifted:
        return Reason.DRIFTED
    if _is_type_uncertain(rules, prediction):
        return Reason.UNCERTAIN_TYPE
    return Reason.NOVEL if prediction.novelty > rules.novelty_limit else None


def _is_type_uncertain(rules: Rules, prediction: Prediction) -> bool:
    evidence, probabilities = rules.evidence, prediction.type_probabilities
    if probabilities[prediction.question_type] < rules.least_type_probability:
        return True
    unknown = 0.0
    for name, probability in probabilities.items():  # a loop: a generator would cost the hot path a call per type
        if name not in evidence or evidence[name].kind == "none":
            unknown += probability
    return unknown > rules.no_evidence_limit


def meets_target(rules: Rules, evidence: Evidence, model: str, strong: str, target: float) -> bool:
    """Whether `model` keeps the target on a question type by its published or transferred results alone."""
    required = target * evidence.quality[strong].estimate - rules.published_tolerance
    return evidence.quality[model].estimate >= required
