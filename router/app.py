"""The application: hot endpoints as ASGI functions, everything else in FastAPI. Only here both are known."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

from fastapi import FastAPI, Request, Response

from router.adaptation.adapter import Adapter
from router.adaptation.lessons import described
from router.adaptation.watch import LessonWatch, following_lessons
from router.admission import Admission
from router.alerts.alerts import Alerts, in_words
from router.client.body import Receive, Send
from router.client.door import Door, preflight, shared
from router.client.keywatch import KeyWatch, following_keys
from router.dashboard import overview, page, recent
from router.endpoints import accounts, decisions, exposition, keys, listing, openapi, status
from router.errors import ClientLeftError, RouterError
from router.journal.refused import counted
from router.journal.writer import Journal
from router.lifetime import end_with_parent, is_one_of_several, on_hangup, told_to_end
from router.limits.budgets import Budgets, watching_budgets
from router.limits.limiter import Limiter
from router.metrics import Counts, Meter
from router.planning.api_formats import CHAT, COMPLETIONS, RESPONSES
from router.policy.repricing import moved, saving_now
from router.request import passthrough
from router.request.continuation import Continuations
from router.request.passthrough import PassThrough
from router.request.routed import RoutedEndpoint, Scope
from router.request.verification import Verifier
from router.serving.champion import following
from router.serving.policy import Serving, catalogue, prices, served_policy
from router.serving.retirement import watching
from router.serving.sentinel import SentinelWatch, following_sentinel
from router.settings import Settings, SettingsError, load
from router.upstream.attempts import Attempts
from router.upstream.calls import Headers
from router.upstream.upstreams import Upstreams

log = logging.getLogger("router")
_LAST_ANSWER: Headers = [(b"connection", b"close")]  # so that no client is about to ask when the connection ends
_OWN_ANSWER: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Router:
    """Everything one worker serves with."""

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

    def told(self, *, alerts: bool = False) -> list[str]:
        """What the owner should know: of the models, of the policy, and of what stores refused.

        With `alerts`, those of the last day in words; else how many there are, since `/health` needs no key.
        """
        told = [*self.warnings]
        raised = [each for each in self.alerts.recent() if each.alert.kind != "drifted"]  # the sentinel tells of those
        if alerts:
            told += [in_words(each) for each in raised]
        elif raised:
            kinds = ", ".join(sorted({each.alert.kind for each in raised}))
            told.append(f"{len(raised)} alerts in the last day ({kinds}); the page tells them to admin keys")
        if self.serving.problem:
            told.append(f"{self.serving.problem}; policy {self.serving.policy.version} serves")
        if made_from := self.serving.policy.about.get("transferred_from"):
            models = ",".join(model.name for model in self.serving.policy.rules.models)
            told.append(
                f"nothing was measured of {models}: policy {self.serving.policy.version} is transferred from that of "
                f"{' and '.join(made_from['models'])}; "
                f"calibrate with `python -m calibration run --models {models}`"
            )
        if self.keys.problem:
            told.append(f"the keys stay as they were: {self.keys.problem}")
        told += [problem for problem in (self.limiter.problem, self.limiter.away) if problem]
        if self.lesson_watch.problem:
            told.append(self.lesson_watch.problem)
        told += [
            f"{each.upstream} of {each.model} refuses its key ({each.key_refused}), so others are asked"
            for each in self.upstreams.standing()
            if each.key_refused
        ]
        told += self.sentinel_watch.told()
        told += self._repriced()
        refused = sum(counted(self.journal.directory).values())
        if refused:
            told.append(f"{refused} entries that were refused wait for `python -m router export --refused`")
        return told

    def learnt(self) -> list[dict[str, Any]]:
        """What models refused, what is done about it and since when, for readers."""
        return [described(lesson) for lesson in self.adapter.lessons]

    def _repriced(self) -> list[str]:
        """Whether the policy was certified at other prices, and what that does to what it saves."""
        policy, target = self.serving.policy, self.serving.default_target
        changed = moved(policy.rules.models, self.prices)
        if not changed:
            return []
        told = f"policy {policy.version} was made at other prices: {'; '.join(each.told for each in changed)}"
        rule, now = policy.rules.rule(target), saving_now(policy.rules, self.prices, target)
        if rule is not None and now is not None:
            told += (
                f"; at {target:g} it saves {now[0]:.0%} to {now[1]:.0%} now, {rule.expected_saving.estimate:.0%} then"
            )
        return [f"{told}; `python -m calibration reprice` certifies it anew"]

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

    def close(self) -> None:
        """Close the connections and the journal."""
        self.upstreams.close()
        self.journal.close()
        self.alerts.close()


class Application:
    """The ASGI application: who may not ask is refused, and what is asked most is answered before FastAPI sees it."""

    def __init__(self, router: Router, other: FastAPI) -> None:
        self.router = router
        self.other = other
        self._hot = router.routed
        settings = router.settings
        self._door = Door(settings.hosts, settings.cors_origins, router.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the endpoint it is for."""
        if scope["type"] != "http":
            await self.other(scope, receive, send)
            return
        if self.router.ending:
            send = _with_headers(send, _LAST_ANSWER)
        method, headers = scope["method"], scope["headers"]
        refusal = self._door.refusal(method, headers)
        if refusal is not None:
            body = refusal.body()
            await _answer(send, refusal.status, refusal.head(body), body)
            return
        origin = self._door.allowed(headers)
        if origin is not None:
            send = _with_headers(send, shared(origin))
        if method == "OPTIONS":
            await _answer(send, 204, preflight(origin, headers), b"")
            return
        endpoint = self._hot.get(scope["path"]) if method == "POST" else None
        if endpoint is None and not scope["path"].startswith("/v1"):
            send = _with_headers(send, _OWN_ANSWER)
        await (endpoint or self.other)(scope, receive, send)


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send, more: Headers) -> Send:
    """Send answers with more headers, but for those that they have."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            there = {name for name, _ in message["headers"]}
            message = {**message, "headers": [*message["headers"], *(h for h in more if h[0] not in there)]}
        await send(message)

    return sending


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RouterError)
    body = error.body()
    response = Response(body, error.status)
    response.raw_headers = error.head(body)
    return response


async def _nobody(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # which nobody reads


def create_app(settings: Settings | None = None) -> Application:
    """The application for one worker.

    Raises:
        SettingsError, PolicyError: what it would run on does not fit its form, keys.json included.
    """
    router = Router(settings or load())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        timeouts = router.settings.timeouts
        end_with_parent(timeouts.ending)
        with told_to_end(timeouts.drain_before, router.end), on_hangup(router.reload):
            async with (
                router.meter.writing(router.counts),
                watching(router),
                following(router),
                following_keys(router.key_watch),
                following_lessons(router.lesson_watch),
                watching_budgets(router.budgets),
                following_sentinel(router.sentinel_watch),
                router.limiter.running(),
            ):
                yield
        router.close()

    other = FastAPI(
        title="Calibrated router",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to whatever the Host header says
        exception_handlers={RouterError: _refused, ClientLeftError: _nobody},
    )
    for module in (accounts, status, page, decisions, exposition, overview, recent, keys, listing, openapi):
        module.add_routes(other, router)
    passthrough.add_routes(other, router)  # takes what is left of /v1
    return Application(router, other)
