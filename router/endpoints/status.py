"""`/health` and `/ready`: liveness and readiness."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from router.adaptation.adapter import Adapter
from router.journal.lag import lags
from router.journal.refused import counted
from router.notices import Collaborators as Reporting
from router.notices import notices
from router.settings import Settings


class Collaborators(Reporting, Protocol):
    """What `/health` and `/ready` report on."""

    settings: Settings
    adapter: Adapter
    shutting_down: bool


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Return that the process is alive, with its policy, upstreams and warnings."""
        return {
            "status": "ok",
            "policy": worker.serving.policy.version,
            "simulated": worker.settings.simulated,
            "unrecorded_requests": worker.journal.unrecorded,
            "upstreams": [status._asdict() for status in worker.upstreams.statuses()],
            "warnings": await run_in_threadpool(notices, worker),
            "learnt": worker.adapter.describe_lessons(),
        }

    @app.get("/ready")
    async def ready(response: Response) -> dict[str, Any]:
        """Return that the process accepts requests; 503 during shutdown. Readiness does not depend on MLflow.

        The policy is always loaded here: without one, the process does not start.
        """
        if worker.shutting_down:
            response.status_code = 503
        behind = await run_in_threadpool(lags, worker.journal.directory)
        return {
            "status": "ending" if worker.shutting_down else "ready",
            "policy": worker.serving.policy.version,
            "unrecorded_requests": worker.journal.unrecorded,
            "exporter": {reader: asdict(lag) for reader, lag in behind.items()},
            "refused": await run_in_threadpool(counted, worker.journal.directory),
            "upstreams": [status._asdict() for status in worker.upstreams.statuses()],
            "warnings": await run_in_threadpool(notices, worker),
        }
