"""A soak with faults: do journal, ledger, MLflow and the upstream's own count agree to the last token?

    python benchmarks/soak.py --minutes 30
    python benchmarks/soak.py --minutes 6 --rate 500 --away 0.35  # MLflow away for two minutes, twice, under load

A fake OpenAI counts what it bills. In front of it runs the real proxy (`python -m router serve`), which exports to a
real `mlflow server`. Clients ask for whole answers and streams, and some leave in the middle. The upstream fails now
and then. MLflow is killed twice for a while, the proxy twice with `kill -9`. At the end everything is compared by
request id.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from soak_counts import compare, journal_records, ledger_rows, mlflow_rows
from soak_traffic import Clients, Upstream


class Servers:
    """The real proxy and a real MLflow, and what happens to them."""

    def __init__(self, home: Path, upstream_port: int) -> None:
        self.home = home
        self.proxy_port, self.mlflow_port = _free_port(), _free_port()
        self.environment = {
            **os.environ,
            "ROUTER_HOME": str(home),
            "OPENAI_API_KEY": "sk-soak",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow_port}",
            "MLFLOW_MODEL_CATALOG_URI": "",
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        }
        self.environment.pop("ROUTER_API_KEYS", None)
        self.log = (home / "soak.log").open("ab")
        self.store = home / "server.db"
        self.proxy: subprocess.Popen[bytes] | None = None
        self.mlflow: subprocess.Popen[bytes] | None = None

    def start_mlflow(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.mlflow_port)]
        command += ["--backend-store-uri", f"sqlite:///{self.store}", "--workers", "1"]
        command += ["--default-artifact-root", str(self.home / "artifacts")]
        self.mlflow = self._started(command)

    def start_proxy(self) -> None:
        self.proxy = self._started([sys.executable, "-m", "router", "serve", "--port", str(self.proxy_port)])

    def _started(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=self.log, start_new_session=True, cwd=self.home
        )

    def kill_mlflow(self) -> None:
        assert self.mlflow is not None
        os.killpg(self.mlflow.pid, signal.SIGKILL)
        self.mlflow.wait()

    def kill_proxy(self) -> None:
        """The proxy alone: its exporter has to notice."""
        assert self.proxy is not None
        self.proxy.kill()
        self.proxy.wait()

    def stop(self) -> None:
        if self.proxy is not None:
            self.proxy.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.proxy.wait(60)
        if self.mlflow is not None and self.mlflow.poll() is None:
            os.killpg(self.mlflow.pid, signal.SIGTERM)
            self.mlflow.wait(30)
        self.log.close()

    async def up(self, port: int, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            await asyncio.sleep(0.2)
        raise RuntimeError(f"nothing listens on {port}; see {self.log.name}")

    def memory(self) -> dict[str, float]:
        """Resident MB of the proxy and its exporter."""
        assert self.proxy is not None
        megabytes = {"proxy": _resident(self.proxy.pid)}
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{self.proxy.pid}/task/{self.proxy.pid}/children").read_text().split():
                if b"export" in Path(f"/proc/{child}/cmdline").read_bytes():
                    megabytes["exporter"] = _resident(int(child))
        return megabytes


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def faults(servers: Servers, seconds: float, outage_seconds: float, events: list[str]) -> None:
    """MLflow down at 15 and 55 % of the time, for `away` of it; the proxy killed at 35 and 75 %."""
    start = time.monotonic()
    plan = [
        (0.15, servers.kill_mlflow),
        (0.15 + outage_seconds, servers.start_mlflow),
        (0.35, servers.kill_proxy),
        (0.36, servers.start_proxy),
        (0.55, servers.kill_mlflow),
        (0.55 + outage_seconds, servers.start_mlflow),
        (0.75, servers.kill_proxy),
        (0.76, servers.start_proxy),
    ]
    for share, act in sorted(plan, key=lambda step: step[0]):
        await asyncio.sleep(max(start + share * seconds - time.monotonic(), 0))
        await asyncio.to_thread(act)
        events.append(f"{time.monotonic() - start:.0f}s {act.__name__}")
        print(events[-1], flush=True)


async def watch(servers: Servers, samples: list[dict[str, float]], every: float) -> None:
    """Memory, now and then."""
    start = time.monotonic()
    while True:
        await asyncio.sleep(every)
        samples.append({"seconds": round(time.monotonic() - start), **servers.memory()})
        print(json.dumps(samples[-1]), flush=True)


async def until_exported(servers: Servers, seconds: float) -> float:
    """Wait until MLflow and ledger have what the journal has; how long it took."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        expected = len(journal_records(servers.home))
        if len(mlflow_rows(servers.store)) >= expected and len(ledger_rows(servers.home)) >= expected:
            break
        await asyncio.sleep(5)
    return time.monotonic() - start


async def soak(minutes: float, rate: float, outage_seconds: float, home: Path, seed: int) -> dict[str, Any]:
    """Run it; the comparison."""
    chance = random.Random(seed)
    upstream = Upstream(chance)
    servers = Servers(home, await upstream.start())
    servers.start_mlflow()
    await servers.up(servers.mlflow_port)
    servers.start_proxy()
    await servers.up(servers.proxy_port)
    clients = Clients(f"http://127.0.0.1:{servers.proxy_port}", chance)
    events: list[str] = []
    samples: list[dict[str, float]] = []
    watching = asyncio.create_task(watch(servers, samples, max(minutes * 60 / 30, 2)))
    try:
        await asyncio.gather(clients.run(rate, minutes * 60), faults(servers, minutes * 60, outage_seconds, events))
        await asyncio.sleep(3)
        lag = await until_exported(servers, max(300, minutes * rate * 1.5))
        watching.cancel()
    finally:
        servers.stop()
        upstream.server.close()
    return {
        "minutes": minutes,
        "rate": rate,
        "away": outage_seconds,
        "faults": events,
        "export_lag_at_the_end_seconds": round(lag, 1),
        **compare(home, servers.store, upstream, clients),
        "memory_mb": samples,
    }


def main() -> int:
    """Run the soak; 1 where anything disagrees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--away", type=float, default=0.1, help="share of the time that MLflow is away, twice; < 0.4")
    parser.add_argument("--home", type=Path, help="folder to leave everything in; else a temporary one")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    home = arguments.home or Path(tempfile.mkdtemp(prefix="soak-"))
    home.mkdir(parents=True, exist_ok=True)
    result = asyncio.run(soak(arguments.minutes, arguments.rate, arguments.away, home.absolute(), arguments.seed))
    print(json.dumps(result, indent=1))
    (home / "soak.json").write_text(json.dumps(result, indent=1))
    fault_names = ("whole_answers_without_a_record", "ledger_differs", "mlflow_differs", "usage_unlike_the_upstreams")
    counts = {result[name] for name in ("journal_records", "journal_traces", "ledger_rows", "mlflow_traces")}
    return int(any(result[name] for name in fault_names) or len(counts) != 1)


if __name__ == "__main__":
    sys.exit(main())
