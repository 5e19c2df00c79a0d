"""`GET /openapi.json`: the OpenAPI document of the HTTP API. It is loaded when it is first requested."""

from __future__ import annotations

from functools import cache

import msgspec
from fastapi import FastAPI, Response

PATH = "/openapi.json"


def add_routes(app: FastAPI) -> None:
    """Add the endpoint. It needs no key: the document is the same for every router of a version."""

    @app.get(PATH)
    async def openapi() -> Response:
        """The document as JSON."""
        return Response(_encoded(), media_type="application/json")


@cache
def _encoded() -> bytes:
    from router.endpoints.openapi_document import document

    return msgspec.json.encode(document())
