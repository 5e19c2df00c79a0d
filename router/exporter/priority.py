"""How the exporter gives way to requests. It imports nothing of the project: it is the first that the process does."""

from __future__ import annotations

import contextlib
import os


def yield_processor() -> None:
    """Let requests come first, and yet get on on a busy machine: a tenth of a core's share, and never real-time."""
    with contextlib.suppress(OSError, AttributeError):  # there is no such class but on Linux
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.nice(10)
