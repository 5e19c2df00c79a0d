"""Whether the proxy lives and can serve: `/health` and `/ready`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

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
            "warnings": router.warnings,
        }

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        """Requests may come. A policy has been read, or the process would not have started."""
        return {"status": "ready", "policy": router.serving.policy.version}
