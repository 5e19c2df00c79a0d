"""Starts, supervises and stops the exporter: a child process of `serve` at low priority.

The exporter itself is `router/exporter/shipping.py`. The proxy imports this module, so it does not import MLflow.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from importlib.util import find_spec

from router.settings import Settings, SettingsError

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
MAX_RESTART_SECONDS = 30.0
_DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")  # the schemes of MLflow's database stores
_SECRETS = ("OPENAI_API_KEY", "ROUTER_API_KEYS", "ROUTER_MODELS")


class Exporter:
    """A running exporter. It stops when this process dies, because its standard input ends."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._stopping = threading.Event()
        self._process = self._spawn()
        self._watch = threading.Thread(target=self._supervise, name="exporter", daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Let it export the rest for up to `drain_seconds`, then end it. The next exporter continues."""
        self._stopping.set()
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        for end in (process.terminate, process.kill):
            try:
                process.wait(drain_seconds)
                break
            except subprocess.TimeoutExpired:
                drain_seconds = 2.0
                end()
        process.wait()
        self._watch.join(1.0)

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "router.exporter"], stdin=subprocess.PIPE, env=self._environment)

    def _supervise(self) -> None:
        delay = 1.0
        while True:
            status = self._process.wait()
            if self._stopping.wait(delay):
                return
            log.error("the exporter ended with status %d; restarting it", status)
            delay = min(delay * 2, MAX_RESTART_SECONDS)
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = self._spawn()


def require_store(uri: str) -> None:
    """Check that this installation can store traces at `uri`: mlflow-skinny has no database stores.

    Raises:
        SettingsError: `uri` is a database, and only MLflow's client is installed.
    """
    if uri.startswith(_DATABASES) and find_spec("alembic") is None:
        raise SettingsError(
            "only MLflow's client is installed, which cannot store traces itself: set MLFLOW_TRACKING_URI to an MLflow "
            "server, or install the package mlflow"
        )


def start(settings: Settings) -> Exporter:
    """Start the exporter for the journal of `settings`. Its environment contains no API key."""
    environment = {name: value for name, value in os.environ.items() if name.upper() not in _SECRETS}
    environment.setdefault("PYTHONFAULTHANDLER", "1")  # logs a stack trace if a library crashes
    environment["ROUTER_HOME"] = str(settings.home.absolute())
    environment["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    environment["MLFLOW_EXPERIMENT_NAME"] = settings.mlflow_experiment_name
    # the prices of models; the exporter reads `router.toml` itself
    models = {
        name: model.model_dump(mode="json", exclude={"api_key", "upstreams"}) for name, model in settings.models.items()
    }
    if models and "ROUTER_MODELS" in os.environ:
        environment["ROUTER_MODELS"] = json.dumps(models)
    return Exporter(environment)
