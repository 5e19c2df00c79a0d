"""Real servers for tests, on free ports of loopback: PostgreSQL and MLflow."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def folder_for_everybody() -> Iterator[Path]:
    """A folder that other users can read. pytest makes its own temporary folders private at each session."""
    with tempfile.TemporaryDirectory(prefix="router-tests-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A real PostgreSQL, if it is installed; yields its URL without a database name."""
    pytest.importorskip("psycopg")
    binaries = os.pathsep.join(
        [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    )  # as in Debian
    initdb, postgres = (shutil.which(name, path=binaries) for name in ("initdb", "postgres"))
    if initdb is None or postgres is None:
        pytest.skip("there is no PostgreSQL on this machine")
    with folder_for_everybody() as folder:
        user = []
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "nobody")
            user = ["setpriv", "--reuid=nobody", "--clear-groups"]
        port, output = free_port(), {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [*user, initdb, "-D", folder / "data", "-U", "test", "--no-sync"]
        subprocess.run(command, check=True, cwd=folder, **output)
        options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-F"]
        server = subprocess.Popen([*user, postgres, "-D", folder / "data", *options], cwd=folder, **output)
        try:
            _wait_for_postgresql(f"host=127.0.0.1 port={port} user=test dbname=postgres")
            yield f"postgresql+psycopg://test@127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)  # SIGINT does not wait for clients to disconnect
            server.wait(20)


def _wait_for_postgresql(address: str) -> None:
    """Wait until PostgreSQL accepts a login; it listens earlier."""
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(address, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.1)


class MlflowServer:
    """A real MLflow server, which can be killed and restarted on the same store."""

    def __init__(self, uri: str, folder: Path, *, wait: bool = True) -> None:
        self.port = free_port()
        self.store = Path(uri.removeprefix("sqlite:///"))
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--backend-store-uri", uri, "--workers", "1", "--disable-security-middleware"]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        self._folder = folder
        self.start(wait=wait)

    def start(self, *, wait: bool = True) -> None:
        environment = {**os.environ, "MLFLOW_MODEL_CATALOG_URI": "", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # its job runners take most of the start
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self._folder
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + 200
        while not is_listening(self.port):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self._folder / "server.log").read_text()[-2000:])
            time.sleep(0.1)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
