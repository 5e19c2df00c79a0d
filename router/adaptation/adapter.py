"""Adapts requests to models, by the table of models and by what upstreams refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from router.adaptation.lessons import MAX_LESSONS, Lesson, describe_lesson, upstream_hosts
from router.policy.catalogue import Catalogue
from router.policy.naming import effort_of, without_effort
from router.policy.parameters import UNCHANGED, Adaptation, ParameterSupport, compute_adaptation
from router.policy.reasons import Reason
from router.policy.refusals import Refusal, support_after_refusal
from router.policy.rules import Model
from router.settings import Settings

log = logging.getLogger("router")
MAX_RULES = 32  # learnt per model
MAX_MODELS = 1000
MISSING_SECONDS = 300.0  # during which a model that an upstream does not know is not requested again


class Adapter:
    """Adapts the requests of one worker to the models that the policy chooses."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self.catalogue = catalogue
        self.adapts = settings.adapt
        self.lessons: list[Lesson] = []  # of all workers, the oldest first
        self.unsaved: list[Lesson] = []  # those of them that are not in the file yet
        self._settings = settings
        self._configured_successors = {
            name: model.successor for name, model in settings.models.items() if model.successor
        }
        self._support: dict[str, ParameterSupport] = {}
        self._missing_until: dict[str, float] = {}  # by model, in seconds of the monotonic clock
        # the policy's models, the fields that they may require to change, and their lowest limit on output tokens
        self._model_fields: tuple[Sequence[Model], frozenset[str], float] = ((), frozenset(), 0.0)

    def describe_lessons(self) -> list[dict[str, Any]]:
        """The lessons for display: what each model refuses, what the router does instead, and since when."""
        return [describe_lesson(lesson) for lesson in self.lessons]

    def support_of(self, model: str) -> ParameterSupport:
        """The parameters that a model supports, as far as known, by its name in the policy."""
        support = self._support.get(model)
        if support is None:
            support = self.catalogue.facts(model).support
            for lesson in self._lessons_of(model):
                support = support_after_refusal(support, lesson.refusal, lesson.endpoint)
            if len(self._support) < MAX_MODELS:
                self._support[model] = support
        return support

    def adaptations(
        self, models: Sequence[Model], fields: Mapping[str, msgspec.Raw], endpoint: str, limit: int | None
    ) -> Mapping[str, Adaptation]:
        """The changes that each of a policy's models requires of a request; without models that require none.

        `limit` is the request's limit on output tokens.
        """
        if self._model_fields[0] is not models:
            lowest = min(self.support_of(model.name).lowest_limit() for model in models)
            self._model_fields = (models, self._affected_fields(models), lowest)
        _, affected, lowest = self._model_fields
        if affected.isdisjoint(fields) and (limit is None or limit <= lowest):
            return {}
        required = {model.name: self._required(model.name, fields, endpoint) for model in models}
        return {name: adaptation for name, adaptation in required.items() if adaptation is not UNCHANGED}

    def _affected_fields(self, models: Sequence[Model]) -> frozenset[str]:
        """The fields that some model may require to change; those of every request if a model's name sets an effort."""
        affected = frozenset[str]().union(*(self.support_of(model.name).affected_fields() for model in models))
        return affected | {"model", "messages", "input"} if any(effort_of(model.name) for model in models) else affected

    def adaptation(self, model: str, fields: Mapping[str, msgspec.Raw], endpoint: str) -> Adaptation:
        """The changes made to a request for one model."""
        return self.permitted(self._required(model, fields, endpoint))

    def _required(self, model: str, fields: Mapping[str, msgspec.Raw], endpoint: str) -> Adaptation:
        return compute_adaptation(self.support_of(model), fields, endpoint, effort_of(model) if ":" in model else "")

    def permitted(self, required: Adaptation) -> Adaptation:
        """The required changes that the settings permit; the effort that a model's name sets is always permitted."""
        if self.adapts:
            return required
        changes = tuple(change for change in required.changes if _sets_effort(change.description, required.effort))
        return replace(required, changes=changes) if changes else UNCHANGED

    def unsuitable_models(self, adaptations: Mapping[str, Adaptation]) -> Mapping[str, Reason]:
        """The models that cannot give what the request asks for, or that require changes which are not permitted."""
        unsuitable: dict[str, Reason] = {}
        for name, adaptation in adaptations.items():
            changed = [
                change for change in adaptation.changes if not _sets_effort(change.description, adaptation.effort)
            ]
            if "tools with reasoning" in adaptation.unavailable:
                unsuitable[name] = Reason.TOOLS
            elif adaptation.unavailable or (changed and not self.adapts):
                unsuitable[name] = Reason.PARAMETERS
        return unsuitable

    def learn(self, model: str, refusal: Refusal, endpoint: str) -> bool:
        """Record what a model refuses. True if that is new, so that the adapted request may be sent."""
        known = self.support_of(model)
        is_new = support_after_refusal(known, refusal, endpoint) != known
        if not is_new or len(self._lessons_of(model)) >= MAX_RULES or len(self.lessons) >= MAX_LESSONS:
            return False
        lesson = Lesson(model, upstream_hosts(model, self._settings), endpoint, refusal, time.time())
        self.lessons.append(lesson)
        self.unsaved.append(lesson)
        self._clear_support()
        description = describe_lesson(lesson)
        parameter, remedy = description["parameter"], description["done"]
        log.warning("model %s refuses %s on %s; from now on: %s", model, parameter, endpoint, remedy)
        return True

    def replace_lessons(self, lessons: Iterable[Lesson]) -> None:
        """Replace all lessons but the unsaved ones."""
        self.lessons = [*lessons, *self.unsaved]
        self._clear_support()

    def mark_saved(self, lessons: Sequence[Lesson]) -> None:
        """Record that the first of the unsaved lessons are in the file."""
        del self.unsaved[: len(lessons)]

    def _lessons_of(self, model: str) -> list[Lesson]:
        upstream = upstream_hosts(model, self._settings)
        return [lesson for lesson in self.lessons if lesson.model == model and lesson.upstream == upstream]

    def _clear_support(self) -> None:
        self._support = {}
        self._model_fields = ((), frozenset(), 0.0)

    def successor(self, model: Model | None, name: str) -> str:
        """The successor of a retired model: from the settings, else the policy, else the table; "" if none."""
        configured = self._configured_successors.get(name) or self._configured_successors.get(without_effort(name))
        if configured:
            return "" if configured == "none" else configured
        return (model.successor if model is not None else "") or self.catalogue.facts(name).successor

    def mark_missing(self, model: str) -> None:
        """Record that an upstream does not know a model."""
        if model not in self._missing_until:
            log.error("model %s does not exist at its upstream any more", model)
        if len(self._missing_until) < MAX_MODELS:
            self._missing_until[model] = time.monotonic() + MISSING_SECONDS

    def is_missing(self, model: str) -> bool:
        """Whether an upstream recently did not know a model."""
        until = self._missing_until.get(model)
        if until is not None and time.monotonic() >= until:
            del self._missing_until[model]
            return False
        return until is not None


def _sets_effort(description: str, effort: str) -> bool:
    """Whether a change only sets the effort that the policy's name for the model sets."""
    return bool(effort) and description == f"reasoning effort {effort}"
