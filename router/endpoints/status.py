"""Whether the proxy lives and can serve: `/health` and `/ready`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Response
from fastapi.concurrency import run_in_threadpool

from router.journal.lag import lags
from router.journal.refused import counted

if TYPE_CHECKING:
    from router.app import Router


def add_routes(app: FastAPI, router: Router) -> None:
    """Add the endpoints."""

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """The process answers; with what it serves, and what its owner should know."""
        return {
            "status": "ok",
            "policy": router.serving.policy.version,
            "simulated": router.settings.simulated,
            "unrecorded_requests": router.journal.unrecorded,
            "upstreams": [each._asdict() for each in router.upstreams.standing()],
            "warnings": await run_in_threadpool(router.told),
            "learnt": router.learnt(),
        }

    @app.get("/ready")
    async def ready(response: Response) -> dict[str, Any]:
        """Requests may come: a policy was read, or the process would not have started. Nothing waits for MLflow.

        503 once it is told to end.
        """
        if router.ending:
            response.status_code = 503
        behind = await run_in_threadpool(lags, router.journal.directory)
        return {
            "status": "ending" if router.ending else "ready",
            "policy": router.serving.policy.version,
            "unrecorded_requests": router.journal.unrecorded,
            "exporter": {reader: asdict(lag) for reader, lag in behind.items()},
            "refused": await run_in_threadpool(counted, router.journal.directory),
            "upstreams": [each._asdict() for each in router.upstreams.standing()],
            "warnings": await run_in_threadpool(router.told),
        }
