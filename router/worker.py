"""The composition root of a worker process. It creates, starts and closes all parts of the router."""

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
from router.lifetime import delayed_shutdown, exempt_from_collection, exit_with_parent, is_child_worker, on_hangup
from router.limits.budgets import Budgets, watching_budgets
from router.limits.limiter import Limiter
from router.limits.standings import Standings
from router.metrics import Counts, Meter
from router.planning.api_formats import CHAT, COMPLETIONS, RESPONSES
from router.request.continuation import Continuations
from router.request.passthrough import PassThrough
from router.request.routed import RoutedEndpoint
from router.request.verification import Verifier
from router.serving.champion import following_champion
from router.serving.policy import Serving, catalogue, prices, served_policy
from router.serving.retirement import watching_shutdowns
from router.serving.sentinel import SentinelWatch, following_sentinel
from router.settings import Settings, SettingsError, load
from router.upstream.attempts import Attempts
from router.upstream.upstreams import Upstreams

log = logging.getLogger("router")


class Worker:
    """All parts of one worker process."""

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
        self.limiter = Limiter(self, alone=not is_child_worker())
        self.alerts = Alerts(settings)
        self.budgets = Budgets(self.limiter, self.alerts)
        self.sentinel_watch = SentinelWatch(self)
        self.sentinel_watch.check()  # before the first request
        self.journal = Journal(settings.home / "journal")
        self.standings = Standings(settings.usage_url, self.journal.directory)
        self.meter = Meter(settings.home / "metrics", self._known_models(), self.keys.names)
        self.shutting_down = False  # since SIGTERM; requests are still answered
        self.warnings: list[str] = []  # messages about models for the operator
        self.shutdown_dates: dict[str, date] = {}  # by model of the policy
        self.continuations = Continuations(self.upstreams, self.prices)
        self.routed = {
            f"/v1{surface.path.decode()}": RoutedEndpoint(surface, self) for surface in (CHAT, COMPLETIONS, RESPONSES)
        }
        self.passthrough = PassThrough(self)

    def _known_models(self) -> set[str]:
        policy = (model.name for model in self.serving.policy.rules.models)
        return {*self.prices.prices, *self.prices.aliases, *self.settings.models, *policy}

    def counts(self) -> Counts:
        """The counters of this worker, for `/metrics`."""
        upstreams = self.upstreams
        counts = self.meter.counts(
            upstreams.open_circuits(), self.journal.unrecorded, self.admission.shed, upstreams.labelled
        )
        counts.state_away = int(bool(self.limiter.away))
        counts.in_flight = self.admission.requests
        return counts

    def start_shutdown(self) -> None:
        """Report not ready from now on."""
        self.shutting_down = True

    def reload(self) -> None:
        """Reload the keys, and log which settings have changed. Changed settings take effect after a restart."""
        self.key_watch.check()
        try:
            current = load()
        except SettingsError as error:
            log.error("SIGHUP: the settings cannot be read and were not changed: %s", error)
            return
        changed = [name for name in Settings.model_fields if getattr(current, name) != getattr(self.settings, name)]
        if changed:
            log.warning("SIGHUP: %s changed; restart the router to apply the new values", ", ".join(changed))
        else:
            log.info("SIGHUP: no setting changed; changes of keys and policy are applied automatically")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the background tasks while requests are served, and close everything at the end."""
        timeouts = self.settings.timeouts
        exit_with_parent(timeouts.shutdown)
        with delayed_shutdown(timeouts.drain_before, self.start_shutdown), on_hangup(self.reload):
            async with (
                self.meter.writing(self.counts),
                watching_shutdowns(self),
                following_champion(self),
                following_keys(self.key_watch),
                following_lessons(self.lesson_watch),
                watching_budgets(self.budgets),
                following_sentinel(self.sentinel_watch),
                self.limiter.running(),
            ):
                exempt_from_collection()
                yield
        self.close()

    def close(self) -> None:
        """Close the connections and the journal."""
        self.upstreams.close()
        self.journal.close()
        self.alerts.close()
