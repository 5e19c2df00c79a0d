"""`/router/keys`: manage named keys with an admin key. The command `python -m router keys` shares its code."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.client import issuing, keystore
from router.client.keyfile import NamedKey, Owner, read_keys
from router.endpoints.management import (
    Collaborators,
    Limiting,
    done,
    json_answer,
    known_standings,
    manager,
    read_form,
    refusal,
    spending,
)
from router.limits.standings import Standing

log = logging.getLogger("router")


class Adding(Limiting, forbid_unknown_fields=True, kw_only=True):
    """The body of a request to create a key."""

    name: str
    team: str = ""
    models: tuple[str, ...] = ()
    paths: tuple[str, ...] | None = None
    expires: str = ""
    admin: bool = False


class Changing(Limiting, forbid_unknown_fields=True, kw_only=True):
    """The body of a request to change a key."""

    team: str | None = None  # "none" for no team


class Rotating(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to rotate a key."""

    grace: str = "0"


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    async def apply(by: str, action: str, change: Callable[[], Any]) -> Any:
        """Apply a change, reload the keys of this worker, and log the change with its author."""
        result = await run_in_threadpool(done, change)
        worker.key_watch.check()
        log.info("key %s was %s by key %s", result[0].name, action, by)
        return result

    @app.get("/router/keys")
    async def show_all(request: Request) -> Response:
        """List all keys with rights, limits, expiry, spending and last use."""
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require_admin()
        keys = await run_in_threadpool(done, lambda: read_keys(worker.settings.keys_path))
        spent = await run_in_threadpool(known_standings, worker.standings)
        now, why = time.time(), refusal(caller, keyed=worker.keys.required)
        return json_answer({"keys": [_as_mapping(key, now, spent) for key in keys], "may_change": not why, "why": why})

    @app.post("/router/keys")
    async def add(request: Request) -> Response:
        """Create a key. Only this response contains its secret."""
        by = manager(worker, request)
        form = await read_form(request, Adding)
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
        key, secret = await apply(by, "created", change)
        return json_answer({**keystore.key_as_mapping(key, time.time()), "key": secret}, 201)

    @app.get("/router/keys/{name}")
    async def show(name: str, request: Request) -> Response:
        """Return one key."""
        worker.keys.authenticate(request.scope["headers"]).require_admin()
        key = await run_in_threadpool(done, lambda: issuing.find_key(read_keys(worker.settings.keys_path), name))
        return json_answer(_as_mapping(key, time.time(), await run_in_threadpool(known_standings, worker.standings)))

    @app.patch("/router/keys/{name}")
    async def limit(name: str, request: Request) -> Response:
        """Change the limits and team of a key; "none" removes a limit or the team."""
        by = manager(worker, request)
        form = await read_form(request, Changing)
        change = partial(_as_tuple, keystore.limit_key, worker.settings, name, form.limits(), form.team)
        return json_answer(keystore.key_as_mapping((await apply(by, "limited", change))[0], time.time()))

    @app.delete("/router/keys/{name}")
    async def revoke(name: str, request: Request) -> Response:
        """Revoke a key permanently. Requests in flight complete."""
        by = manager(worker, request)
        change = partial(_as_tuple, keystore.revoke_key, worker.settings, name)
        return json_answer(keystore.key_as_mapping((await apply(by, "revoked", change))[0], time.time()))

    @app.post("/router/keys/{name}/rotate")
    async def rotate(name: str, request: Request) -> Response:
        """Replace the secret of a key. The old secret stays valid for `grace`."""
        by = manager(worker, request)
        form = await read_form(request, Rotating)
        change = partial(keystore.rotate_key, worker.settings, name, form.grace)
        key, secret, _ = await apply(by, "rotated", change)
        return json_answer({**keystore.key_as_mapping(key, time.time()), "key": secret})


def _as_tuple(change: Callable[..., NamedKey], *arguments: Any) -> tuple[NamedKey]:
    return (change(*arguments),)


def _as_mapping(key: NamedKey, now_unix: float, spent: Mapping[Owner, Standing] | None) -> dict[str, Any]:
    """A key as JSON values, with its spending."""
    return {**keystore.key_as_mapping(key, now_unix), **spending(Owner("key", key.name), spent)}
