"""What is left of the capacity under three times as much load, and what memory hostile clients and upstreams take.

    python benchmarks/overload.py              prints a table; --seconds of load, --memory for the second part alone

The load is open: requests come at their times, whatever became of those before. A client gives up after ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import uvloop
from hot_path import ANSWER, WORDS
from scale import PROJECT, free_port, running

PATIENCE_SECONDS = 10.0
PROMPT_BYTES = 32_000
PROBE_SECONDS = 0.1  # between two requests for /health
SLOW_READERS, LARGE_BODIES, ENDLESS = 200, 1_000, 20
PIECE = b"10000\r\n" + b"x" * 65536 + b"\r\n"


def length_of(head: bytes) -> int:
    """The declared length of a body."""
    _, _, after_name = head.lower().partition(b"content-length: ")
    return int(after_name.split(b"\r\n")[0]) if after_name else 0


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers at once, or without end where the prompt begins with ENDLESS."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = await reader.readexactly(length_of(head))
            if b"ENDLESS" in body:
                kind = b"text/event-stream" if b'"stream"' in body else b"application/json"
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
                event = b"data: " + b'{"choices":[{"index":0,"delta":{"content":"' + b"x" * 1000 + b'"}}]}' + b"\n\n"
                chunk = b"%x\r\n%b\r\n" % (64 * len(event), event * 64) if b'"stream"' in body else PIECE
                while True:
                    writer.write(chunk)
                    await writer.drain()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
            )
            writer.write(ANSWER)
    writer.close()


def request(body: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    """A request on a connection of its own."""
    head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n"
    return head % (path, len(body)) + body


def prompt(chance: random.Random) -> bytes:
    """A body with a long prompt."""
    words = " ".join(chance.choices(WORDS, k=PROMPT_BYTES // 6))
    turns = [{"role": "user", "content": words[index : index + 4000]} for index in range(0, len(words), 4000)]
    return json.dumps({"model": "auto", "messages": turns}).encode()


async def ask(port: int, raw: bytes) -> int:
    """Status of one request; 0 where the client gave up or was hung up on."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(raw)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(length_of(head))
                return int(head.split(b" ", 2)[1])
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return 0


async def closed_load(port: int, raws: list[bytes], seconds: float) -> float:
    """Requests a second that 64 clients get answered, each asking again as soon as it has its answer."""
    end, answered_count = time.monotonic() + seconds, 0

    async def client(number: int) -> None:
        nonlocal answered_count
        while time.monotonic() < end:
            number += 1
            status = await ask(port, raws[number % len(raws)])
            answered_count += status == 200

    await asyncio.gather(*(client(number) for number in range(64)))
    return answered_count / seconds


async def open_load(port: int, raws: list[bytes], rate: float, seconds: float) -> tuple[dict[int, int], list[float]]:
    """Statuses by number at a constant rate, and how long /health took meanwhile."""
    tasks, late = [], 0.0
    with probing_health(port) as health:
        started = time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(started + number / rate - time.monotonic(), 0))
            late = max(late, time.monotonic() - started - number / rate)
            tasks.append(asyncio.ensure_future(ask(port, raws[number % len(raws)])))
        statuses = await asyncio.gather(*tasks)
    print(f"the load generator itself was {late:.3f} s late at most")
    return {status: statuses.count(status) for status in set(statuses)}, health


@contextlib.contextmanager
def probing_health(port: int) -> Iterator[list[float]]:
    """Ask for /health ten times a second from a process of its own, which the load does not delay.

    The list has the seconds of each answer when the context ends.
    """
    context = multiprocessing.get_context("spawn")
    seconds: list[float] = []
    receiver, sender = context.Pipe(duplex=False)
    stop = context.Event()
    process = context.Process(target=probe_health, args=(port, stop, sender), daemon=True)
    process.start()
    receiver.recv()  # it is ready
    try:
        yield seconds
    finally:
        stop.set()
        seconds += receiver.recv()
        process.join()


def probe_health(port: int, stop: Event, sender: Connection) -> None:
    """Send the seconds that each /health took, once `stop` is set. Each has a connection of its own."""
    seconds: list[float] = []
    sender.send("ready")
    while not stop.wait(PROBE_SECONDS):
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                raise SystemExit("/health did not answer with 200")
        seconds.append(time.monotonic() - start)
    sender.send(seconds)


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.asynccontextmanager
async def record_memory(pid: int) -> AsyncIterator[list[float]]:
    """The resident memory while the context is open, many times a second."""
    samples: list[float] = [resident_mb(pid)]

    async def watching() -> None:
        while True:
            samples.append(resident_mb(pid))
            await asyncio.sleep(0.05)

    task = asyncio.ensure_future(watching())
    yield samples
    task.cancel()


async def unread(port: int, raw: bytes, seconds: float) -> None:
    """A client that asks and reads next to nothing."""
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(raw)
        end = time.monotonic() + seconds
        while time.monotonic() < end and await reader.read(100):  # noqa: ASYNC110  a slow reader
            await asyncio.sleep(0.1)
        writer.transport.abort()


async def memory(port: int, pid: int, seconds: float) -> None:
    """Print what each kind of client and upstream makes the worker hold, and what stays."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "ENDLESS"}]}
    endless, streamed = request(json.dumps(body).encode()), request(json.dumps({**body, "stream": True}).encode())
    large = request(json.dumps({**body, "messages": [{"role": "user", "content": "y" * 1_000_000}]}).encode())
    kinds: dict[str, Callable[[], list[Coroutine[Any, Any, Any]]]] = {
        f"{SLOW_READERS} slow readers of streams": lambda: [
            unread(port, streamed, seconds) for _ in range(SLOW_READERS)
        ],
        f"{ENDLESS} endless answers": lambda: [unread(port, endless, seconds) for _ in range(ENDLESS)],
        f"{LARGE_BODIES:,} bodies of 1 MB": lambda: [ask(port, large) for _ in range(LARGE_BODIES)],
    }
    for kind, clients in kinds.items():
        async with record_memory(pid) as samples:
            statuses = await asyncio.gather(*clients())
        await asyncio.sleep(2)
        status_counts = (
            {status: statuses.count(status) for status in set(statuses)} if large and None not in statuses else ""
        )
        print(
            f"{kind}: {samples[0]:.0f} MB before, {max(samples):.0f} at most, {resident_mb(pid):.0f} after"
            f" {status_counts}",
            flush=True,
        )


async def measured(port: int, pid: int, seconds: float, *, only_memory: bool) -> None:
    """Print all figures."""
    if not only_memory:
        raws = [request(prompt(random.Random(number))) for number in range(50)]
        await closed_load(port, raws, 2)
        capacity = await closed_load(port, raws, seconds)
        statuses, health = await open_load(port, raws, 3 * capacity, seconds)
        goodput = statuses.get(200, 0) / seconds
        print(f"capacity {capacity:.0f}/s; at 3 times that {goodput:.0f}/s answered ({goodput / capacity:.0%})")
        print(f"statuses (0: the client gave up): {statuses}")
        slow = statistics.quantiles(health, n=20)[-1]
        print(
            f"/health: median {statistics.median(health):.3f} s, 95 % {slow:.3f} s, longest {max(health):.3f} s",
            flush=True,
        )
    await memory(port, pid, seconds)


async def run(seconds: float, *, only_memory: bool) -> None:
    """Start upstream and router, and measure."""
    server = await asyncio.start_server(upstream, "127.0.0.1", 0, limit=2**20, backlog=2048)
    port, upstream_port = free_port(), server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        command = [str(PROJECT / ".venv/bin/python"), "-m", "router", "serve", "--port", str(port)]
        started = running(
            command,
            port,
            "/health",
            ROUTER_HOME=home,
            OPENAI_BASE_URL=f"http://127.0.0.1:{upstream_port}/v1",
            OPENAI_API_KEY="sk-x",
        )
        process = await asyncio.to_thread(started.__enter__)
        try:
            await measured(port, process.pid, seconds, only_memory=only_memory)
        finally:
            await asyncio.to_thread(started.__exit__, None, None, None)
    server.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    uvloop.run(run(arguments.seconds, only_memory=arguments.memory))


if __name__ == "__main__":
    main()
