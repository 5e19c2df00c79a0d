"""`GET /v1/models`: the upstream's models, with the routing names before them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import FastAPI, Request, Response

from router.client.keys import Caller
from router.client.model_names import NAMES, is_routing_name
from router.errors import UnreachableError
from router.request.response_headers import RATES
from router.upstream.calls import Call, ConnectError, CutError, StallError, read_whole
from router.upstream.upstreams import passed_back
from router.wire.text import UNREADABLE

if TYPE_CHECKING:
    from router.app import Router

_CREATED = 1735689600  # 2025-01-01; the names have no birthday, and clients want a number


def add_routes(app: FastAPI, router: Router) -> None:
    """Add the endpoints."""

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        """The list of the upstream, with the routing names added."""
        caller = router.keys.check(request.scope["headers"])
        caller.require("models")
        status, headers, body = await fetch(router, request.scope["headers"], request.scope["query_string"])
        routed = router.settings.routed_models
        response = Response(_with_names(body, caller, routed) if status == 200 else body, status)
        hidden = (b"content-length", *((RATES,) if caller.limits is not None else ()))  # the rates are the owner's
        response.raw_headers = [(n, v) for n, v in passed_back(headers) if not n.startswith(hidden)]
        response.raw_headers.append((b"content-length", b"%d" % len(response.body)))
        return response

    @app.get("/v1/models/{name}")
    async def model(name: str, request: Request) -> Response:
        """One model; the routing names are known here, the others are the upstream's."""
        if not is_routing_name(name):
            return _PassOn(router)
        caller = router.keys.check(request.scope["headers"])
        caller.require("models")
        caller.require_model(name)
        return Response(msgspec.json.encode(_entry(name)), media_type="application/json")


class _PassOn(Response):
    """Leaves the answer to the upstream."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self._router = router

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._router.passthrough(scope, receive, send)


async def fetch(
    router: Router, given: list[tuple[bytes, bytes]], query: bytes
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the upstream's list.

    Raises:
        UnreachableError: there is none.
    """
    upstreams = router.upstreams
    headers = upstreams.headers(upstreams.default, given, readable=True)
    try:
        call = Call(b"GET", b"/models" + (b"?" + query if query else b""), headers)
        answer = await upstreams.send(upstreams.default, call)
        body = await read_whole(answer, router.settings.timeouts.idle)
    except (ConnectError, CutError, StallError) as error:
        raise UnreachableError(f"The list of models could not be read: {error}.") from error
    return answer.status, answer.headers, body


def _entry(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "router"}


def _with_names(body: bytes, caller: Caller, routed_models: Collection[str]) -> bytes:
    """The list with the routing names first, as far as the key may ask for them; the entries byte for byte."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        listed = msgspec.json.decode(fields["data"], type=list[msgspec.Raw])
    except (*UNREADABLE, KeyError):
        if not caller.models:
            return body
        fields, listed = {"object": msgspec.Raw(b'"list"')}, []
    if caller.models:
        listed = [raw for raw in listed if caller.may_ask_for(_id(raw), routed_models)]
    names = [name for name in NAMES if caller.may_ask_for(name)]
    fields["data"] = msgspec.Raw(msgspec.json.encode([*map(_entry, names), *listed]))
    return msgspec.json.encode(fields)


class _Listed(msgspec.Struct):
    id: str = ""


_listed = msgspec.json.Decoder(_Listed)


def _id(raw: msgspec.Raw) -> str:
    try:
        return _listed.decode(raw).id
    except UNREADABLE:
        return ""
