"""The exporter as `serve` sees it: a child process of low priority that is started, watched and stopped.

What it does is in `router/exporter/shipping.py`; this module is imported by the proxy, and so imports no MLflow.
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
_DATABASES = ("sqlite:", "postgresql", "mysql", "mssql")  # schemes of MLflow's own stores
_SECRETS = ("OPENAI_API_KEY", "ROUTER_API_KEYS", "ROUTER_MODELS")


class Exporter:
    """A running exporter. It stops by itself when this process dies, since its standard input then ends."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._stopping = threading.Event()
        self._process = self._spawned()
        self._watch = threading.Thread(target=self._watched, name="exporter", daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Let it export what is there for up to `drain_seconds`, then end it. What is left is exported next time."""
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

    def _spawned(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "router.exporter"], stdin=subprocess.PIPE, env=self._environment)

    def _watched(self) -> None:
        delay = 1.0
        while True:
            status = self._process.wait()
            if self._stopping.wait(delay):
                return
            log.error("the exporter ended with status %d; it is started again", status)
            delay = min(delay * 2, MAX_RESTART_SECONDS)
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process = self._spawned()


def require_store(uri: str) -> None:
    """Check that this installation can keep traces at `uri`: mlflow-skinny has MLflow's client without its databases.

    Raises:
        SettingsError: `uri` is a database, and only MLflow's client is installed.
    """
    if uri.startswith(_DATABASES) and find_spec("alembic") is None:
        raise SettingsError(
            "this installation has MLflow's client and no store of its own: set MLFLOW_TRACKING_URI to an MLflow "
            "server, or install the package mlflow"
        )


def start(settings: Settings) -> Exporter:
    """Start the exporter for the journal of `settings`. It is not told any key: it has no use for one."""
    environment = {name: value for name, value in os.environ.items() if name.upper() not in _SECRETS}
    environment.setdefault("PYTHONFAULTHANDLER", "1")  # where it crashes in a library, the log says where
    environment["ROUTER_HOME"] = str(settings.home.absolute())
    environment["MLFLOW_TRACKING_URI"] = settings.tracking_uri
    environment["MLFLOW_EXPERIMENT_NAME"] = settings.mlflow_experiment_name
    # for their prices; `router.toml` is read there as here
    models = {
        name: model.model_dump(mode="json", exclude={"api_key", "upstreams"}) for name, model in settings.models.items()
    }
    if models and "ROUTER_MODELS" in os.environ:
        environment["ROUTER_MODELS"] = json.dumps(models)
    return Exporter(environment)
