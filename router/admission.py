"""Admission control: the requests of one worker share its memory and processor, and excess requests are rejected.

An overloaded worker would answer no request in time. So new requests take turns on the event loop in rounds, between
which other work runs. A request that waits too long for its turn is rejected before it costs much.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import time
from collections import deque
from collections.abc import Callable

from router.errors import OverloadedError

Reserve = Callable[[int], None]  # reserves a number of bytes, or raises OverloadedError
MAX_WAIT_SECONDS = 1.0  # for a turn
ROUND_SECONDS = 0.01  # longest round of decisions, after which other work runs
SHORT_ROUND_SECONDS = 0.002  # after a shorter round, the next one starts at once
LOOP_PASSES_BETWEEN = 8  # passes of the event loop between two rounds
MAX_TURNS_PER_ROUND = 128
REQUEST_BYTES = 32 * 1024  # reserved for every request; a stream was measured at 24 kB
SMALL_BYTES = 16 * 1024  # of a body or an answer; included in REQUEST_BYTES
TRIM_BYTES = 64 * 2**20  # released memory after which it is returned to the system

_MESSAGES = {
    "requests": "The router has reached its maximum number of requests in flight; try again.",
    "memory": "The requests in flight have reached the router's memory limit; try again.",
    "waiting": "The router is overloaded; try again.",
}


class Admission:
    """The requests in flight, the memory they reserve, and the queue of requests that wait for a turn."""

    def __init__(self, max_requests: int, budget_bytes: int) -> None:
        self.requests = self.reserved_bytes = 0
        self.shed = dict.fromkeys(_MESSAGES, 0)  # number of rejected requests, by reason
        self._max_requests = max_requests
        self._budget_bytes = budget_bytes
        self._queue: deque[tuple[float, asyncio.Future[bool]]] = deque()
        self._batch = self._turns = MAX_TURNS_PER_ROUND  # turns per round; turns left in this round
        self._running = False
        self._round_start = 0.0
        self.released_bytes = 0

    def admit(self) -> AdmittedRequest:
        """Admit a request, which must call `release` when it ends.

        Raises:
            OverloadedError: there are too many requests, or they reserve too much memory.
        """
        if self.requests >= self._max_requests:
            raise self.reject("requests")
        if self.reserved_bytes + REQUEST_BYTES > self._budget_bytes:
            raise self.reject("memory")
        self.requests += 1
        self.reserved_bytes += REQUEST_BYTES
        return AdmittedRequest(self)

    def reject(self, reason: str) -> OverloadedError:
        """Count a rejected request; returns the error for it."""
        self.shed[reason] += 1
        return OverloadedError(_MESSAGES[reason])

    async def wait_turn(self) -> None:
        """Wait until a request may use the processor.

        Raises:
            OverloadedError: the request waited longer than MAX_WAIT_SECONDS.
        """
        if not self._running:
            self._running, self._round_start = True, time.perf_counter()
            loop = asyncio.get_running_loop()
            loop.call_soon(self._end_round, loop)
        if self._turns > 0 and not self._queue:
            self._turns -= 1
            return
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._queue.append((loop.time(), waiting))
        if not await waiting:
            raise self.reject("waiting")

    def _end_round(self, loop: asyncio.AbstractEventLoop) -> None:
        """Adjust the turns per round to how long the round took, and let other work run before the next one."""
        took, used = time.perf_counter() - self._round_start, self._batch - self._turns
        if took > ROUND_SECONDS:
            self._batch = max(int(used * ROUND_SECONDS / took), 1)
        elif used == self._batch:
            self._batch = min(self._batch * 2, MAX_TURNS_PER_ROUND)
        if took > SHORT_ROUND_SECONDS:
            self._turns = 0
            loop.call_soon(self._pause, loop, LOOP_PASSES_BETWEEN)
        else:
            self._grant_turns(loop)

    def _pause(self, loop: asyncio.AbstractEventLoop, passes: int) -> None:
        """Let the event loop run for some passes. It accepts one connection in each of them."""
        if passes > 0:
            loop.call_soon(self._pause, loop, passes - 1)
        else:
            self._grant_turns(loop)

    def _grant_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns, self._round_start = self._batch, time.perf_counter()
        oldest = loop.time() - MAX_WAIT_SECONDS
        while self._queue and self._turns > 0:
            since, waiting = self._queue.popleft()
            if not waiting.done():
                fresh = since > oldest
                waiting.set_result(fresh)
                self._turns -= fresh
        self._running = bool(self._queue) or self._turns < self._batch
        if self._running:
            loop.call_soon(self._end_round, loop)

    def trim(self) -> None:
        """Return free memory to the system after large requests. Otherwise the process keeps it."""
        self.released_bytes = 0
        with contextlib.suppress(AttributeError, OSError, RuntimeError):
            asyncio.get_running_loop().call_later(0.1, ctypes.CDLL(None).malloc_trim, 0)

    def reserve(self, size: int) -> None:
        """Reserve `size` bytes.

        Raises:
            OverloadedError: the memory budget is exceeded.
        """
        if self.reserved_bytes + size > self._budget_bytes:
            raise self.reject("memory")
        self.reserved_bytes += size


class AdmittedRequest:
    """A request in flight, and the memory it reserves."""

    __slots__ = ("_admission", "_buffered", "_reserved")

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission
        self._reserved = REQUEST_BYTES
        self._buffered = 0

    def reserve(self, size: int) -> None:
        """Reserve `size` bytes until the request ends.

        Raises:
            OverloadedError: the memory budget is exceeded.
        """
        if self._admission is not None:
            self._admission.reserve(size)
            self._reserved += size

    def set_buffered(self, size: int) -> None:
        """Reserve `size` bytes for the buffer of a stream, instead of the size set before.

        Raises:
            OverloadedError: the memory budget is exceeded.
        """
        if size != self._buffered:
            self.reserve(size - self._buffered)
            self._buffered = size

    def release(self) -> None:
        """Release all reserved memory. Further calls have no effect."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.requests -= 1
            admission.reserved_bytes -= self._reserved
            admission.released_bytes += self._reserved - REQUEST_BYTES
            if admission.released_bytes > TRIM_BYTES and admission.reserved_bytes < TRIM_BYTES:
                admission.trim()
