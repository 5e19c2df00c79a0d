"""Ctrl-C and SIGTERM: requests in flight are finished, and paid results are stored."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from calibration.spending import StoppedError

LOOK_SECONDS = 0.2


class InterruptionError(StoppedError):
    """The calibration was stopped by Ctrl-C or SIGTERM."""


@contextmanager
def interruptible(stop: Callable[[StoppedError], Any]) -> Iterator[None]:
    """Call `stop` on Ctrl-C or SIGTERM; a second Ctrl-C raises KeyboardInterrupt."""

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop(InterruptionError("interrupted; results so far are stored, and the same command resumes here"))

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class InterruptibleWait:
    """Waits until Ctrl-C or SIGTERM; a context manager.

    It looks often instead of sleeping once: a signal that arrives just before it sleeps wakes nobody.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> InterruptibleWait:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._request) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, *_: object) -> None:
        self._requested = True

    def wait(self, seconds: float) -> None:
        """Sleep for some seconds.

        Raises:
            InterruptionError: interrupted, with the message.
        """
        until = time.monotonic() + seconds
        while not self._requested and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
        if self._requested:
            raise InterruptionError(self._message)
