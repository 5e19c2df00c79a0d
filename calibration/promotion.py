"""Policies as versions of a model in MLflow's registry, and which of them serves: challenger, champion, previous."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from calibration.run import Calibration

MODEL = "router"
CHALLENGER, CHAMPION = "challenger", "champion"


def register(found: Calibration, written: Mapping[str, Path], seed: int) -> str | None:
    return None
