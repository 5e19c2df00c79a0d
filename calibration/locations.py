"""Where a calibration finds and keeps its data."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder of the proxy's journal and policies."""
    return Path(os.environ.get("ROUTER_HOME") or ".router")


def tracking_uri() -> str:
    """The MLflow store: `MLFLOW_TRACKING_URI`, or SQLite in the home folder, which the proxy uses too."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home().absolute() / 'mlflow.db'}"
