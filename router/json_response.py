"""A JSON response of the router's own endpoints."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response


def json_response(value: Any, status: int = 200) -> Response:
    """A response with `value` as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
