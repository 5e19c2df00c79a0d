"""What limits that are shared in Redis cost: processor time of a request with a key that has limits, and without.

    python benchmarks/limits.py [--clients 16] [--requests 200] [--rounds 24] [--all-limits]

One router, one Redis, an OpenAI in another process; a key without limits and one with a budget (`--all-limits`: and
with rates) take turns in one run, so that other work on the machine hits both alike. Processor time is that of the
router's process, which answers, and of Redis; compare within a run.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from fake_openai import FakeOpenAI  # noqa: E402
from redis_server import RedisServer  # noqa: E402
from servers import free_port, is_listening  # noqa: E402

from router.client import issuing  # noqa: E402
from router.client.keyfile import Limits, Roster, Team, locked, write_roster  # noqa: E402
from router.settings import KEYS_FILE  # noqa: E402

BODY = {"model": "auto", "messages": [{"role": "user", "content": "What is the capital of France? " * 4}]}


def upstream(pipe: Connection) -> None:
    """An OpenAI, until the pipe closes."""
    server = FakeOpenAI()
    pipe.send(server.url)
    pipe.poll(None)


def make_keys(home: Path, limits: Limits) -> dict[str, str]:
    """The secrets of a key without limits, of one with them, and of one in a team that has them as well."""
    home.mkdir(mode=0o700)
    with locked(home / KEYS_FILE) as path:
        keys, free = issuing.added((), "free", time.time())
        keys, limited = issuing.added(keys, "limited", time.time(), limits=limits)
        keys, shared = issuing.added(keys, "shared", time.time(), limits=limits, team="team")
        write_roster(path, Roster(keys, (Team("team", time.time(), limits),)))
    return {"without": free, "with limits": limited, "with limits, in a team with limits": shared}


def seconds_of(pid: int) -> float:
    """Processor seconds of a process, its threads included."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


async def load(session: aiohttp.ClientSession, key: str, clients: int, requests: int) -> int:
    """So many requests by so many clients, each one after another; how many were not answered."""
    numbers, refused = iter(range(requests)), 0

    async def client() -> None:
        nonlocal refused
        headers = {"authorization": f"Bearer {key}"}
        for _ in numbers:
            async with session.post("/v1/chat/completions", json=BODY, headers=headers) as answer:
                await answer.read()
                refused += answer.status != 200

    await asyncio.gather(*(client() for _ in range(clients)))
    return refused


async def measure(given: argparse.Namespace, port: int, router: int, redis: int, keys: dict[str, str]) -> None:
    """Print microseconds a request, and the ratio."""
    requests, clients = given.requests, given.clients
    found: dict[str, list[float]] = {name: [] for name in keys}
    of_redis: list[float] = []
    rates: list[float] = []
    refused = 0
    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as session:
        for key in keys.values():
            await load(session, key, clients, 500)
        for number in range(given.rounds):
            for name in sorted(keys, reverse=bool(number % 2)):
                began, before, before_redis = time.monotonic(), seconds_of(router), seconds_of(redis)
                refused += await load(session, keys[name], clients, requests)
                found[name].append((seconds_of(router) - before) / requests * 1e6)
                rates.append(requests / (time.monotonic() - began))
                if name != "without":
                    of_redis.append((seconds_of(redis) - before_redis) / requests * 1e6)
    for name, values in found.items():
        print(f"{name:12} {statistics.median(values):6.0f} us a request ({min(values):.0f} to {max(values):.0f})")
    ratios = [one / other for one, other in zip(found["with limits"], found["without"], strict=True)]
    print(f"Redis        {statistics.median(of_redis):6.0f} us a request")
    print(f"rate         {statistics.median(rates):6.0f} requests/s; {refused} were refused")
    least, _, most = statistics.quantiles(ratios, n=4)
    medians = statistics.median(found["with limits"]) / statistics.median(found["without"])
    print(f"ratio        {medians:6.3f} of the medians; {statistics.median(ratios):.3f} of rounds side by side")
    print(f"             half of these are within {least:.3f} and {most:.3f}")


def main() -> None:
    """Start everything, measure, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=200, help="of each round")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--all-limits", action="store_true", help="requests and tokens a minute as well")
    given = parser.parse_args()
    rates = {"requests_a_minute": 10**9, "tokens_a_minute": 10**11} if given.all_limits else {}
    ours, theirs = multiprocessing.Pipe()
    openai = multiprocessing.get_context("spawn").Process(target=upstream, args=(theirs,), daemon=True)
    openai.start()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = make_keys(folder / "home", Limits(usd_a_day=1e6, usd_a_month=1e6, **rates))
        redis, port = RedisServer(folder), free_port()
        settings = {"ROUTER_HOME": str(folder / "home"), "ROUTER_STATE": redis.url, "OPENAI_BASE_URL": ours.recv()}
        environment = {**os.environ, **settings, "OPENAI_API_KEY": "sk-test", "PYTHONPATH": str(PROJECT)}
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "router", "serve", "--port", str(port)]
            router = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            while not is_listening(port):
                if router.poll() is not None:
                    raise SystemExit((folder / "log").read_text())
                time.sleep(0.1)
            asyncio.run(measure(given, port, router.pid, redis.pid, keys))
        finally:
            router.terminate()
            router.wait(60)
            redis.kill()
            openai.terminate()


if __name__ == "__main__":
    main()
