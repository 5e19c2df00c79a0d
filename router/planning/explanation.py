"""A decision on a whole body and what it rests on, for the terminal and `POST /router/decision`. Nothing is sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from router.adaptation.adapter import Adapter
from router.client.model_names import parse_model_name
from router.planning.api_formats import surface_of
from router.planning.plan import decision_for, read_features
from router.policy.decision import Decision
from router.policy.features import Features
from router.policy.prediction import word_weights
from router.serving.policy import Serving
from router.wire import bodies


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and what it rests on."""

    asked_model: str
    features: Features
    decision: Decision
    adapted: Mapping[str, str]  # by model, what would be changed in the request for it, in words
    type_words: Mapping[str, float]  # the terms that weighed most for the type
    gap_words: Mapping[str, float]  # and for the gap


def explain(
    serving: Serving,
    adapter: Adapter,
    routed_models: Collection[str],
    body: bytes,
    headers: Mapping[bytes, bytes],
    target: float | None = None,
) -> Explanation:
    """Decide on a chat, responses or completions body, whatever model it names.

    The target is the one given, else the one that the body's model or the headers name, else the default one.

    Raises:
        BadRequestError: the body cannot be read.
    """
    fields = bodies.read_fields(body)
    name = bodies.read_string(fields, "model") or "auto"
    if target is None:
        target = parse_model_name(name, headers, serving.default_target, routed_models).target
    features, adaptations = read_features(surface_of(fields), serving, adapter, fields)
    decision = decision_for(serving, features, serving.default_target if target is None else target)
    told = {model: adaptation.told for model, adaptation in adaptations.items() if adaptation.told}
    return Explanation(name, features, decision, told, *word_weights(serving.policy.predictor, features))
