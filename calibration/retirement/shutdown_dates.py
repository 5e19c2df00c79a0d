"""The shutdown dates of models: from the model list of their upstream, else from the shipped model table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import openai

from calibration import network
from calibration.answers.answers import Endpoint
from calibration.policies import load_catalogue
from router.policy.shutdown import read_shutdown_days

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The date from which a model no longer answers."""

    model: str
    day: date | None  # None: unknown
    source: str

    def describe(self, today: date) -> str:
        """A sentence for the terminal and for reports."""
        if self.day is None:
            return f"{self.model}: the shutdown date is unknown"
        days = (self.day - today).days
        relative = f"in {days} days" if days > 0 else "today" if days == 0 else f"{-days} days ago"
        return f"{self.model} shuts down on {self.day}, {relative} ({self.source})"


def find_shutdowns(endpoints: Mapping[str, Endpoint], day: date | None = None) -> list[Shutdown]:
    """The shutdown of each model: on `day`, else as listed by its upstream, else as in `data/models.json`."""
    if day is not None:
        return [Shutdown(model, day, "from --on") for model in endpoints]
    catalogue = load_catalogue()
    model_lists: dict[str, object] = {}  # by base URL
    shutdowns = []
    for model, endpoint in endpoints.items():
        if endpoint.base_url not in model_lists:
            model_lists[endpoint.base_url] = _fetch_model_list(endpoint)
        listed_day = read_shutdown_days(model_lists[endpoint.base_url], [model], catalogue.aliases).get(model)
        if listed_day is not None:
            shutdowns.append(Shutdown(model, listed_day, "its upstream's model list"))
            continue
        known = catalogue.facts(model)
        shutdowns.append(Shutdown(model, known.shutdown_date, known.source or "data/models.json"))
    return shutdowns


def _fetch_model_list(endpoint: Endpoint) -> object:
    """The model list of an upstream; empty if it cannot be read."""
    try:
        with network.openai_client(
            endpoint.base_url, endpoint.api_key, max_retries=1, timeout=TIMEOUT_SECONDS
        ) as client:
            rows = client.models.list().data
    except openai.OpenAIError:
        return {}
    return {"data": [{"id": row.id, "shutdown_date": getattr(row, "shutdown_date", None)} for row in rows]}
