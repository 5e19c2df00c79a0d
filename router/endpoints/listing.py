"""`GET /v1/models`: the upstream's models, with the routing names before them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import msgspec
from fastapi import FastAPI, Request, Response

from router.client.keys import Caller, Keys
from router.client.model_names import NAMES, is_routing_name
from router.request.passthrough import PassThrough
from router.request.response_headers import RATE_LIMIT_PREFIX
from router.settings import Settings
from router.upstream.model_list import fetch_models
from router.upstream.upstreams import Upstreams, returned_headers
from router.wire.text import DECODE_ERRORS

_CREATED = 1735689600  # 2025-01-01; the names have no birthday, and clients want a number


class Collaborators(Protocol):
    """What the list of models is made from."""

    keys: Keys
    settings: Settings
    upstreams: Upstreams
    passthrough: PassThrough


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        """The list of the upstream, with the routing names added."""
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require("models")
        status, headers, body = await fetch_models(
            worker.upstreams, worker.settings.timeouts.idle, request.scope["headers"], request.scope["query_string"]
        )
        routed = worker.settings.routed_models
        response = Response(_with_names(body, caller, routed) if status == 200 else body, status)
        hidden = (b"content-length", *((RATE_LIMIT_PREFIX,) if caller.held_to else ()))
        response.raw_headers = [(n, v) for n, v in returned_headers(headers) if not n.startswith(hidden)]
        response.raw_headers.append((b"content-length", b"%d" % len(response.body)))
        return response

    @app.get("/v1/models/{name}")
    async def model(name: str, request: Request) -> Response:
        """One model; the routing names are known here, the others are the upstream's."""
        if not is_routing_name(name):
            return _PassOn(worker)
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require("models")
        caller.require_model(name)
        return Response(msgspec.json.encode(_entry(name)), media_type="application/json")


class _PassOn(Response):
    """Leaves the answer to the upstream."""

    def __init__(self, worker: Collaborators) -> None:
        super().__init__()
        self._worker = worker

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._worker.passthrough(scope, receive, send)


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "router"}


def _with_names(body: bytes, caller: Caller, routed_models: Collection[str]) -> bytes:
    """The list with the routing names first, as far as the key may ask for them; the entries byte for byte."""
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
