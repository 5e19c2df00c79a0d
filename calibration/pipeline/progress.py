"""How a calibration reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Callbacks of a running calibration."""

    start_stage: Callable[[str, int, int], None]  # name of the stage, steps done, steps in total
    advance: Callable[[], None]  # one more step is done
