"""Ctrl-C and SIGTERM: what is under way is finished, and what was paid for is kept."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from calibration.spending import StoppedError


class InterruptionError(StoppedError):
    """Stopped by Ctrl-C or SIGTERM."""


@contextmanager
def interruptible(stop: Callable[[StoppedError], Any]) -> Iterator[None]:
    """On Ctrl-C or SIGTERM finish what is under way and stop; on a second Ctrl-C stop at once."""

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop(InterruptionError("interrupted; what there is is kept, and the same command goes on from here"))

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
