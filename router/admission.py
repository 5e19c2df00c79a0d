"""Who is let in: the requests of one worker share its memory and its processor, and some are told to come back.

A worker that takes more than it can do answers nobody in time. So requests have their turn one after the other, with
what else is going on between two of them, and one that waited too long for its turn is refused while that is cheap.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time
from collections import deque
from collections.abc import Callable

from router.errors import OverloadedError

Hold = Callable[[int], None]  # takes so many bytes more, or refuses them
LONGEST_WAIT_SECONDS = 1.0  # for one's turn
ROUND_SECONDS = 0.01  # of decisions, before all else has its turn
SHORT_SECONDS = 0.002  # a round that took less is followed by the next at once
ROUNDS_BETWEEN = 8  # of the event loop
MOST_A_ROUND = 128
REQUEST_BYTES = 32 * 1024  # that each holds, whatever it is: a stream is measured with 24 kB
SMALL_BYTES = 16 * 1024  # of a body or an answer, which this includes
TRIM_BYTES = 64 * 2**20  # given back since the system got its share of it

_MESSAGES = {
    "requests": "This router has as many requests in flight as it takes; try again.",
    "memory": "The requests in flight hold as much memory as this router may use; try again.",
    "waiting": "This router has more to do than it can; try again.",
}


class Admission:
    """The requests in flight, the bytes they hold, and the queue for a turn."""

    def __init__(self, most_requests: int, budget_bytes: int) -> None:
        self.requests = self.held_bytes = 0
        self.shed = dict.fromkeys(_MESSAGES, 0)  # refused requests, by why
        self._most_requests = most_requests
        self._budget_bytes = budget_bytes
        self._queue: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._batch = self._turns = MOST_A_ROUND  # that a round may have; that are left of this one
        self._running = False
        self._began = 0.0
        self.given_bytes = 0

    def enter(self) -> Admitted:
        """Let a request in, which has to `leave`.

        Raises:
            OverloadedError: there are too many, or they hold too much.
        """
        if self.requests >= self._most_requests:
            raise self.refused("requests")
        if self.held_bytes + REQUEST_BYTES > self._budget_bytes:
            raise self.refused("memory")
        self.requests += 1
        self.held_bytes += REQUEST_BYTES
        return Admitted(self)

    def refused(self, why: str) -> OverloadedError:
        """The error for a request that is sent away, which is counted."""
        self.shed[why] += 1
        return OverloadedError(_MESSAGES[why])

    async def turn(self) -> None:
        """Wait until a request may use the processor.

        Raises:
            OverloadedError: it waited too long.
        """
        if not self._running:
            self._running, self._began = True, time.perf_counter()
            loop = asyncio.get_running_loop()
            loop.call_soon(self._next, loop)
        if self._turns > 0 and not self._queue:
            self._turns -= 1
            return
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._queue.append((loop.time(), waiting))
        if not await waiting:
            raise self.refused("waiting")

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """After a round: judge how long it took, and let all else have its turn before the next one."""
        took, used = time.perf_counter() - self._began, self._batch - self._turns
        if took > ROUND_SECONDS:
            self._batch = max(int(used * ROUND_SECONDS / took), 1)
        elif used == self._batch:
            self._batch = min(self._batch * 2, MOST_A_ROUND)
        if took > SHORT_SECONDS:
            self._turns = 0
            loop.call_soon(self._rest, loop, ROUNDS_BETWEEN)
        else:
            self._grant(loop)

    def _rest(self, loop: asyncio.AbstractEventLoop, rounds: int) -> None:
        """Leave some rounds to others: the loop accepts one connection in each, and one not accepted is not seen."""
        if rounds > 0:
            loop.call_soon(self._rest, loop, rounds - 1)
        else:
            self._grant(loop)

    def _grant(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns, self._began = self._batch, time.perf_counter()
        oldest = loop.time() - LONGEST_WAIT_SECONDS
        while self._queue and self._turns > 0:
            since, waiting = self._queue.popleft()
            if not waiting.done():
                fresh = since > oldest
                waiting.set_result(fresh)
                self._turns -= fresh
        self._running = bool(self._queue) or self._turns < self._batch
        if self._running:
            loop.call_soon(self._next, loop)

    def trim(self) -> None:
        """Give the system its memory back after large requests; else it stays with this process."""
        self.given_bytes = 0
        with contextlib.suppress(AttributeError, OSError, RuntimeError):
            asyncio.get_running_loop().call_later(0.1, ctypes.CDLL(None).malloc_trim, 0)

    def hold(self, size: int) -> None:
        """Count `size` bytes more.

        Raises:
            OverloadedError: they do not fit the budget.
        """
        if self.held_bytes + size > self._budget_bytes:
            raise self.refused("memory")
        self.held_bytes += size


class Admitted:
    """A request that is in, and the bytes it holds."""

    __slots__ = ("_admission", "_held", "_passing")

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission
        self._held = REQUEST_BYTES
        self._passing = 0

    def hold(self, size: int) -> None:
        """Hold so many bytes more, until the request leaves.

        Raises:
            OverloadedError: the worker holds too many.
        """
        if self._admission is not None:
            self._admission.hold(size)
            self._held += size

    def passing(self, size: int) -> None:
        """Say how many bytes of a stream are being passed on, in the place of what was said before.

        Raises:
            OverloadedError: the worker holds too many.
        """
        if size != self._passing:
            self.hold(size - self._passing)
            self._passing = size

    def leave(self) -> None:
        """Give back all that was held; once is enough."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.requests -= 1
            admission.held_bytes -= self._held
            admission.given_bytes += self._held - REQUEST_BYTES
            if admission.given_bytes > TRIM_BYTES and admission.held_bytes < TRIM_BYTES:
                admission.trim()
