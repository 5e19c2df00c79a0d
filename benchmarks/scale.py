"""How the speed changes with the size of a prompt, with 5,000 streams at once, and with a second worker.

    python benchmarks/scale.py ../shared/bench            rewrites its part of docs/explanations/performance.md

Load and upstream are the load generator beside the project. What is compared was measured in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hot_path import WORDS
from performance import PAGE, replace_section

PROJECT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- scale -->", "<!-- /scale -->"

SIZES = (1_000, 10_000, 100_000)
ROUNDS = 3
STREAMS = 5_000
BATCHES = 10  # in which the streams begin, a second apart
KEY = "sk-scale-0123456789"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, path: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server, once it answers."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        for _ in range(400):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
                break
            time.sleep(0.05)
        else:
            raise SystemExit(f"{command[0]} did not start")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextlib.contextmanager
def router(upstream: int, workers: int = 1) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The router as it is served, in front of the upstream at a port."""
    port = free_port()
    command = [sys.executable, "-m", "router", "serve", "--port", str(port), "--workers", str(workers)]
    settings = {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1", "OPENAI_API_KEY": KEY, "ROUTER_API_KEYS": KEY}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        settings |= {"ROUTER_HOME": home, "PYTHONPATH": str(PROJECT)}
        with running(command, port, "/ready", **settings) as process:
            yield port, process


def load(tool: Path, port: int, bodies: Path, conns: int, seconds: float, *options: str) -> dict[str, Any]:
    """What the load generator saw."""
    command = [str(tool), "load", "--port", str(port), "--path", "/v1/chat/completions", "--bodies", str(bodies)]
    command += ["--conns", str(conns), "--duration", str(seconds), "--header", f"authorization: Bearer {KEY}", *options]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def processor_seconds(pid: int) -> float:
    """What a process has used of the processor, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def write_bodies(path: Path, model: str, size: int, *, stream: bool = False) -> Path:
    """Thirty-two bodies with prompts of about `size` bytes."""
    chance = random.Random(size)
    with path.open("w") as file:
        for _ in range(32):
            text = " ".join(chance.choices(WORDS, k=size // 7))[:size]
            body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text + "?"}]}
            file.write(json.dumps({**body, "stream": True} if stream else body) + "\n")
    return path


def by_size(tool: Path, upstream: int, folder: Path) -> list[str]:
    """Processor time of a request by the size of its prompt: routed, and by a model's name."""
    latencies: dict[tuple[str, int], list[float]] = {}
    with router(upstream) as (port, process):
        for _ in range(ROUNDS):
            for size in SIZES:
                for model in ("auto", "gpt-4o"):
                    bodies = write_bodies(folder / f"{model}-{size}.jsonl", model, size)
                    cpu_before = processor_seconds(process.pid)
                    load_result = load(tool, port, bodies, 16, 4)
                    cpu_seconds = processor_seconds(process.pid) - cpu_before
                    latencies.setdefault((model, size), []).append(cpu_seconds / load_result["ok"] * 1e6)
    lines = ["| prompt | routed, us | by a model's name, us | what the decision adds, us |", "|---|---|---|---|"]
    for size in SIZES:
        routed_latency, named_latency = (statistics.median(latencies[model, size]) for model in ("auto", "gpt-4o"))
        lines.append(
            f"| {size // 1000} kB | {routed_latency:,.0f} | {named_latency:,.0f}"
            f" | {routed_latency - named_latency:,.0f} |"
        )
    return lines


def many_streams(tool: Path, folder: Path) -> list[str]:
    """Memory with thousands of streams open at once, each a chunk a second."""
    port = free_port()
    slow = [str(tool), "serve", "--port", str(port), "--delay-ms", "200", "--gap-ms", "1000", "--chunks", "20"]
    bodies = write_bodies(folder / "streams.jsonl", "auto", 300, stream=True)
    with running(slow, port, "/stats"), router(port) as (proxy, process):
        load(tool, proxy, write_bodies(folder / "warm.jsonl", "gpt-4o", 300), 8, 2)
        at_rest, peak = resident_mb(process.pid), 0.0
        command = [str(tool), "load", "--port", str(proxy), "--path", "/v1/chat/completions", "--bodies", str(bodies)]
        command += ["--conns", str(STREAMS // BATCHES), "--duration", "24", "--timeout", "90"]
        command += ["--header", f"authorization: Bearer {KEY}"]
        loading: list[subprocess.Popen[str]] = []
        open_count = 0
        while len(loading) < BATCHES or any(batch.poll() is None for batch in loading):
            if len(loading) < BATCHES:  # one a second: the router refuses what waits longer for its turn
                loading.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            peak = max(peak, resident_mb(process.pid))
            open_count = max(open_count, len(list(Path(f"/proc/{process.pid}/fd").iterdir())))
            time.sleep(1)
        results = [json.loads(batch.communicate()[0]) for batch in loading]
    whole = sum(result["ok"] for result in results)
    failed = sum(result["non200"] + result["errors"] + result["timeouts"] for result in results)
    kilobytes_per_stream = (peak - at_rest) * 1024 / (open_count / 2)  # a stream has two connections
    return [
        f"{STREAMS:,} streams on one worker, {STREAMS // BATCHES} more each second:"
        f" {whole:,} ended whole, {failed:,} did not;"
        f" {open_count:,} files open at most, {at_rest:.0f} MB before and {peak:.0f} MB at most,"
        f" so {kilobytes_per_stream:.0f} kB a stream (goal 20)."
    ]


def by_workers(tool: Path, upstream: int, folder: Path) -> list[str]:
    """Requests a second with one worker and with two, in turns."""
    bodies = write_bodies(folder / "workers.jsonl", "auto", 300)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers, rates_of_count in rates.items():
            with router(upstream, workers) as (port, _process):
                load(tool, port, bodies, 64, 1)
                rates_of_count.append(load(tool, port, bodies, 64, 4)["rps"])
    rate_of_one, rate_of_two = (statistics.median(rates_of_count) for rates_of_count in rates.values())
    return [
        f"Two workers: {rate_of_two:,.0f} requests/s against {rate_of_one:,.0f} with one,"
        f" {rate_of_two / rate_of_one:.2f} times,"
        f" on {os.cpu_count()} cores that load generator, upstream and exporter share."
    ]


def main() -> None:
    """Measure, and put what was measured between the marks of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="the folder of the load generator")
    tool = parser.parse_args().bench.resolve() / "llmbench"
    if not tool.exists():
        print(f"{tool}: there is no load generator, so nothing is measured and {PAGE.name} stays as it is")
        return
    upstream = free_port()
    with (
        tempfile.TemporaryDirectory() as work,
        running([str(tool), "serve", "--port", str(upstream)], upstream, "/stats"),
    ):
        folder = Path(work)
        parts = [by_size(tool, upstream, folder), many_streams(tool, folder), by_workers(tool, upstream, folder)]
    text = f"Measured {time.strftime('%Y-%m-%d %H:%M')}.\n\n" + "\n\n".join("\n".join(part) for part in parts)
    replace_section(BEGIN, END, text)


if __name__ == "__main__":
    main()
