"""`GET /v1/models`: the routing names, followed by the upstream's models."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import msgspec
from fastapi import FastAPI, Request, Response

from router.client.keys import Caller, Keys
from router.client.model_names import NAMES, is_routing_name
from router.json_response import json_response
from router.request.passthrough import PassThrough
from router.request.response_headers import RATE_LIMIT_PREFIX
from router.settings import Settings
from router.upstream.model_list import fetch_models
from router.upstream.upstreams import Upstreams, returned_headers
from router.wire.text import DECODE_ERRORS

_CREATED = 1735689600  # 2025-01-01; clients require a number


class Collaborators(Protocol):
    """What the endpoints need."""

    keys: Keys
    settings: Settings
    upstreams: Upstreams
    passthrough: PassThrough


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        """Return the upstream's list with the routing names added."""
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require("models")
        status, headers, body = await fetch_models(
            worker.upstreams, worker.settings.timeouts.idle, request.scope["headers"], request.scope["query_string"]
        )
        routed = worker.settings.routed_models
        response = Response(_with_names(body, caller, routed) if status == 200 else body, status)
        # keys with limits see their own rate limits, not those of the upstream
        hidden = (b"content-length", *((RATE_LIMIT_PREFIX,) if caller.held_to else ()))
        response.raw_headers = [(n, v) for n, v in returned_headers(headers) if not n.startswith(hidden)]
        response.raw_headers.append((b"content-length", b"%d" % len(response.body)))
        return response

    @app.get("/v1/models/{name}")
    async def model(name: str, request: Request) -> Response:
        """Return one model. Routing names are answered here, other names by the upstream."""
        if not is_routing_name(name):
            return _PassThroughResponse(worker)
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require("models")
        caller.require_model(name)
        return json_response(_entry(name))


class _PassThroughResponse(Response):
    """Passes the request through to the upstream."""

    def __init__(self, worker: Collaborators) -> None:
        super().__init__()
        self._worker = worker

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._worker.passthrough(scope, receive, send)


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "router"}


def _with_names(body: bytes, caller: Caller, routed_models: Collection[str]) -> bytes:
    """Put the routing names first and remove models that the key may not use. Entries stay byte for byte."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        listed = msgspec.json.decode(fields["data"], type=list[msgspec.Raw])
    except (*DECODE_ERRORS, KeyError):
        if not caller.models:
            return body
        fields, listed = {"object": msgspec.Raw(b'"list"')}, []
    if caller.models:
        listed = [raw for raw in listed if caller.may_use(_id(raw), routed_models)]
    names = [name for name in NAMES if caller.may_use(name)]
    fields["data"] = msgspec.Raw(msgspec.json.encode([*map(_entry, names), *listed]))
    return msgspec.json.encode(fields)


class _Listed(msgspec.Struct):
    id: str = ""


_listed = msgspec.json.Decoder(_Listed)


def _id(raw: msgspec.Raw) -> str:
    try:
        return _listed.decode(raw).id
    except DECODE_ERRORS:
        return ""
