"""Requests adapted to the parameters that each model accepts, by the table of models and by models' refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import openai

from router.policy.catalogue import Catalogue
from router.policy.logprobs import logprobs_change
from router.policy.naming import effort_of, without_effort
from router.policy.parameters import CHAT, Adaptation, ParameterSupport, apply_changes, compute_adaptation
from router.policy.refusals import read_refusal, support_after_refusal


class RequestAdapter:
    """Knows which parameters each model accepts, during one run. Thread-safe, since values are replaced atomically."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._takes: dict[str, ParameterSupport] = {}
        self._refusing_logprobs: set[str] = set()  # models that refused them in an error of unknown form

    def adapt(self, body: Mapping[str, Any], logprobs: bool = False) -> dict[str, Any]:
        """The body for the upstream of a chat body whose model has the name that it has in a policy.

        `logprobs` requests log probabilities as well, if the model gives them without any other change.
        """
        model = str(body["model"])
        changes = self._adaptation(body).changes
        if logprobs and model not in self._refusing_logprobs:
            change = logprobs_change(self._known(model), _fields(body), CHAT, effort_of(model))
            changes += () if change is None else (change,)
        return apply_changes({**body, "model": without_effort(model)}, changes)

    def describe_changes(self, body: Mapping[str, Any]) -> str:
        """A description of the changes to a chat body; "" where there are none."""
        return self._adaptation(body).description

    def _adaptation(self, body: Mapping[str, Any]) -> Adaptation:
        model = str(body["model"])
        return compute_adaptation(self._known(model), _fields(body), CHAT, effort_of(model))

    def learn_from_error(self, model: str, error: openai.APIStatusError) -> bool:
        """Learn from the refusal of a request; returns whether it was new, so that a retry makes sense."""
        refusal = read_refusal(error.status_code, error.response.content)
        if refusal is None:
            if error.status_code in (400, 422) and b"logprobs" in error.response.content:
                self._refusing_logprobs.add(model)
            return False
        known = self._known(model)
        self._takes[model] = support_after_refusal(known, refusal, CHAT)
        return self._takes[model] != known

    def _known(self, model: str) -> ParameterSupport:
        return self._takes.get(model) or self._catalogue.facts(model).support


def _fields(body: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}
