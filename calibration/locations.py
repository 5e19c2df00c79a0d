"""The locations of a calibration's data."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The folder of the router's journal and policies: `ROUTER_HOME`, by default `.router`."""
    return Path(os.environ.get("ROUTER_HOME") or ".router")


def tracking_uri() -> str:
    """The URI of MLflow's store: `MLFLOW_TRACKING_URI`, by default SQLite in the home folder, as for the router."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home().absolute() / 'mlflow.db'}"
