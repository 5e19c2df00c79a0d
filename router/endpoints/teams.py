"""`/router/teams`: manage teams with an admin key. The command `python -m router teams` shares its code."""

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
    """The body of a request to create a team."""

    name: str


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    async def described(teams: Callable[[Roster], tuple[Team, ...]]) -> list[dict[str, Any]]:
        """Teams as JSON values, with their spending."""
        roster = await run_in_threadpool(done, lambda: read_roster(worker.settings.keys_path))
        spent = await run_in_threadpool(known_standings, worker.standings)
        chosen, now = done(lambda: teams(roster)), time.time()
        return [
            {**keystore.team_as_mapping(team, roster.keys, now), **spending(Owner("team", team.name), spent)}
            for team in chosen
        ]

    async def apply(by: str, action: str, change: Callable[[], Team], status: int = 200) -> Response:
        """Apply a change, reload the keys of this worker, and log the change with its author."""
        changed = await run_in_threadpool(done, change)
        worker.key_watch.check()
        log.info("team %s was %s by key %s", changed.name, action, by)
        (team,) = await described(lambda roster: (grouping.find_team(roster.teams, changed.name),))
        return json_answer(team, status)

    @app.get("/router/teams")
    async def show_all(request: Request) -> Response:
        """List all teams with their active keys, limits and spending."""
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require_admin()
        why = refusal(caller, keyed=worker.keys.required)
        return json_answer({"teams": await described(lambda roster: roster.teams), "may_change": not why, "why": why})

    @app.post("/router/teams")
    async def add(request: Request) -> Response:
        """Create a team."""
        by, form = manager(worker, request), await read_form(request, Adding)
        return await apply(by, "created", partial(keystore.add_team, worker.settings, form.name, form.limits()), 201)

    @app.get("/router/teams/{name}")
    async def show(name: str, request: Request) -> Response:
        """Return one team."""
        worker.keys.authenticate(request.scope["headers"]).require_admin()
        (team,) = await described(lambda roster: (grouping.find_team(roster.teams, name),))
        return json_answer(team)

    @app.patch("/router/teams/{name}")
    async def limit(name: str, request: Request) -> Response:
        """Change the limits of a team; "none" removes a limit."""
        by, form = manager(worker, request), await read_form(request, Limiting)
        return await apply(by, "limited", partial(keystore.limit_team, worker.settings, name, form.limits()))

    @app.delete("/router/teams/{name}")
    async def remove(name: str, request: Request) -> Response:
        """Remove a team that has no active keys."""
        return await apply(manager(worker, request), "removed", partial(keystore.remove_team, worker.settings, name))
