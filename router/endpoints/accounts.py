"""`GET /router/usage` and `POST /router/feedback`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.client.body import read_body
from router.client.keyfile import Owner
from router.client.keys import Caller, Keys
from router.endpoints.management import known_standings
from router.errors import BadRequestError, NotFoundError, StoreError
from router.exporter.feedback import MAX_COMMENT_CHARACTERS, FeedbackError, read_feedback
from router.journal.ownership import is_of_key
from router.journal.redaction import without_keys, without_personal_data
from router.journal.writer import Journal
from router.json_response import json_response
from router.limits.standings import Standing, Standings
from router.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy

MAX_FEEDBACK_BYTES = 8 * MAX_COMMENT_CHARACTERS
READ_SECONDS = 10.0


class Collaborators(Protocol):
    """What the endpoints need."""

    keys: Keys
    settings: Settings
    journal: Journal
    standings: Standings


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    @cache
    def engine() -> sqlalchemy.Engine:
        from router.usage.ledger import engine as opened  # SQLAlchemy is loaded at the first request

        return opened(worker.settings.usage_url)

    @app.get("/router/usage")
    async def usage(request: Request) -> Response:
        """Return requests, tokens and cost of a period, as JSON or, with `format=csv`, as CSV.

        A key that is not an admin key sees only its own usage, and the remaining budget of its team.
        """
        caller = worker.keys.authenticate(request.scope["headers"])
        team = (
            {}
            if caller.own is None or not caller.team
            else await run_in_threadpool(_team_budget, worker.standings, caller)
        )
        return await run_in_threadpool(_usage, engine, dict(request.query_params), caller.own, team)

    @app.post("/router/feedback")
    async def feedback(request: Request) -> Response:
        """Record user feedback on an answer. Only admin keys may rate traces of other keys.

        The feedback is on disk when the response is sent.
        """
        try:
            caller = worker.keys.authenticate(request.scope["headers"])
            length = request.headers.get("content-length", "").encode() or None
            body = await read_body(request.receive, length, MAX_FEEDBACK_BYTES, READ_SECONDS)
            entry = read_feedback(body.skeleton.text)
        except FeedbackError as error:
            raise BadRequestError(str(error)) from error
        if caller.own is not None and not await run_in_threadpool(_owns, worker, engine, entry.trace_id, caller.own):
            raise NotFoundError("There is no such trace.", "trace_id")
        redact = without_personal_data if worker.settings.record_content == "redacted" else without_keys
        entry.comment = redact(entry.comment) if worker.settings.record_content in ("whole", "redacted") else ""
        recorded = worker.journal.append(entry)
        status = 202 if recorded else 507
        answer = {"recorded": recorded, "feedback_id": entry.feedback_id, "trace_id": "tr-" + entry.trace_id}
        return json_response(answer, status)


def _owns(worker: Collaborators, engine: Any, trace_id: str, key_id: str) -> bool:
    """Whether a trace has a request of this key, in the journal or the usage tables."""
    from sqlalchemy.exc import SQLAlchemyError

    from router.usage.ledger import has_trace

    if is_of_key(worker.journal.directory, trace_id, key_id):
        return True
    try:
        return has_trace(engine(), trace_id, key_id)
    except SQLAlchemyError as error:
        raise StoreError(f"The usage tables cannot be read: {type(error).__name__}.") from error


def _team_budget(standings: Standings, caller: Caller) -> dict[str, Any]:
    """The remaining budget in US dollars of a caller's team; null without a budget or if the spending is unknown."""
    owner = Owner("team", caller.team)
    limits = dict(caller.held_to).get(owner)
    known = known_standings(standings)
    left: dict[str, float | None] = {"usd_left_today": None, "usd_left_this_month": None}
    if limits is not None and known is not None:
        spent = known.get(owner, Standing())
        budgets = (limits.usd_a_day, spent.day_usd), (limits.usd_a_month, spent.month_usd)
        for name, (budget, usd) in zip(left, budgets, strict=True):
            left[name] = None if budget is None else max(budget - usd, 0.0)
    return {"team": {"name": caller.team, **left}}


def _usage(engine: Any, query: dict[str, str], key: str | None, team: dict[str, Any]) -> Response:
    from sqlalchemy.exc import SQLAlchemyError

    from router.usage.sums import UsageError, as_csv, read_question, usage

    try:
        question = read_question(query.get("from", ""), query.get("to", ""), query.get("group_by", ""))
        answer = usage(engine(), replace(question, key=key))
    except UsageError as error:
        raise BadRequestError(str(error)) from error
    except SQLAlchemyError as error:  # its text may contain the database address and password
        raise StoreError(f"The usage tables cannot be read: {type(error).__name__}.") from error
    if query.get("format") == "csv":
        return Response(as_csv(answer), media_type="text/csv")
    return json_response({**answer, **team})
