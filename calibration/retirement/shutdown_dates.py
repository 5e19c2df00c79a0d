"""When models leave their upstream: as its list of models says, else as the table of models does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import openai

from calibration import network
from calibration.answers.answers import Endpoint
from calibration.policies import load_catalogue
from router.policy.shutdown import read_shutdown_days

SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Leaving:
    """The day from which a model does not answer any more."""

    model: str
    day: date | None  # None: nothing is known of its end
    source: str

    def told(self, today: date) -> str:
        """In words."""
        if self.day is None:
            return f"{self.model}: no day is known on which it leaves"
        days = (self.day - today).days
        when = f"in {days} days" if days > 0 else "today" if days == 0 else f"{-days} days ago"
        return f"{self.model} leaves on {self.day}, {when} ({self.source})"


def leaving(endpoints: Mapping[str, Endpoint], given: date | None = None) -> list[Leaving]:
    """When each model leaves: on the day `given`, else as its upstream lists it, else as `data/models.json` has it."""
    if given is not None:
        return [Leaving(model, given, "as given") for model in endpoints]
    catalogue = load_catalogue()
    listed: dict[str, object] = {}
    found = []
    for model, endpoint in endpoints.items():
        if endpoint.base_url not in listed:
            listed[endpoint.base_url] = _listed(endpoint)
        day = read_shutdown_days(listed[endpoint.base_url], [model], catalogue.aliases).get(model)
        if day is not None:
            found.append(Leaving(model, day, "its upstream's list of models"))
            continue
        known = catalogue.facts(model)
        found.append(Leaving(model, known.shutdown_date, known.source or "data/models.json"))
    return found


def _listed(endpoint: Endpoint) -> object:
    """The list of models of an upstream; an empty one where it cannot be read."""
    try:
        with network.openai_client(endpoint.base_url, endpoint.api_key, max_retries=1, timeout=SECONDS) as client:
            rows = client.models.list().data  # which may have days that the library does not know the form of
    except openai.OpenAIError:
        return {}
    return {"data": [{"id": row.id, "shutdown_date": getattr(row, "shutdown_date", None)} for row in rows]}
