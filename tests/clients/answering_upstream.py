"""A made-up OpenAI that answers any request with what `answers_by_type.py` put into the request's headers.

Run: python answering_upstream.py PORT. Where nothing was asked for, the answer is an empty JSON object.
"""

from __future__ import annotations

import base64
import sys
import zlib
from typing import Any

import uvicorn


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole request, and answer."""
    while (await receive()).get("more_body"):
        pass
    asked = dict(scope["headers"])
    body = zlib.decompress(base64.b64decode(asked[b"x-wanted-body"])) if b"x-wanted-body" in asked else b"{}"
    headers = [(b"content-type", asked.get(b"x-wanted-type", b"application/json")), (b"x-request-id", b"req_made_up")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", lifespan="off")
