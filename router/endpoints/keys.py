"""`/router/keys`: manage named keys with an admin key. The command `python -m router keys` shares its code."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.client import issuing, keystore
from router.client.keyfile import NamedKey, Owner, read_keys
from router.endpoints.management import (
    Collaborators,
    LimitChange,
    apply,
    done,
    known_standings,
    manager,
    read_form,
    refusal,
    spending,
)
from router.json_response import json_response
from router.limits.standings import Standing


class KeyCreation(LimitChange, forbid_unknown_fields=True, kw_only=True):
    """The body of a request to create a key."""

    name: str
    team: str = ""
    models: tuple[str, ...] = ()
    paths: tuple[str, ...] | None = None
    expires: str = ""
    admin: bool = False


class KeyChange(LimitChange, forbid_unknown_fields=True, kw_only=True):
    """The body of a request to change a key."""

    team: str | None = None  # "none" for no team


class KeyRotation(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to rotate a key."""

    grace: str = "0"


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    @app.get("/router/keys")
    async def show_all(request: Request) -> Response:
        """List all keys with rights, limits, expiry, spending and last use."""
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require_admin()
        keys = await run_in_threadpool(done, lambda: read_keys(worker.settings.keys_path))
        spent = await run_in_threadpool(known_standings, worker.standings)
        now, why = time.time(), refusal(caller, keyed=worker.keys.required)
        return json_response(
            {"keys": [_as_mapping(key, now, spent) for key in keys], "may_change": not why, "why": why}
        )

    @app.post("/router/keys")
    async def add(request: Request) -> Response:
        """Create a key. Only this response contains its secret."""
        by = manager(worker, request)
        form = await read_form(request, KeyCreation)
        change = partial(
            keystore.add_key,
            worker.settings,
            form.name,
            models=form.models,
            paths=form.paths,
            expires=form.expires,
            admin=form.admin,
            limits=form.limits(),
            team=form.team,
        )
        key, secret = await apply(worker, by, "created", Owner("key", form.name), change)
        return json_response({**keystore.key_as_mapping(key, time.time()), "key": secret}, 201)

    @app.get("/router/keys/{name}")
    async def show(name: str, request: Request) -> Response:
        """Return one key."""
        worker.keys.authenticate(request.scope["headers"]).require_admin()
        key = await run_in_threadpool(done, lambda: issuing.find_key(read_keys(worker.settings.keys_path), name))
        return json_response(_as_mapping(key, time.time(), await run_in_threadpool(known_standings, worker.standings)))

    @app.patch("/router/keys/{name}")
    async def limit(name: str, request: Request) -> Response:
        """Change the limits and team of a key; "none" removes a limit or the team."""
        by = manager(worker, request)
        form = await read_form(request, KeyChange)
        change = partial(keystore.limit_key, worker.settings, name, form.limits(), form.team)
        key = await apply(worker, by, "limited", Owner("key", name), change)
        return json_response(keystore.key_as_mapping(key, time.time()))

    @app.delete("/router/keys/{name}")
    async def revoke(name: str, request: Request) -> Response:
        """Revoke a key permanently. Requests in flight complete."""
        by = manager(worker, request)
        change = partial(keystore.revoke_key, worker.settings, name)
        key = await apply(worker, by, "revoked", Owner("key", name), change)
        return json_response(keystore.key_as_mapping(key, time.time()))

    @app.post("/router/keys/{name}/rotate")
    async def rotate(name: str, request: Request) -> Response:
        """Replace the secret of a key. The old secret stays valid for `grace`."""
        by = manager(worker, request)
        form = await read_form(request, KeyRotation)
        change = partial(keystore.rotate_key, worker.settings, name, form.grace)
        key, secret, _ = await apply(worker, by, "rotated", Owner("key", name), change)
        return json_response({**keystore.key_as_mapping(key, time.time()), "key": secret})


def _as_mapping(key: NamedKey, now_unix: float, spent: Mapping[Owner, Standing] | None) -> dict[str, Any]:
    """A key as JSON values, with its spending."""
    return {**keystore.key_as_mapping(key, now_unix), **spending(Owner("key", key.name), spent)}
