"""The request body, read with limits on its size and on the time it may take."""

from __future__ import annotations

import asyncio
import codecs
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from router.admission import SMALL_BYTES, Reserve
from router.errors import BadRequestError, ClientDisconnectedError, SlowBodyError, TooLargeError
from router.wire.skeleton import Skeleton, SkeletonBuilder

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
COPIES = 3  # of a body in memory: as received, as decoded, and as sent
TOTAL_TIMEOUT_FACTOR = 5  # the whole body may take this many times the timeout between two pieces
LARGE_BYTES = 128 * 1024  # from this size on, only the skeleton of a body is decoded
_utf8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class Body:
    """A body in the pieces in which it arrived, and the part of it that is decoded."""

    pieces: tuple[bytes, ...]
    skeleton: Skeleton

    @classmethod
    def from_bytes(cls, content: bytes) -> Body:
        """A body in one piece, which is decoded as a whole."""
        return cls((content,), Skeleton(content))


def _reserve_nothing(_: int) -> None:
    pass


async def read_body(
    receive: Receive,
    declared: bytes | None,
    limit: int,
    seconds: float,
    reserve: Reserve = _reserve_nothing,
    is_data_waiting: Callable[[], bool] | None = None,
) -> Body:
    """The whole body, which must be UTF-8.

    `declared` is the content length, `limit` the largest size in bytes, `seconds` the timeout between two pieces.
    `reserve` reserves memory for each piece, and may raise. `is_data_waiting` tells whether `receive` returns at once;
    then it needs no timeout.

    Raises:
        BadRequestError: the body is not valid UTF-8.
        TooLargeError, SlowBodyError, ClientDisconnectedError: see `router.errors`.
    """
    if declared is not None and int(declared) > limit:
        raise too_large_error(limit)
    is_waiting = is_data_waiting is not None and is_data_waiting()
    message = _checked(await receive()) if is_waiting else await _receive(receive, seconds)
    piece: bytes = message.get("body", b"")
    size = len(piece)
    if size > SMALL_BYTES:
        reserve(COPIES * size)
    if not message.get("more_body"):
        if size > limit:
            raise too_large_error(limit)
        if not piece.isascii():
            _check_utf8(_utf8(), piece, 0, final=True)
        return Body.from_bytes(bytes(piece))
    return await _read_pieces(receive, bytes(piece), limit, seconds, reserve)


async def _read_pieces(receive: Receive, piece: bytes, limit: int, seconds: float, reserve: Reserve) -> Body:
    decoder, builder = _utf8(), SkeletonBuilder()
    pieces: list[bytes] = []
    size, more = 0, True
    deadline = time.monotonic() + TOTAL_TIMEOUT_FACTOR * seconds
    while True:
        _check_utf8(decoder, piece, size)
        builder.feed(piece)
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise too_large_error(limit)
        if not more:
            break
        message = await _receive(receive, min(seconds, max(deadline - time.monotonic(), 0.0)))
        reserve(COPIES * len(message.get("body", b"")))
        piece, more = bytes(message.get("body", b"")), message.get("more_body", False)
    _check_utf8(decoder, b"", size, final=True)
    if size < LARGE_BYTES:
        return Body.from_bytes(b"".join(pieces))
    return Body(tuple(pieces), builder.finish())


def _check_utf8(decoder: codecs.IncrementalDecoder, piece: bytes, at: int, *, final: bool = False) -> None:
    if piece.isascii() and not final and not decoder.getstate()[0]:
        return
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError as error:
        place = at + error.start
        raise BadRequestError(f"The body of the request is not valid UTF-8 (near byte {place}).") from None


async def stream_body(receive: Receive, seconds: float) -> AsyncIterator[bytes]:
    """The pieces of the body as they arrive; `seconds` is the timeout between two of them."""
    more = True
    while more:
        message = await _receive(receive, seconds)
        more = message.get("more_body", False)
        if piece := message.get("body", b""):
            yield piece


def too_large_error(limit: int) -> TooLargeError:
    """The error for a body of more than `limit` bytes."""
    return TooLargeError(f"The request body exceeds the router's limit of {limit} bytes.")


async def _receive(receive: Receive, seconds: float) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(seconds):
            message = await receive()
    except TimeoutError:
        raise SlowBodyError(f"The request body did not arrive within {seconds:g} s.") from None
    return _checked(message)


def _checked(message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    return message
