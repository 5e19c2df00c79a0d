"""`/router/teams`: manage teams with an admin key. The command `python -m router teams` shares its code."""

from __future__ import annotations

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
from router.settings import Settings


class TeamCreation(LimitChange, forbid_unknown_fields=True, kw_only=True):
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

    async def changed(
        by: str, action: str, name: str, change: Callable[[Settings, str], Team], status: int = 200
    ) -> Response:
        """Apply a change to a team, and return the team as it is then."""
        await apply(worker, by, action, Owner("team", name), partial(change, worker.settings, name))
        (team,) = await described(lambda roster: (grouping.find_team(roster.teams, name),))
        return json_response(team, status)

    @app.get("/router/teams")
    async def show_all(request: Request) -> Response:
        """List all teams with their active keys, limits and spending."""
        caller = worker.keys.authenticate(request.scope["headers"])
        caller.require_admin()
        why = refusal(caller, keyed=worker.keys.required)
        return json_response({"teams": await described(lambda roster: roster.teams), "may_change": not why, "why": why})

    @app.post("/router/teams")
    async def add(request: Request) -> Response:
        """Create a team."""
        by, form = manager(worker, request), await read_form(request, TeamCreation)
        return await changed(by, "created", form.name, partial(keystore.add_team, limits=form.limits()), 201)

    @app.get("/router/teams/{name}")
    async def show(name: str, request: Request) -> Response:
        """Return one team."""
        worker.keys.authenticate(request.scope["headers"]).require_admin()
        (team,) = await described(lambda roster: (grouping.find_team(roster.teams, name),))
        return json_response(team)

    @app.patch("/router/teams/{name}")
    async def limit(name: str, request: Request) -> Response:
        """Change the limits of a team; "none" removes a limit."""
        by, form = manager(worker, request), await read_form(request, LimitChange)
        return await changed(by, "limited", name, partial(keystore.limit_team, limits=form.limits()))

    @app.delete("/router/teams/{name}")
    async def remove(name: str, request: Request) -> Response:
        """Remove a team that has no active keys."""
        return await changed(manager(worker, request), "removed", name, keystore.remove_team)
