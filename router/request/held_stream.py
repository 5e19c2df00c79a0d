"""Streams that are held back for verification: their bytes are read and buffered, and forwarded later unchanged."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from router.admission import Reserve
from router.errors import OverloadedError
from router.planning.plan import Stream
from router.upstream.calls import Answer, CutError, Headers, StallError
from router.upstream.replies import Reply
from router.verifying.expectation import Expectation
from router.wire.logprobs import LogprobsReader

MAX_HELD_BYTES = 8 * 2**20  # the rest of a longer answer is forwarded as it arrives
CHARACTERS_PER_TOKEN = 4


class BufferedAnswer:
    """An answer whose first pieces were already read. `read` returns these pieces again, then the rest."""

    def __init__(self, answer: Answer) -> None:
        self.status: int = answer.status
        self.headers: Headers = answer.headers
        self._pieces: deque[bytes] = deque()
        self._answer: Answer | None = answer
        self._error: CutError | StallError | None = None

    async def read_ahead(self, seconds: float) -> bytes:
        """Read and buffer the next bytes. Returns b"" at the end, or if the answer is interrupted."""
        assert self._answer is not None
        try:
            piece = await self._answer.read(seconds)
        except (CutError, StallError) as error:
            self._error = error
            return b""
        if piece:
            self.buffer(piece)
        return piece

    def buffer(self, piece: bytes) -> None:
        """Buffer bytes that were already read."""
        self._pieces.append(piece)

    async def read(self, seconds: float) -> bytes:
        """See `Answer`. An interruption is raised after the buffered pieces."""
        if self._pieces:
            return self._pieces.popleft()
        if self._error is not None:
            raise self._error
        return b"" if self._answer is None else await self._answer.read(seconds)

    def close(self) -> None:
        """See `Answer`. Buffered pieces can still be read."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()


class LogprobsAnswer:
    """A streamed answer whose log probabilities are read, and removed if the client did not request them."""

    def __init__(self, answer: Answer, first: bytes, reader: LogprobsReader) -> None:
        self.status: int = answer.status
        self.headers: Headers = answer.headers
        self._answer = answer
        self._first = first
        self._reader = reader
        self._is_at_end = False

    async def read(self, seconds: float) -> bytes:
        """See `Answer`. Returns complete events, then the rest of the stream."""
        while not self._is_at_end:
            piece, self._first = self._first or await self._answer.read(seconds), b""
            self._is_at_end = not piece
            events = self._reader.feed(piece) if piece else self._reader.incomplete_event
            if events:
                return events
        return b""

    def close(self) -> None:
        """See `Answer`."""
        self._answer.close()


class HeldStream(NamedTuple):
    """The state of a stream after it was held back."""

    is_whole: bool  # whether all of it was read
    is_prose: bool  # whether it contains enough prose to be forwarded
    is_broken: bool  # whether it was interrupted or contains an error


async def hold_stream(
    reply: Reply, stream: Stream, expectation: Expectation, tokens: int, idle_seconds: float, reserve: Reserve
) -> HeldStream:
    """Read a stream until it is complete or contains `tokens` of prose. `reply` can then be read from its beginning.

    Tool calls, refusals, JSON and answers that are checked by content are held until they are complete. `stream`
    parses the bytes. `reserve` reserves memory for them; if it raises, the rest of the stream is not held.
    """
    assert reply.answer is not None
    answer = BufferedAnswer(reply.answer)
    piece, reply.answer, size = reply.body, answer, 0
    answer.buffer(piece)
    reply.body = b""
    is_prose = False
    while piece:
        stream.feed(piece)
        size += len(piece)
        is_prose = _is_prose(stream, expectation, tokens)
        if stream.done or size > MAX_HELD_BYTES or is_prose:
            break
        try:
            reserve(len(piece))
        except OverloadedError:
            break
        piece = await answer.read_ahead(idle_seconds)
    reply.body = await answer.read(idle_seconds)
    is_broken = bool(stream.error) or (not piece and not stream.is_complete)
    return HeldStream(stream.is_complete and (stream.done or not piece), is_prose, is_broken)


def _is_prose(stream: Stream, expectation: Expectation, tokens: int) -> bool:
    """Whether a stream contains enough text to be classified as prose."""
    if expectation.json or expectation.must_call or expectation.holds is not None:
        return False
    progress = stream.progress()
    enough = progress.characters >= max(tokens * CHARACTERS_PER_TOKEN, 1)
    return enough and progress.choices >= expectation.choices and not progress.is_special
