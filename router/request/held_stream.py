"""A stream that is verified is held back: its bytes are read, counted and kept, and passed on later as they came."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from router.admission import Reserve
from router.errors import OverloadedError
from router.planning.plan import Stream
from router.upstream.calls import Answer, CutError, Headers, StallError
from router.upstream.replies import Reply
from router.verifying.expectation import Expectation

MOST_HELD_BYTES = 8 * 2**20  # of events; a longer answer is passed on as it comes
CHARACTERS_PER_TOKEN = 4


class Replayed:
    """An answer whose first pieces were read already: they come again, and then what follows them."""

    def __init__(self, answer: Answer) -> None:
        self.status: int = answer.status
        self.headers: Headers = answer.headers
        self._pieces: deque[bytes] = deque()
        self._answer: Answer | None = answer
        self._problem: CutError | StallError | None = None

    async def read_on(self, seconds: float) -> bytes:
        """The next bytes of the answer, which are kept; none at its end, or where it breaks off."""
        assert self._answer is not None
        try:
            piece = await self._answer.read(seconds)
        except (CutError, StallError) as error:
            self._problem = error
            return b""
        if piece:
            self.keep(piece)
        return piece

    def keep(self, piece: bytes) -> None:
        """Keep bytes that were read."""
        self._pieces.append(piece)

    async def read(self, seconds: float) -> bytes:
        """See `Answer`."""
        if self._pieces:
            return self._pieces.popleft()
        if self._problem is not None:
            raise self._problem
        return b"" if self._answer is None else await self._answer.read(seconds)

    def close(self) -> None:
        """See `Answer`. What was kept can still be read."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()


class Held(NamedTuple):
    """What holding a stream back came to."""

    is_whole: bool  # all of it was read
    is_prose: bool  # it has said enough to be passed on
    is_broken: bool  # it broke off, or told an error


async def hold(
    reply: Reply, stream: Stream, request: Expectation, tokens: int, idle_seconds: float, take: Reserve
) -> Held:
    """Read a stream until it is whole, or has `tokens` of prose; the reply is then read again from its beginning.

    Tool calls, refusals, JSON and what is looked at by content are held until they are whole. `stream` is fed with what
    is read, and `take` is told of the bytes that are held; where it refuses them, the rest is not held.
    """
    assert reply.answer is not None
    answer = Replayed(reply.answer)
    piece, reply.answer, size = reply.body, answer, 0
    answer.keep(piece)
    reply.body = b""
    is_prose = False
    while piece:
        stream.feed(piece)
        size += len(piece)
        is_prose = _is_prose(stream, request, tokens)
        if stream.done or size > MOST_HELD_BYTES or is_prose:
            break
        try:
            take(len(piece))
        except OverloadedError:
            break
        piece = await answer.read_on(idle_seconds)
    reply.body = await answer.read(idle_seconds)
    is_broken = bool(stream.error) or (not piece and not stream.is_complete)
    return Held(stream.is_complete and (stream.done or not piece), is_prose, is_broken)


def _is_prose(stream: Stream, request: Expectation, tokens: int) -> bool:
    """Whether a stream has said enough to be taken for an answer in prose."""
    if request.json or request.must_call or request.holds is not None:
        return False
    heard = stream.progress()
    enough = heard.characters >= max(tokens * CHARACTERS_PER_TOKEN, 1)
    return enough and heard.choices >= request.choices and not heard.is_special
