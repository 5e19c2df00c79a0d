"""Lowers the priority of the exporter process. Imports nothing of the project, so that it can run first."""

from __future__ import annotations

import contextlib
import os


def lower_priority() -> None:
    """Run at low priority: requests come first, and a busy machine still grants about a tenth of a core."""
    with contextlib.suppress(OSError, AttributeError):  # the scheduling class exists on Linux only
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.nice(10)
