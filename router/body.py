"""The client's body, read with a bound on its size and on the client's patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from router.errors import ClientLeftError, SlowBodyError, TooLargeError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def read(receive: Receive, declared: bytes | None, limit: int, seconds: float) -> bytes:
    """The whole body.

    Raises:
        TooLargeError, SlowBodyError, ClientLeftError: as their names say.
    """
    if declared is not None and int(declared) > limit:
        raise too_large(limit)
    message = await _next(receive, seconds)
    first: bytes = message.get("body", b"")
    if not message.get("more_body"):
        return first
    body = bytearray(first)
    while message.get("more_body"):
        message = await _next(receive, seconds)
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
    return bytes(body)


async def stream(receive: Receive, seconds: float) -> AsyncIterator[bytes]:
    """The body piece by piece, as it comes."""
    more = True
    while more:
        message = await _next(receive, seconds)
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            yield piece


def too_large(limit: int) -> TooLargeError:
    """The error for a body over the limit."""
    return TooLargeError(f"The request body is larger than {limit} bytes, which is the limit of this router.")


async def _next(receive: Receive, seconds: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError:
        raise SlowBodyError(f"The request body did not arrive within {seconds:g} s.") from None
    if message["type"] == "http.disconnect":
        raise ClientLeftError
    return message
