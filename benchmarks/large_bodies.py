"""How long the event loop stands still while bodies of 20 MB of images pass, and small requests beside them.

Run: python benchmarks/large_bodies.py. Router, upstream and clients are processes of their own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.synchronize import Event as EventType
from pathlib import Path

import httpx2
import uvicorn
import uvloop

from router.app import create_app
from router.server import server_options
from router.settings import load

MEGABYTES = 20
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 3, "total_tokens": 903},
    }
).encode()


def upstream(port: int) -> None:
    """Reads whatever comes, and answers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            remaining = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while remaining:
                remaining -= len(await reader.read(min(remaining, 262_144)))
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
            )
            writer.write(ANSWER)

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port, limit=2**20)
        await server.serve_forever()

    uvloop.run(run())


def router(
    port: int, upstream_port: int, stop: EventType, ready_port: multiprocessing.Queue[list[tuple[float, float]]]
) -> None:
    """Serves, and takes its own pulse every millisecond."""

    async def run() -> None:
        settings = load(home=Path(tempfile.mkdtemp()), openai_base_url=f"http://127.0.0.1:{upstream_port}/v1")
        config = uvicorn.Config(create_app(settings), port=port, log_level="warning", **server_options(settings))
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve())
        await asyncio.sleep(2)
        stalls = []
        while not stop.is_set():
            before, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            stalls.append((time.thread_time() - worked, time.perf_counter() - before - 0.001))
        server.should_exit = True
        await serving
        ready_port.put(stalls)

    uvloop.run(run())


async def clients(port: int, large: int, small: int) -> list[float]:
    """Large bodies four at a time, and small requests all the while; the seconds that small ones took."""
    image = "data:image/png;base64," + base64.b64encode(os.urandom(MEGABYTES * 750_000)).decode()
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": image}}]
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": parts}]}).encode()
    little = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}).encode()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    latencies = []
    async with httpx2.AsyncClient(timeout=120) as client:

        async def send(content: bytes, count: int, gap: float) -> None:
            for _ in range(count):
                start = time.perf_counter()
                answer = await client.post(url, content=content)
                answer.raise_for_status()
                if content is little:
                    latencies.append(time.perf_counter() - start)
                await asyncio.sleep(gap)

        await asyncio.gather(*(send(body, large // 4, 0) for _ in range(4)), send(little, small, 0.01))
    return latencies


def main() -> None:
    """Measure, and print."""
    context = multiprocessing.get_context("spawn")
    stop, ready_port = context.Event(), context.Queue()
    port, upstream_port = 18911, 18912
    upstream_process = context.Process(target=upstream, args=(upstream_port,), daemon=True)
    front = context.Process(target=router, args=(port, upstream_port, stop, ready_port))
    upstream_process.start()
    front.start()
    time.sleep(6)
    start = time.perf_counter()
    latencies = asyncio.run(clients(port, large=24, small=150))
    seconds = time.perf_counter() - start
    stop.set()
    worked, waited = (sorted(column) for column in zip(*ready_port.get(timeout=30), strict=True))
    front.join(30)
    upstream_process.terminate()
    sys.stdout.write(
        f"{24 * MEGABYTES} MB of images and {len(latencies)} small requests in {seconds:.1f} s\n"
        f"event loop, CPU between two turns: {_summary(worked)}\n"
        f"event loop, time between two turns: {_summary(waited)} (with what other processes took of the machine)\n"
        f"small requests: p50 {1000 * statistics.median(latencies):.1f} ms, longest {1000 * max(latencies):.1f} ms\n"
    )


def _summary(stalls: list[float]) -> str:
    share = statistics.quantiles(stalls, n=1000)
    stall_count = sum(stall > 0.02 for stall in stalls)
    return (
        f"longest {1000 * stalls[-1]:.1f} ms, p99.9 {1000 * share[-1]:.1f} ms, p99 {1000 * share[-10]:.1f} ms, "
        f"over 20 ms: {stall_count} of {len(stalls)}"
    )


if __name__ == "__main__":
    main()
