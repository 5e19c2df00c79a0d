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
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

QUESTIONS = (
    "What is {number} plus {number}? Answer with the number.",
    "Natalia sold {number} clips to her friends in April, and half as many in May. How many did she sell altogether?",
    "A baker has {number} eggs, uses 3 for each cake and bakes 12 cakes. How many eggs are left over?",
    "Which year did the person who invented device number {number} receive the Nobel Prize?",
)


class Upstream:
    """An OpenAI that bills: every usage it sends is kept under the id of its answer."""

    def __init__(self, chance: random.Random) -> None:
        self.billed: dict[str, dict[str, int]] = {}  # by x-request-id, once the usage went out
        self.delivered: set[str] = set()  # answers written to the end
        self.failed = 0
        self.chance = chance
        self.number = 0

    async def start(self) -> int:
        """Listen; the port."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get"):  # the proxy asks which models there are
                    models = b'{"object":"list","data":[{"id":"gpt-4o"},{"id":"gpt-4o-mini"}]}'
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(models), models))
                    await writer.drain()
                    continue
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                if not await self._answer(body, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        fate = self.chance.random()
        if fate < 0.03:
            self.failed += 1
            status = self.chance.choice([500, 503, 429, 400])
            error = json.dumps({"error": {"message": "soak", "type": "server_error"}}).encode()
            head = f"HTTP/1.1 {status} no\r\ncontent-type: application/json\r\nretry-after: 0\r\n"
            writer.write(f"{head}content-length: {len(error)}\r\n\r\n".encode() + error)
            await writer.drain()
            return True
        self.number += 1
        request_id = f"soak-{self.number}"
        usage = self._usage()
        await asyncio.sleep(self.chance.uniform(0.01, 0.1))
        if body.get("stream"):
            return await self._stream(body, writer, request_id, usage, cut=fate > 0.99)
        answer = {"id": request_id, "object": "chat.completion", "created": 1, "model": body["model"], "usage": usage}
        answer["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "42"}, "finish_reason": "stop"}]
        content = json.dumps(answer).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: {request_id}\r\n"
        self.billed[request_id] = usage
        writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        await writer.drain()
        self.delivered.add(request_id)
        return True

    async def _stream(
        self, body: dict[str, Any], writer: asyncio.StreamWriter, request_id: str, usage: dict[str, Any], *, cut: bool
    ) -> bool:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        writer.write(f"{head}x-request-id: {request_id}\r\n\r\n".encode())
        base = {"id": request_id, "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

        def event(**more: Any) -> bytes:
            data = b"data: " + json.dumps({**base, **more}).encode() + b"\n\n"
            return b"%x\r\n%b\r\n" % (len(data), data)

        for word in ("4", "2", ".") * 3:
            writer.write(event(choices=[{"index": 0, "delta": {"content": word}, "finish_reason": None}]))
            await writer.drain()
            await asyncio.sleep(0.01)
        if cut:
            return False
        writer.write(event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        self.billed[request_id] = usage
        writer.write(event(choices=[], usage=usage) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()
        self.delivered.add(request_id)
        return True

    def _usage(self) -> dict[str, Any]:
        read, written = self.chance.randint(20, 4000), self.chance.randint(1, 800)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": self.chance.randint(0, read // 2)},
            "completion_tokens_details": {"reasoning_tokens": self.chance.randint(0, written // 2)},
        }


class Clients:
    """Clients at a steady rate; `whole` are the trace ids of answers that came to their end."""

    def __init__(self, origin: str, chance: random.Random) -> None:
        self.origin, self.chance = origin, chance
        self.whole: set[str] = set()
        self.counts: Counter[str] = Counter()

    async def run(self, rate: float, seconds: float) -> None:
        """Ask until the time is over."""
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(self.origin, timeout=timeout) as client:
            tasks: set[asyncio.Task[None]] = set()
            start = time.monotonic()
            sent = 0
            while (now := time.monotonic() - start) < seconds:
                while sent < now * rate and len(tasks) < 200:
                    task = asyncio.create_task(self._ask(client))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    sent += 1
                await asyncio.sleep(0.01)
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, client: aiohttp.ClientSession) -> None:
        number = self.chance.randint(0, 10**6)
        question = {"role": "user", "content": self.chance.choice(QUESTIONS).format(number=number)}
        body = {"model": "auto", "messages": [question], "stream": self.chance.random() < 0.5, "user": f"u{number % 7}"}
        leaves = self.chance.random() < 0.05
        self.counts["asked"] += 1
        try:
            async with client.post("/v1/chat/completions", json=body) as response:
                content = b""
                async for piece in response.content.iter_any():
                    content += piece
                    if leaves:
                        self.counts["left"] += 1
                        response.close()
                        return
            whole = response.status == 200 and (not body["stream"] or content.rstrip().endswith(b"[DONE]"))
            self.counts[f"status {response.status}" if not whole else "whole"] += 1
            if whole:
                self.whole.add(response.headers["x-router-trace-id"])
        except (aiohttp.ClientError, TimeoutError) as error:
            self.counts[type(error).__name__] += 1
            await asyncio.sleep(0.2)


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
        found = {"proxy": _resident(self.proxy.pid)}
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{self.proxy.pid}/task/{self.proxy.pid}/children").read_text().split():
                if b"export" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found["exporter"] = _resident(int(child))
        return found


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def faults(servers: Servers, seconds: float, away: float, told: list[str]) -> None:
    """MLflow down at 15 and 55 % of the time, for `away` of it; the proxy killed at 35 and 75 %."""
    start = time.monotonic()
    plan = [
        (0.15, servers.kill_mlflow),
        (0.15 + away, servers.start_mlflow),
        (0.35, servers.kill_proxy),
        (0.36, servers.start_proxy),
        (0.55, servers.kill_mlflow),
        (0.55 + away, servers.start_mlflow),
        (0.75, servers.kill_proxy),
        (0.76, servers.start_proxy),
    ]
    for share, act in sorted(plan, key=lambda step: step[0]):
        await asyncio.sleep(max(start + share * seconds - time.monotonic(), 0))
        await asyncio.to_thread(act)
        told.append(f"{time.monotonic() - start:.0f}s {act.__name__}")
        print(told[-1], flush=True)


async def watch(servers: Servers, samples: list[dict[str, float]], every: float) -> None:
    """Memory, now and then."""
    start = time.monotonic()
    while True:
        await asyncio.sleep(every)
        samples.append({"seconds": round(time.monotonic() - start), **servers.memory()})
        print(json.dumps(samples[-1]), flush=True)


def journal_records(home: Path) -> list[dict[str, Any]]:
    """Every request in the journal."""
    records = []
    for segment in sorted((home / "journal").glob("*.jsonl")):
        for line in segment.read_bytes().splitlines():
            record = json.loads(line)
            if record["kind"] == "request":
                records.append(record)
    return records


def mlflow_rows(store: Path) -> dict[str, tuple[int, int, float | None]]:
    """Tokens and cost by trace, as MLflow keeps them."""
    with contextlib.closing(sqlite3.connect(store, timeout=60)) as db:
        columns = {row[1] for row in db.execute("pragma table_info(trace_info)")}
        tokens = [name for name in ("input_tokens", "output_tokens", "total_cost") if name in columns]
        if len(tokens) != 3:
            raise RuntimeError(f"MLflow keeps tokens elsewhere: {sorted(columns)}")
        rows = db.execute("select request_id, input_tokens, output_tokens, total_cost from trace_info")
        return {row[0].removeprefix("tr-"): (row[1] or 0, row[2] or 0, row[3]) for row in rows}


def ledger_rows(home: Path) -> dict[str, tuple[int, int, float | None]]:
    """Tokens and cost by trace, as the usage tables keep them."""
    with contextlib.closing(sqlite3.connect(home / "usage.db", timeout=60)) as db:
        rows = db.execute("select trace_id, input_tokens, output_tokens, cost_usd from router_requests")
        return {row[0]: (row[1] or 0, row[2] or 0, row[3]) for row in rows}


async def until_exported(servers: Servers, seconds: float) -> float:
    """Wait until MLflow and ledger have what the journal has; how long it took."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        expected = len(journal_records(servers.home))
        if len(mlflow_rows(servers.store)) >= expected and len(ledger_rows(servers.home)) >= expected:
            break
        await asyncio.sleep(5)
    return time.monotonic() - start


def compare(home: Path, store: Path, upstream: Upstream, clients: Clients) -> dict[str, Any]:
    """Who counted what, and whether they agree."""
    records = journal_records(home)
    by_trace = {record["trace_id"]: record for record in records}
    usage = {trace: record.get("usage") or {} for trace, record in by_trace.items()}
    journal = {
        trace: (usage[trace].get("input_tokens", 0), usage[trace].get("output_tokens", 0), record.get("cost_usd"))
        for trace, record in by_trace.items()
    }
    ledger, mlflow = ledger_rows(home), mlflow_rows(store)
    told = {record["request_id"]: usage[trace] for trace, record in by_trace.items() if record.get("usage")}
    wrong = [
        request_id
        for request_id, counted in told.items()
        if (billed := upstream.billed.get(request_id)) is None
        or (billed["prompt_tokens"], billed["completion_tokens"]) != (counted["input_tokens"], counted["output_tokens"])
        or billed["prompt_tokens_details"]["cached_tokens"] != counted["cached_input_tokens"]  # type: ignore[index]
    ]
    outcomes = Counter(record.get("outcome", "answered") for record in records)
    known = {record.get("request_id") for record in records}
    return {
        "asked": clients.counts["asked"],
        "clients": dict(clients.counts),
        "upstream_billed": len(upstream.billed),
        "upstream_failed": upstream.failed,
        "journal_records": len(records),
        "journal_traces": len(by_trace),
        "ledger_rows": len(ledger),
        "mlflow_traces": len(mlflow),
        "outcomes": dict(outcomes),
        "whole_answers_without_a_record": len(clients.whole - set(by_trace)),
        "ledger_differs": sum(not same(journal[trace], ledger.get(trace)) for trace in journal),
        "mlflow_differs": sum(not same(journal[trace], mlflow.get(trace)) for trace in journal),
        "usage_unlike_the_upstreams": len(wrong),
        "billed_whose_usage_never_arrived": len((set(upstream.billed) & known) - set(told)),  # the client had left
        "billed_while_the_proxy_was_killed": len(set(upstream.billed) - known),
        "tokens": {
            name: [sum(row[at] for row in rows.values()) for rows in (journal, ledger, mlflow)]
            for at, name in ((0, "input"), (1, "output"))
        },
        "cost_usd": [sum(row[2] or 0.0 for row in rows.values()) for rows in (journal, ledger, mlflow)],
        "upstream_tokens": [
            sum(billed[name] for billed in upstream.billed.values()) for name in ("prompt_tokens", "completion_tokens")
        ],
    }


def same(one: tuple[int, int, float | None], other: tuple[int, int, float | None] | None) -> bool:
    """Whether two counts agree; dollars to a billionth of one."""
    if other is None or one[:2] != other[:2] or (one[2] is None) != (other[2] is None):
        return False
    return one[2] is None or other[2] is None or abs(one[2] - other[2]) < 1e-9


async def soak(minutes: float, rate: float, away: float, home: Path, seed: int) -> dict[str, Any]:
    """Run it; the comparison."""
    chance = random.Random(seed)
    upstream = Upstream(chance)
    servers = Servers(home, await upstream.start())
    servers.start_mlflow()
    await servers.up(servers.mlflow_port)
    servers.start_proxy()
    await servers.up(servers.proxy_port)
    clients = Clients(f"http://127.0.0.1:{servers.proxy_port}", chance)
    told: list[str] = []
    samples: list[dict[str, float]] = []
    watching = asyncio.create_task(watch(servers, samples, max(minutes * 60 / 30, 2)))
    try:
        await asyncio.gather(clients.run(rate, minutes * 60), faults(servers, minutes * 60, away, told))
        await asyncio.sleep(3)
        lag = await until_exported(servers, max(300, minutes * rate * 1.5))
        watching.cancel()
    finally:
        servers.stop()
        upstream.server.close()
    return {
        "minutes": minutes,
        "rate": rate,
        "away": away,
        "faults": told,
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
    given = parser.parse_args()
    home = given.home or Path(tempfile.mkdtemp(prefix="soak-"))
    home.mkdir(parents=True, exist_ok=True)
    result = asyncio.run(soak(given.minutes, given.rate, given.away, home.absolute(), given.seed))
    print(json.dumps(result, indent=1))
    (home / "soak.json").write_text(json.dumps(result, indent=1))
    wrong = ("whole_answers_without_a_record", "ledger_differs", "mlflow_differs", "usage_unlike_the_upstreams")
    counts = {result[name] for name in ("journal_records", "journal_traces", "ledger_rows", "mlflow_traces")}
    return int(any(result[name] for name in wrong) or len(counts) != 1)


if __name__ == "__main__":
    sys.exit(main())
