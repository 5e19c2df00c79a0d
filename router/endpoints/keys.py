"""The named keys, for admin keys: `/router/keys`. The command `python -m router keys` shares its code."""

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
    """A key to make."""

    name: str
    team: str = ""
    models: tuple[str, ...] = ()
    paths: tuple[str, ...] | None = None
    expires: str = ""
    admin: bool = False


class Changing(Limiting, forbid_unknown_fields=True, kw_only=True):
    """What is to be changed of a key."""

    team: str | None = None  # "none" for no team


class Rotating(msgspec.Struct, forbid_unknown_fields=True):
    """How a key is to be replaced."""

    grace: str = "0"


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    async def changed(by: str, told: str, change: Callable[[], Any]) -> Any:
        """Make a change, have this worker know it at once, and log who made it."""
        made = await run_in_threadpool(done, change)
        worker.key_watch.check()
        log.info("key %s is %s by key %s", made[0].name, told, by)
        return made

    @app.get("/router/keys")
    async def show_all(request: Request) -> Response:
        """All keys with their rights, limits and ends, what each spent, and when it was last used."""
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require_admin()
        keys = await run_in_threadpool(done, lambda: read_keys(worker.settings.keys_path))
        spent = await run_in_threadpool(known_standings, worker.standings)
        now, why = time.time(), refusal(caller, keyed=worker.keys.required)
        return json_answer({"keys": [_told(key, now, spent) for key in keys], "may_change": not why, "why": why})

    @app.post("/router/keys")
    async def add(request: Request) -> Response:
        """Make a key. Its secret is in this answer, and nowhere else."""
        by = manager(worker, request)
        given = await read_form(request, Adding)
        change = partial(
            keystore.add_key,
            worker.settings,
            given.name,
            models=given.models,
            paths=given.paths,
            expires=given.expires,
            admin=given.admin,
            limits=given.given(),
            team=given.team,
        )
        key, secret = await changed(by, "made", change)
        return json_answer({**keystore.key_as_mapping(key, time.time()), "key": secret}, 201)

    @app.get("/router/keys/{name}")
    async def show(name: str, request: Request) -> Response:
        """One key."""
        worker.keys.authenticate(request.scope["headers"]).require_admin()
        key = await run_in_threadpool(done, lambda: issuing.find_key(read_keys(worker.settings.keys_path), name))
        return json_answer(_told(key, time.time(), await run_in_threadpool(known_standings, worker.standings)))

    @app.patch("/router/keys/{name}")
    async def limit(name: str, request: Request) -> Response:
        """Change the limits and the team of a key; "none" removes one."""
        by = manager(worker, request)
        given = await read_form(request, Changing)
        change = partial(_alone, keystore.limit_key, worker.settings, name, given.given(), given.team)
        return json_answer(keystore.key_as_mapping((await changed(by, "limited", change))[0], time.time()))

    @app.delete("/router/keys/{name}")
    async def revoke(name: str, request: Request) -> Response:
        """End a key for good. Requests in flight are answered."""
        by = manager(worker, request)
        change = partial(_alone, keystore.revoke_key, worker.settings, name)
        return json_answer(keystore.key_as_mapping((await changed(by, "revoked", change))[0], time.time()))

    @app.post("/router/keys/{name}/rotate")
    async def rotate(name: str, request: Request) -> Response:
        """Make another secret for a key; the one before is accepted for `grace` more."""
        by = manager(worker, request)
        given = await read_form(request, Rotating)
        change = partial(keystore.rotate_key, worker.settings, name, given.grace)
        key, secret, _ = await changed(by, "rotated", change)
        return json_answer({**keystore.key_as_mapping(key, time.time()), "key": secret})


def _alone(change: Callable[..., NamedKey], *given: Any) -> tuple[NamedKey]:
    return (change(*given),)


def _told(key: NamedKey, now_unix: float, spent: Mapping[Owner, Standing] | None) -> dict[str, Any]:
    """A key for readers, with what it spent."""
    return {**keystore.key_as_mapping(key, now_unix), **spending(Owner("key", key.name), spent)}
