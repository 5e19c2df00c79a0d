"""The request for log probabilities that the check by content reads. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from router.adaptation.adapter import Adapter
from router.policy.document import Policy
from router.policy.logprobs import logprobs_change, requests_logprobs
from router.policy.naming import effort_of
from router.policy.parameters import UNCHANGED, Adaptation, Change


@dataclass(frozen=True, slots=True)
class LogprobsRequest:
    """Whether an answer of the cheap model will have log probabilities, and what requests them."""

    is_available: bool = False
    change: Change | None = None  # None if the client requests them itself

    def add_to(self, adaptations: Mapping[str, Adaptation], model: str) -> Mapping[str, Adaptation]:
        """The adaptations with the request for log probabilities of a model."""
        if self.change is None:
            return adaptations
        adaptation = adaptations.get(model, UNCHANGED)
        return {**adaptations, model: replace(adaptation, changes=(*adaptation.changes, self.change))}


UNAVAILABLE = LogprobsRequest()


def plan_logprobs(
    policy: Policy, adapter: Adapter, fields: Mapping[str, msgspec.Raw], endpoint: str
) -> LogprobsRequest:
    """How the cheap model is asked for log probabilities, if the policy reads them for any type."""
    if policy.answers is None or not policy.answers.predictor.has_logprobs:
        return UNAVAILABLE
    if requests_logprobs(fields, endpoint):
        return LogprobsRequest(endpoint != "completions")
    cheap = policy.rules.models[0].name
    change = logprobs_change(adapter.support_of(cheap), fields, endpoint, effort_of(cheap)) if adapter.adapts else None
    return LogprobsRequest(change is not None, change)
