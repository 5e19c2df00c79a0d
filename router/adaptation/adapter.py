"""What each model takes: as the table says, and as its upstream taught this worker by refusing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from router.adaptation.lessons import MOST_LESSONS, Lesson, described, upstream_of
from router.policy.catalogue import Catalogue
from router.policy.decision import Model, Reason
from router.policy.naming import effort_of, without_effort
from router.policy.parameters import UNCHANGED, Adaptation, Takes, adapted
from router.policy.refusals import Refusal, taught
from router.settings import Settings

log = logging.getLogger("router")
MOST_RULES = 32  # that are learnt of one model
MOST_MODELS = 1000
GONE_SECONDS = 300.0  # for which a model that was not found is not asked again


class Adapter:
    """Adapts requests to the models that a policy chooses, for one worker."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self.catalogue = catalogue
        self.adapts = settings.adapt
        self.lessons: list[Lesson] = []  # of this worker and others, the oldest first
        self.unsaved: list[Lesson] = []  # of these, what no other worker knows of yet
        self._settings = settings
        self._own_successors = {name: model.successor for name, model in settings.models.items() if model.successor}
        self._takes: dict[str, Takes] = {}
        self._gone: dict[str, float] = {}  # by model, until when by a clock that never goes back
        # of the policy's models: which fields may have to be changed, and from how many tokens an answer's limit
        self._watched: tuple[Sequence[Model], frozenset[str], float] = ((), frozenset(), 0.0)

    def described(self) -> list[dict[str, Any]]:
        """The lessons for readers: what each model refuses, what is done about it, and since when."""
        return [described(lesson) for lesson in self.lessons]

    def takes(self, model: str) -> Takes:
        """What is known of what a model takes, by its name in the policy."""
        found = self._takes.get(model)
        if found is None:
            found = self.catalogue.of(model).takes
            for lesson in self._lessons_of(model):
                found = taught(found, lesson.refusal, lesson.endpoint)
            if len(self._takes) < MOST_MODELS:
                self._takes[model] = found
        return found

    def adaptations(
        self, models: Sequence[Model], fields: Mapping[str, msgspec.Raw], endpoint: str, limit: int | None
    ) -> Mapping[str, Adaptation]:
        """What would have to be changed in a request for each of a policy's models that does not take it as it is.

        `limit` is the longest answer that it asks for, in tokens.
        """
        if self._watched[0] is not models:
            least = min(self.takes(model.name).least_limit() for model in models)
            self._watched = (models, self._watch(models), least)
        _, watched, most = self._watched
        if watched.isdisjoint(fields) and (limit is None or limit <= most):
            return {}
        found = {model.name: self._needed(model.name, fields, endpoint) for model in models}
        return {name: adaptation for name, adaptation in found.items() if adaptation is not UNCHANGED}

    def _watch(self, models: Sequence[Model]) -> frozenset[str]:
        """The fields that some model may not take as they are; "model", which all have, where one is set an effort."""
        watched = frozenset[str]().union(*(self.takes(model.name).watched() for model in models))
        return watched | {"model", "messages", "input"} if any(effort_of(model.name) for model in models) else watched

    def adaptation(self, model: str, fields: Mapping[str, msgspec.Raw], endpoint: str) -> Adaptation:
        """What is changed in a request for one model."""
        return self.allowed(self._needed(model, fields, endpoint))

    def _needed(self, model: str, fields: Mapping[str, msgspec.Raw], endpoint: str) -> Adaptation:
        return adapted(self.takes(model), fields, endpoint, effort_of(model) if ":" in model else "")

    def allowed(self, needed: Adaptation) -> Adaptation:
        """What is changed, of what would have to be: where the settings allow nothing, the effort of a model's name."""
        if self.adapts:
            return needed
        changes = tuple(change for change in needed.changes if _sets(change.told, needed.effort))
        return replace(needed, changes=changes) if changes else UNCHANGED

    def unfit(self, adaptations: Mapping[str, Adaptation]) -> Mapping[str, Reason]:
        """The models that cannot give what the request asks for, or that it may not be adapted to."""
        unfit = {}
        for name, adaptation in adaptations.items():
            changed = [change for change in adaptation.changes if not _sets(change.told, adaptation.effort)]
            if "tools with reasoning" in adaptation.lost:
                unfit[name] = Reason.TOOLS
            elif adaptation.lost or (changed and not self.adapts):
                unfit[name] = Reason.PARAMETERS
        return unfit

    def learn(self, model: str, refusal: Refusal, endpoint: str) -> bool:
        """Note what a model refuses; whether that is new, so that the request may be sent again."""
        known = self.takes(model)
        takes = taught(known, refusal, endpoint)
        if takes == known or len(self._lessons_of(model)) >= MOST_RULES or len(self.lessons) >= MOST_LESSONS:
            return False
        lesson = Lesson(model, upstream_of(model, self._settings), endpoint, refusal, time.time())
        self.lessons.append(lesson)
        self.unsaved.append(lesson)
        self._forget_takes()
        told = described(lesson)
        log.warning("%s refuses %s on %s; from now on: %s", model, told["parameter"], endpoint, told["done"])
        return True

    def take(self, lessons: Iterable[Lesson]) -> None:
        """Know these lessons, and those that are not saved yet, in the place of all before."""
        self.lessons = [*lessons, *self.unsaved]
        self._forget_takes()

    def saved(self, lessons: Sequence[Lesson]) -> None:
        """Note that the first of the unsaved lessons are known to all."""
        del self.unsaved[: len(lessons)]

    def _lessons_of(self, model: str) -> list[Lesson]:
        upstream = upstream_of(model, self._settings)
        return [lesson for lesson in self.lessons if lesson.model == model and lesson.upstream == upstream]

    def _forget_takes(self) -> None:
        self._takes = {}
        self._watched = ((), frozenset(), 0.0)

    def successor(self, model: Model | None, name: str) -> str:
        """The model that answers for one that is gone: of the settings, else of the policy, else of the table."""
        own = self._own_successors.get(name) or self._own_successors.get(without_effort(name))
        if own:
            return "" if own == "none" else own
        return (model.successor if model is not None else "") or self.catalogue.of(name).successor

    def gone(self, model: str) -> None:
        """Note that an upstream does not know a model any more."""
        if model not in self._gone:
            log.error("%s is gone from its upstream", model)
        if len(self._gone) < MOST_MODELS:
            self._gone[model] = time.monotonic() + GONE_SECONDS

    def is_gone(self, model: str) -> bool:
        """Whether a model was found to be gone a short while ago."""
        until = self._gone.get(model)
        if until is not None and time.monotonic() >= until:
            del self._gone[model]
            return False
        return until is not None


def _sets(told: str, effort: str) -> bool:
    """Whether a change only sets the effort that the policy's name for the model asks for."""
    return bool(effort) and told == f"reasoning effort {effort}"
