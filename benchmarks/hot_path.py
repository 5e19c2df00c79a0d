"""What a routed request costs in Python, without sockets: the application is called directly, the answer is canned.

    python benchmarks/hot_path.py            processor time and function calls a request, and where they go

Calls are counted by the interpreter, so they are the same on every machine however busy: the test that guards against
slow growth counts them (`tests/test_hot_path.py`). Processor time is this machine's at this hour.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from router.app import Application, create_app
from router.settings import load, with_home
from router.upstream.calls import Call
from router.upstream.upstreams import Endpoint

WORDS = [
    "what",
    "is",
    "the",
    "capital",
    "of",
    "France",
    "explain",
    "how",
    "a",
    "database",
    "index",
    "makes",
    "queries",
    "fast",
    "and",
    "list",
    "three",
    "examples",
]
ANSWER = msgspec.json.encode(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "so it is " * 40}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 60, "completion_tokens": 120, "total_tokens": 180},
    }
)


class Canned:
    """An answer that is there at once."""

    status = 200

    def __init__(self) -> None:
        self.headers = [(b"content-type", b"application/json"), (b"x-request-id", b"req_1")]
        self._pieces = [b"", ANSWER]

    async def read(self, seconds: float) -> bytes:  # noqa: ARG002  as an answer's
        """The whole of it, then nothing."""
        return self._pieces.pop()

    def close(self) -> None:
        """There is nothing to close."""


async def _send(endpoint: Endpoint, call: Call) -> Canned:  # noqa: ARG001  as `Upstreams.send`
    return Canned()


def application(home: Path) -> Application:
    """The application with canned answers in the place of its upstream."""
    app = create_app(with_home(load(home=home)))
    app.worker.upstreams.send = _send  # type: ignore[method-assign,assignment]
    return app


def bodies(count: int, words: int = 45) -> Iterator[bytes]:
    """Bodies of chat completions with prompts of some `words`."""
    chance = random.Random(0)
    for _ in range(count):
        question = " ".join(chance.choices(WORDS, k=words)) + "?"
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
        yield msgspec.json.encode({"model": "auto", "messages": messages, "temperature": 0.7, "max_tokens": 256})


async def ask(app: Application, body: bytes) -> list[dict[str, Any]]:
    """Send one body through the application; what it sent back."""
    sent: list[dict[str, Any]] = []

    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()  # the client stays connected
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"authorization", b"Bearer sk-x")]
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": headers,
        "query_string": b"",
        "router.is_data_waiting": lambda: True,  # as the server's protocol says of a body that has arrived
    }
    await app(scope, receive, send)
    return sent


async def profile(app: Application, count: int) -> pstats.Stats:
    """The profile of `count` requests."""
    requests = list(bodies(count))
    for body in bodies(20):  # what is built once is built here
        await ask(app, body)
    profiler = cProfile.Profile()
    profiler.enable()
    for body in requests:
        await ask(app, body)
    profiler.disable()
    return pstats.Stats(profiler)


def calls_per_request(app: Application, count: int) -> float:
    """Function calls of one request, on average over `count`."""
    return asyncio.run(profile(app, count)).total_calls / count  # type: ignore[attr-defined]


async def measure(app: Application) -> None:
    """Print what a request costs. One event loop serves an application for as long as it runs."""

    async def microseconds(count: int) -> float:
        requests = list(bodies(count))
        start = time.process_time()
        for body in requests:
            await ask(app, body)
        return (time.process_time() - start) / count * 1e6

    await microseconds(200)
    print(f"{min([await microseconds(2000) for _ in range(3)]):.0f} us of processor time a request")
    stats = await profile(app, 1000)
    print(f"{stats.total_calls / 1000:.0f} function calls a request")  # type: ignore[attr-defined]
    stats.sort_stats("cumulative").print_stats("router/", 25)


def main() -> None:
    """Print what a request costs."""
    with tempfile.TemporaryDirectory() as folder:
        app = application(Path(folder))
        asyncio.run(measure(app))
        app.worker.close()


if __name__ == "__main__":
    main()
