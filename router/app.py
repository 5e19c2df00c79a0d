"""The application: hot endpoints as ASGI functions, everything else in FastAPI. Only here both are known."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.routing import Route

from router.client.body import Receive, Send
from router.client.door import Door, preflight, shared
from router.dashboard import overview, page, recent
from router.endpoints import accounts, decisions, exposition, keys, listing, openapi, status
from router.errors import ClientDisconnectedError, RouterError
from router.request.routed import Scope
from router.settings import Settings, load
from router.upstream.calls import Headers
from router.worker import Worker

log = logging.getLogger("router")
_LAST_ANSWER: Headers = [(b"connection", b"close")]  # so that no client is about to ask when the connection ends
_OWN_ANSWER: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Application:
    """The ASGI application: who may not ask is refused, and what is asked most is answered before FastAPI sees it."""

    def __init__(self, worker: Worker, other: FastAPI) -> None:
        self.worker = worker
        self.other = other
        self._hot = worker.routed
        settings = worker.settings
        self._door = Door(settings.hosts, settings.cors_origins, worker.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the endpoint it is for."""
        if scope["type"] != "http":
            await self.other(scope, receive, send)
            return
        if self.worker.ending:
            send = _with_headers(send, _LAST_ANSWER)
        method, headers = scope["method"], scope["headers"]
        refusal = self._door.refusal(method, headers)
        if refusal is not None:
            body = refusal.body()
            await _answer(send, refusal.status, refusal.response_headers(body), body)
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
    response.raw_headers = error.response_headers(body)
    return response


async def _nobody(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # which nobody reads


def create_app(settings: Settings | None = None) -> Application:
    """The application for one worker.

    Raises:
        SettingsError, PolicyError: what it would run on does not fit its form, keys.json included.
    """
    worker = Worker(settings or load())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with worker.running():
            yield

    other = FastAPI(
        title="Calibrated router",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to whatever the Host header says
        exception_handlers={RouterError: _refused, ClientDisconnectedError: _nobody},
    )
    page.add_routes(other)
    openapi.add_routes(other)
    for module in (accounts, status, decisions, exposition, overview, recent, keys, listing):
        module.add_routes(other, worker)
    other.router.routes.append(Route("/v1/{path:path}", endpoint=worker.passthrough))  # takes what is left of /v1
    return Application(worker, other)
