"""A real Redis on a free port of loopback, which can be killed and started again empty."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from servers import free_port, is_listening


class RedisServer:
    """Stores data in memory only. With a certificate (PEM, with its key) it accepts only TLS."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("there is no redis-server on this machine (apt-get install redis-server)")
        self.port = free_port()
        self._scheme = "redis" if certificate is None else "rediss"
        self._command = [binary, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        if certificate is None:
            self._command += ["--port", str(self.port)]
        else:
            self._command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            for option in ("cert", "key", "ca-cert"):
                self._command += [f"--tls-{option}-file", str(certificate)]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, **output)
        deadline = time.monotonic() + 10
        while not is_listening(self.port):
            assert time.monotonic() < deadline and self._process.poll() is None, "Redis does not start"
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
