"""When models leave their upstream: as its list of models says, else as the table of models does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import openai

from calibration import network
from calibration.answers import Endpoint
from calibration.policies import load_catalogue
from router.policy.naming import without_effort

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
    listed: dict[str, dict[str, str]] = {}
    found = []
    for model, endpoint in endpoints.items():
        if endpoint.base_url not in listed:
            listed[endpoint.base_url] = _listed(endpoint)
        day = listed[endpoint.base_url].get(without_effort(model))
        if day is not None:
            found.append(Leaving(model, date.fromisoformat(day), "its upstream's list of models"))
            continue
        known = load_catalogue().of(model)
        found.append(Leaving(model, known.leaves, known.source or "data/models.json"))
    return found


def _listed(endpoint: Endpoint) -> dict[str, str]:
    """Days by model, as the list of an upstream tells them; none where it cannot be read or tells none."""
    try:
        with network.openai_client(endpoint.base_url, endpoint.api_key, max_retries=1, timeout=SECONDS) as client:
            rows: Iterable[object] = client.models.list().data
    except openai.OpenAIError:
        return {}
    days = {}
    for row in rows:
        name, day = getattr(row, "id", ""), getattr(row, "shutdown_date", None)
        if isinstance(day, str) and _is_day(day[:10]):
            days[str(name)] = day[:10]
    return days


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
