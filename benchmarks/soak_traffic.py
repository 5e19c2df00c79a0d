"""The traffic of the soak: clients that ask, and a fake OpenAI that counts what it bills."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
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
            return await self._stream(body, writer, request_id, usage, is_cut=fate > 0.99)
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
        self,
        body: dict[str, Any],
        writer: asyncio.StreamWriter,
        request_id: str,
        usage: dict[str, Any],
        *,
        is_cut: bool,
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
        if is_cut:
            return False
        writer.write(event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        self.billed[request_id] = usage
        writer.write(event(choices=[], usage=usage) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()
        self.delivered.add(request_id)
        return True

    def _usage(self) -> dict[str, Any]:
        input_tokens, output_tokens = self.chance.randint(20, 4000), self.chance.randint(1, 800)
        return {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
            "prompt_tokens_details": {"cached_tokens": self.chance.randint(0, input_tokens // 2)},
            "completion_tokens_details": {"reasoning_tokens": self.chance.randint(0, output_tokens // 2)},
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
            request_count = 0
            while (elapsed := time.monotonic() - start) < seconds:
                while request_count < elapsed * rate and len(tasks) < 200:
                    task = asyncio.create_task(self._ask(client))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    request_count += 1
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
                async for chunk in response.content.iter_any():
                    content += chunk
                    if leaves:
                        self.counts["left"] += 1
                        response.close()
                        return
            complete = response.status == 200 and (not body["stream"] or content.rstrip().endswith(b"[DONE]"))
            self.counts[f"status {response.status}" if not complete else "whole"] += 1
            if complete:
                self.whole.add(response.headers["x-router-trace-id"])
        except (aiohttp.ClientError, TimeoutError) as error:
            self.counts[type(error).__name__] += 1
            await asyncio.sleep(0.2)
