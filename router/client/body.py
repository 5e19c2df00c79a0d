"""The client's body, read with a bound on its size and on the client's patience."""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from router.admission import SMALL_BYTES, Hold
from router.errors import BadRequestError, ClientDisconnectedError, SlowBodyError, TooLargeError
from router.wire.skeleton import Skeleton, SkeletonBuilder

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
COPIES = 3  # of a body in memory: as it came, as it is read, and as it is sent
PATIENCE = 5  # a whole body may take so many times what may lie between two pieces
LARGE_BYTES = 128 * 1024  # a smaller body is decoded as it is
_utf8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class Body:
    """A body in the pieces it came in, and what is decoded of it."""

    pieces: tuple[bytes, ...]
    skeleton: Skeleton

    @classmethod
    def of(cls, content: bytes) -> Body:
        """A body that came in one piece."""
        return cls((content,), Skeleton(content))


def _no_limit(_: int) -> None:
    """Hold anything."""


async def read(receive: Receive, declared: bytes | None, limit: int, seconds: float, hold: Hold = _no_limit) -> Body:
    """The whole body, which is text in UTF-8; `hold` is told of each piece, and may refuse it.

    Raises:
        BadRequestError: it is no text.
        TooLargeError, SlowBodyError, ClientDisconnectedError: as their names say.
    """
    if declared is not None and int(declared) > limit:
        raise too_large(limit)
    message = await _next(receive, seconds)
    piece: bytes = message.get("body", b"")
    size = len(piece)
    if size > SMALL_BYTES:
        hold(COPIES * size)
    if not message.get("more_body"):
        if size > limit:
            raise too_large(limit)
        if not piece.isascii():
            _check(_utf8(), piece, 0, final=True)
        return Body.of(bytes(piece))
    return await _read_pieces(receive, bytes(piece), limit, seconds, hold)


async def _read_pieces(receive: Receive, piece: bytes, limit: int, seconds: float, hold: Hold) -> Body:
    decoder, stripping = _utf8(), SkeletonBuilder()
    pieces: list[bytes] = []
    size, more = 0, True
    deadline = time.monotonic() + PATIENCE * seconds
    while True:
        _check(decoder, piece, size)
        stripping.feed(piece)
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        if not more:
            break
        message = await _next(receive, min(seconds, max(deadline - time.monotonic(), 0.0)))
        hold(COPIES * len(message.get("body", b"")))
        piece, more = bytes(message.get("body", b"")), message.get("more_body", False)
    _check(decoder, b"", size, final=True)
    if size < LARGE_BYTES:
        return Body.of(b"".join(pieces))
    return Body(tuple(pieces), stripping.finish())


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
        raise ClientDisconnectedError
    return message
