"""Ctrl-C and SIGTERM: requests in flight are finished, and paid results are stored."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from calibration.spending import StoppedError


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
