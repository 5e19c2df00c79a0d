"""Questions in the form that each model takes: as the table of models says, and as the models' refusals teach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import openai

from router.policy.catalogue import Catalogue
from router.policy.naming import effort_of, without_effort
from router.policy.parameters import CHAT, Adaptation, Takes, adapted, apply
from router.policy.refusals import read_refusal, taught


class Adapting:
    """What each model takes, for one run. Safe to share among threads: what is known is replaced as a whole."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._takes: dict[str, Takes] = {}

    def sent(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A chat body that names a model as a policy does, as that model's upstream takes it."""
        model = without_effort(str(body["model"]))
        return apply({**body, "model": model}, self._adaptation(body).changes)

    def told(self, body: Mapping[str, Any]) -> str:
        """What is changed in a chat body, in words; "" where nothing is."""
        return self._adaptation(body).told

    def _adaptation(self, body: Mapping[str, Any]) -> Adaptation:
        model = str(body["model"])
        fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}
        return adapted(self._known(model), fields, CHAT, effort_of(model))

    def learn(self, model: str, error: openai.APIStatusError) -> bool:
        """Note what a model refuses; whether that is new, so that the question may be asked again."""
        refusal = read_refusal(error.status_code, error.response.content)
        if refusal is None:
            return False
        known = self._known(model)
        self._takes[model] = taught(known, refusal, CHAT)
        return self._takes[model] != known

    def _known(self, model: str) -> Takes:
        return self._takes.get(model) or self._catalogue.of(model).takes
