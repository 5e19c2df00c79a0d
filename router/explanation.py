"""A decision on a whole body and what it rests on, for the terminal and `POST /router/decision`. Nothing is sent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from router.planning import decision_for, features_of
from router.policy.decision import Decision
from router.policy.features import Features
from router.policy.prediction import word_weights
from router.routing import asked
from router.serving import Serving
from router.surfaces import surface_of
from router.wire import bodies


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and what it rests on."""

    asked_model: str
    features: Features
    decision: Decision
    type_words: Mapping[str, float]  # the terms that weighed most for the type
    gap_words: Mapping[str, float]  # and for the gap


def explain(
    serving: Serving,
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
    name = bodies.text(fields, "model") or "auto"
    if target is None:
        target = asked(name, headers, serving.default_target, routed_models).target
    features = features_of(surface_of(fields), fields)
    decision = decision_for(serving, features, serving.default_target if target is None else target)
    return Explanation(name, features, decision, *word_weights(serving.policy.predictor, features))
