"""Explains a decision, for the terminal and `POST /router/decision`, without sending the request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from router.adaptation.adapter import Adapter
from router.client.model_names import parse_model_name
from router.planning.api_formats import detect_api_format
from router.planning.plan import decision_for, read_features
from router.policy.decision import Decision
from router.policy.features import Features
from router.policy.prediction import word_weights
from router.serving.policy import Serving
from router.wire import bodies


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and its basis."""

    requested_model: str
    features: Features
    decision: Decision
    adapted: Mapping[str, str]  # by model, the changes to the request in words
    type_words: Mapping[str, float]  # the terms with the largest weights for the question type
    gap_words: Mapping[str, float]  # likewise for the gap


def explain(
    serving: Serving,
    adapter: Adapter,
    routed_models: Collection[str],
    body: bytes,
    headers: Mapping[bytes, bytes],
    target: float | None = None,
) -> Explanation:
    """Decide on the body of a chat completion, response or completion, for any model name.

    The target is `target`, else that of the model name or the headers, else the default.

    Raises:
        BadRequestError: the body cannot be read.
    """
    fields = bodies.read_fields(body)
    name = bodies.read_string(fields, "model") or "auto"
    if target is None:
        target = parse_model_name(name, headers, serving.default_target, routed_models).target
    features, adaptations = read_features(detect_api_format(fields), serving, adapter, fields)
    decision = decision_for(serving, features, serving.default_target if target is None else target)
    changes = {model: adaptation.description for model, adaptation in adaptations.items() if adaptation.description}
    return Explanation(name, features, decision, changes, *word_weights(serving.policy.predictor, features))
