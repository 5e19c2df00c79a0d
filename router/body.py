"""The client's body, read with a bound on its size and on the client's patience."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from router.errors import BadRequestError, ClientLeftError, SlowBodyError, TooLargeError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def read(receive: Receive, declared: bytes | None, limit: int, seconds: float) -> bytes | bytearray:
    """The whole body, which is text in UTF-8.

    Raises:
        BadRequestError: it is no text.
        TooLargeError, SlowBodyError, ClientLeftError: as their names say.
    """
    if declared is not None and int(declared) > limit:
        raise too_large(limit)
    message = await _next(receive, seconds)
    first: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if not first.isascii():
            _check(_utf8(), first, 0, final=True)
        return first
    decoder, body = _utf8(), bytearray(first)  # never copied as a whole: its pieces are checked as they come
    _check(decoder, first, 0)
    while message.get("more_body"):
        message = await _next(receive, seconds)
        piece = message.get("body", b"")
        _check(decoder, piece, len(body))
        body += piece
        if len(body) > limit:
            raise too_large(limit)
    _check(decoder, b"", len(body), final=True)
    return body


_utf8 = codecs.getincrementaldecoder("utf-8")


def _check(decoder: codecs.IncrementalDecoder, piece: bytes, at: int, *, final: bool = False) -> None:
    if piece.isascii() and not final and not decoder.getstate()[0]:
        return
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError as error:
        place = at + error.start
        raise BadRequestError(f"The body of the request is not valid UTF-8 (near byte {place}).") from None


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
