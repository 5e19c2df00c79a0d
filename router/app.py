"""The ASGI application. Routed endpoints are plain ASGI functions for speed; all others are FastAPI routes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.routing import Route

from router.client.body import Receive, Scope, Send
from router.client.origin_policy import OriginPolicy, cors_headers, preflight_headers
from router.dashboard import overview, page, recent
from router.endpoints import accounts, decisions, exposition, keys, listing, openapi, status, teams
from router.errors import ClientDisconnectedError, RouterError
from router.settings import Settings, load
from router.upstream.calls import Headers
from router.worker import Worker

log = logging.getLogger("router")
_CLOSE_CONNECTION: Headers = [(b"connection", b"close")]  # during shutdown
_OWN_RESPONSE: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Application:
    """Checks the origin of each request, and passes it to a routed endpoint or to FastAPI."""

    def __init__(self, worker: Worker, fastapi: FastAPI) -> None:
        self.worker = worker
        self.fastapi = fastapi
        self._routed = worker.routed
        settings = worker.settings
        self._origin_policy = OriginPolicy(settings.hosts, settings.cors_origins, worker.keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.fastapi(scope, receive, send)
            return
        if self.worker.shutting_down:
            send = _with_headers(send, _CLOSE_CONNECTION)
        method, headers = scope["method"], scope["headers"]
        error = self._origin_policy.check(method, headers)
        if error is not None:
            body = error.body()
            await _respond(send, error.status, error.response_headers(body), body)
            return
        origin = self._origin_policy.allowed_origin(headers)
        if origin is not None:
            send = _with_headers(send, cors_headers(origin))
        if method == "OPTIONS":
            await _respond(send, 204, preflight_headers(origin, headers), b"")
            return
        endpoint = self._routed.get(scope["path"]) if method == "POST" else None
        if endpoint is None and not scope["path"].startswith("/v1"):
            send = _with_headers(send, _OWN_RESPONSE)
        await (endpoint or self.fastapi)(scope, receive, send)


async def _respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send, extra: Headers) -> Send:
    """Wrap `send` to add headers that a response does not have yet."""

    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            message = {**message, "headers": [*message["headers"], *(h for h in extra if h[0] not in present)]}
        await send(message)

    return send_with_headers


async def _error_response(_: Request, error: Exception) -> Response:
    assert isinstance(error, RouterError)
    body = error.body()
    response = Response(body, error.status)
    response.raw_headers = error.response_headers(body)
    return response


async def _disconnected_response(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # nobody receives it


def create_app(settings: Settings | None = None) -> Application:
    """Create the application of one worker.

    Raises:
        SettingsError, PolicyError: the settings, the keys or the policy are invalid.
    """
    worker = Worker(settings or load())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with worker.running():
            yield

    fastapi = FastAPI(
        title="Calibrated router",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would use the host name of the request
        exception_handlers={RouterError: _error_response, ClientDisconnectedError: _disconnected_response},
    )
    page.add_routes(fastapi)
    openapi.add_routes(fastapi)
    for module in (accounts, status, decisions, exposition, overview, recent, keys, teams, listing):
        module.add_routes(fastapi, worker)
    fastapi.router.routes.append(Route("/v1/{path:path}", endpoint=worker.passthrough))  # all other paths of /v1
    return Application(worker, fastapi)
