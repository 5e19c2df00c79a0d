"""The teams of keys, for admin keys: `/router/teams`. The command `python -m router teams` shares its code."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.client import grouping, keystore
from router.client.keyfile import Owner, Roster, Team, read_roster
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

log = logging.getLogger("router")


class Adding(Limiting, forbid_unknown_fields=True, kw_only=True):
    """A team to make."""

    name: str


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    async def told(teams: Callable[[Roster], tuple[Team, ...]]) -> list[dict[str, Any]]:
        """Teams for readers, with what they spent."""
        roster = await run_in_threadpool(done, lambda: read_roster(worker.settings.keys_path))
        spent = await run_in_threadpool(known_standings, worker.standings)
        chosen, now = done(lambda: teams(roster)), time.time()
        return [
            {**keystore.team_as_mapping(team, roster.keys, now), **spending(Owner("team", team.name), spent)}
            for team in chosen
        ]

    async def changed(by: str, how: str, change: Callable[[], Team], status: int = 200) -> Response:
        """Make a change, have this worker know it at once, and log who made it."""
        made = await run_in_threadpool(done, change)
        worker.key_watch.check()
        log.info("team %s is %s by key %s", made.name, how, by)
        (team,) = await told(lambda roster: (grouping.find_team(roster.teams, made.name),))
        return json_answer(team, status)

    @app.get("/router/teams")
    async def show_all(request: Request) -> Response:
        """All teams with their active keys, their limits, and what they spent."""
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require_admin()
        why = refusal(caller, keyed=worker.keys.required)
        return json_answer({"teams": await told(lambda roster: roster.teams), "may_change": not why, "why": why})

    @app.post("/router/teams")
    async def add(request: Request) -> Response:
        """Make a team."""
        by, given = manager(worker, request), await read_form(request, Adding)
        return await changed(by, "made", partial(keystore.add_team, worker.settings, given.name, given.given()), 201)

    @app.get("/router/teams/{name}")
    async def show(name: str, request: Request) -> Response:
        """One team."""
        worker.keys.authenticate(request.scope["headers"]).require_admin()
        (team,) = await told(lambda roster: (grouping.find_team(roster.teams, name),))
        return json_answer(team)

    @app.patch("/router/teams/{name}")
    async def limit(name: str, request: Request) -> Response:
        """Change the limits of a team; "none" removes one."""
        by, given = manager(worker, request), await read_form(request, Limiting)
        return await changed(by, "limited", partial(keystore.limit_team, worker.settings, name, given.given()))

    @app.delete("/router/teams/{name}")
    async def remove(name: str, request: Request) -> Response:
        """Remove a team that has no active keys."""
        return await changed(manager(worker, request), "removed", partial(keystore.remove_team, worker.settings, name))
