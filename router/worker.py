"""The composition root of a worker: every part is made here, and started and closed with the application."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date

from router.adaptation.adapter import Adapter
from router.adaptation.watch import LessonWatch, following_lessons
from router.admission import Admission
from router.alerts.alerts import Alerts
from router.client.keywatch import KeyWatch, following_keys
from router.journal.writer import Journal
from router.lifetime import end_with_parent, is_one_of_several, on_hangup, told_to_end
from router.limits.budgets import Budgets, watching_budgets
from router.limits.limiter import Limiter
from router.metrics import Counts, Meter
from router.planning.api_formats import CHAT, COMPLETIONS, RESPONSES
from router.request.continuation import Continuations
from router.request.passthrough import PassThrough
from router.request.routed import RoutedEndpoint
from router.request.verification import Verifier
from router.serving.champion import following
from router.serving.policy import Serving, catalogue, prices, served_policy
from router.serving.retirement import watching
from router.serving.sentinel import SentinelWatch, following_sentinel
from router.settings import Settings, SettingsError, load
from router.upstream.attempts import Attempts
from router.upstream.upstreams import Upstreams

log = logging.getLogger("router")


class Worker:
    """The parts that one worker process serves with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.serving = Serving(*served_policy(settings), settings)
        self.prices = prices(settings)
        self.key_watch = KeyWatch(settings)
        self.keys = self.key_watch.keys
        self.adapter = Adapter(catalogue(self.prices.aliases), settings)
        self.lesson_watch = LessonWatch(self.adapter, settings.home)
        self.upstreams = Upstreams(settings)
        self.attempts = Attempts(self.upstreams, settings)
        self.admission = Admission(settings.max_requests, settings.memory_budget_mb * 2**20)
        self.verifier = Verifier(self)
        self.limiter = Limiter(self, alone=not is_one_of_several())
        self.alerts = Alerts(settings)
        self.budgets = Budgets(self.limiter, self.alerts)
        self.sentinel_watch = SentinelWatch(self)
        self.sentinel_watch.look()  # before the first request
        self.journal = Journal(settings.home / "journal")
        self.meter = Meter(settings.home / "metrics", self._known_models(), self.keys.names)
        self.ending = False  # told to end: what is asked is still answered
        self.warnings: list[str] = []  # what the owner should know of the models
        self.leaving: dict[str, date] = {}  # the day on which each model of the policy leaves its upstream
        self.continuations = Continuations(self.upstreams, self.prices)
        self.routed = {
            f"/v1{surface.path.decode()}": RoutedEndpoint(surface, self) for surface in (CHAT, COMPLETIONS, RESPONSES)
        }
        self.passthrough = PassThrough(self)

    def _known_models(self) -> set[str]:
        policy = (model.name for model in self.serving.policy.rules.models)
        return {*self.prices.prices, *self.prices.aliases, *self.settings.models, *policy}

    def counts(self) -> Counts:
        """What this worker counted, for `/metrics`."""
        upstreams = self.upstreams
        counts = self.meter.counts(
            upstreams.open_circuits(), self.journal.unrecorded, self.admission.shed, upstreams.labelled
        )
        counts.state_away = int(bool(self.limiter.away))
        return counts

    def end(self) -> None:
        """Say that this worker is about to end."""
        self.ending = True

    def reload(self) -> None:
        """Look at what is followed, and say which settings are others now: those take a restart."""
        self.key_watch.look()
        try:
            now = load()
        except SettingsError as error:
            log.error("SIGHUP: the settings cannot be read, and stay: %s", error)
            return
        changed = [name for name in Settings.model_fields if getattr(now, name) != getattr(self.settings, name)]
        if changed:
            log.warning("SIGHUP: %s changed, which takes a restart of a router with one worker", ", ".join(changed))
        else:
            log.info("SIGHUP: no setting changed; keys and policy are followed without it")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep up with what changes while requests are served; close everything at the end."""
        timeouts = self.settings.timeouts
        end_with_parent(timeouts.ending)
        with told_to_end(timeouts.drain_before, self.end), on_hangup(self.reload):
            async with (
                self.meter.writing(self.counts),
                watching(self),
                following(self),
                following_keys(self.key_watch),
                following_lessons(self.lesson_watch),
                watching_budgets(self.budgets),
                following_sentinel(self.sentinel_watch),
                self.limiter.running(),
            ):
                yield
        self.close()

    def close(self) -> None:
        """Close the connections and the journal."""
        self.upstreams.close()
        self.journal.close()
        self.alerts.close()
