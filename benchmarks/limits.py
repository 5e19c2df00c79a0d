"""What keys with budgets in Redis cost: processor time of a request, beside a router without keys.

    python benchmarks/limits.py [--rate 500] [--requests 50] [--rounds 200] [--all-limits]

Two routers in front of one OpenAI: one without keys, one with keys and Redis. Four ways to ask take turns in short
rounds at a steady rate: without a key, with a key, with a key that has a budget (`--all-limits`: and rates), and
with a key in a team that has it as well. Other work on the machine affects neighbouring rounds alike. So the script
takes the ratio of each round to the round beside it, and prints the median with its bootstrap interval (percentiles,
95 %). Processor time is that of the process that answers, as the scheduler counts it; that of Redis is separate.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import numpy as np

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from fake_openai import FakeOpenAI  # noqa: E402
from redis_server import RedisServer  # noqa: E402
from servers import free_port, is_listening  # noqa: E402

from router.client import issuing  # noqa: E402
from router.client.keyfile import Limits, Roster, Team, locked, write_roster  # noqa: E402
from router.settings import KEYS_FILE  # noqa: E402

NO_KEY, KEY, LIMITS, TEAM = "no key", "a key", "a key with limits", "in a team with limits"
WARM_UP = 300  # requests
SETTLED_SECONDS = 0.05  # until what a round spent has gone to Redis
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
        keys, free = issuing.add((), "free", time.time())
        keys, limited = issuing.add(keys, "limited", time.time(), limits=limits)
        keys, shared = issuing.add(keys, "shared", time.time(), limits=limits, team="team")
        write_roster(path, Roster(keys, (Team("team", time.time(), limits),)))
    return {KEY: free, LIMITS: limited, TEAM: shared}


@dataclass(frozen=True)
class Configuration:
    """One way to ask."""

    port: int
    pid: int  # of the router
    key: str = ""


def seconds_of(pid: int) -> float:
    """Processor seconds of a process, its threads included."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


async def load(session: aiohttp.ClientSession, configuration: Configuration, requests: int, rate: float) -> int:
    """So many requests, one every 1/rate seconds; how many were not answered."""
    headers = {"authorization": f"Bearer {configuration.key}"} if configuration.key else {}
    url = f"http://127.0.0.1:{configuration.port}/v1/chat/completions"

    async def ask() -> bool:
        async with session.post(url, json=BODY, headers=headers) as answer:
            await answer.read()
            return answer.status != 200

    start, tasks = time.monotonic(), []
    for number in range(requests):
        await asyncio.sleep(max(start + number / rate - time.monotonic(), 0))
        tasks.append(asyncio.create_task(ask()))
    return sum(await asyncio.gather(*tasks))


async def measure(arguments: argparse.Namespace, configurations: dict[str, Configuration], redis: int) -> None:
    """Print microseconds a request, and the ratios."""
    seconds_by_name: dict[str, list[float]] = {name: [] for name in configurations}
    of_redis, rates, refused = [], [], 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=500)) as session:
        for configuration in configurations.values():
            await load(session, configuration, WARM_UP, arguments.rate)
        for number in range(arguments.rounds):
            for name in sorted(configurations, reverse=bool(number % 2)):
                configuration = configurations[name]
                start, before, before_redis = time.monotonic(), seconds_of(configuration.pid), seconds_of(redis)
                refused += await load(session, configuration, arguments.requests, arguments.rate)
                rates.append(arguments.requests / (time.monotonic() - start))
                await asyncio.sleep(SETTLED_SECONDS)
                seconds_by_name[name].append((seconds_of(configuration.pid) - before) / arguments.requests * 1e6)
                if name == LIMITS:
                    of_redis.append((seconds_of(redis) - before_redis) / arguments.requests * 1e6)
    for name, values in seconds_by_name.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:22} {middle:6.0f} us a request (half of the rounds: {low:.0f} to {high:.0f})")
    print(f"Redis                  {statistics.median(of_redis):6.0f} us a request with limits")
    print(f"rate                   {statistics.median(rates):6.0f} requests/s; {refused} were refused")
    print(f"load                   {os.getloadavg()[0]:6.1f} processes in the last minute")
    for name, base in ((KEY, NO_KEY), (LIMITS, KEY), (LIMITS, NO_KEY), (TEAM, LIMITS)):
        middle, low, high = ratio(seconds_by_name[name], seconds_by_name[base])
        print(f"{name} / {base}: {middle:.3f} ({low:.3f} to {high:.3f})")


def ratio(measured: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """The median of the ratios of rounds side by side, with its 95 % interval."""
    ratios = np.array(measured) / np.array(base)
    resampled = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(resampled, axis=1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


@contextlib.contextmanager
def router(folder: Path, name: str, settings: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A router with a home of its own; its port and process."""
    port, home = free_port(), folder / name
    environment = {**os.environ, **settings, "ROUTER_HOME": str(home), "PYTHONPATH": str(PROJECT)}
    environment |= {"OPENAI_API_KEY": "sk-test", "PYTHONHASHSEED": "0"}
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", "router", "serve", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        while not is_listening(port):
            if process.poll() is not None:
                raise SystemExit((folder / f"{name}.log").read_text())
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    """Start everything, measure, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=500, help="requests a second")
    parser.add_argument("--requests", type=int, default=50, help="of each round")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--all-limits", action="store_true", help="requests and tokens a minute as well")
    arguments = parser.parse_args()
    rates = {"requests_a_minute": 10**9, "tokens_a_minute": 10**11} if arguments.all_limits else {}
    own_pipe, child_pipe = multiprocessing.Pipe()
    openai = multiprocessing.get_context("spawn").Process(target=upstream, args=(child_pipe,), daemon=True)
    openai.start()
    with contextlib.ExitStack() as stack:
        stack.callback(openai.terminate)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = make_keys(folder / "keyed", Limits(usd_a_day=1e6, usd_a_month=1e6, **rates))
        redis = RedisServer(folder)
        stack.callback(redis.kill)
        settings = {"OPENAI_BASE_URL": own_pipe.recv()}
        configurations = {NO_KEY: Configuration(*stack.enter_context(router(folder, "plain", settings)))}
        keyed = stack.enter_context(router(folder, "keyed", {**settings, "ROUTER_STATE": redis.url}))
        configurations |= {name: Configuration(*keyed, key) for name, key in keys.items()}
        asyncio.run(measure(arguments, configurations, redis.pid))


if __name__ == "__main__":
    main()
