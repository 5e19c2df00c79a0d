"""An OpenAI on loopback that says what a test wants, to the byte: answers, streams, and every way to break off.

It speaks HTTP by hand, so that a test can send half an answer, stall, or reset, and see exactly what arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from loopback import LoopbackServer


@dataclass
class Received:
    """One request as it arrived."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    began: float = field(default_factory=time.monotonic)
    hung_up: threading.Event = field(default_factory=threading.Event)  # the caller left before the answer was whole

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Say:
    """What to answer. Pieces are written one by one with `gap` seconds before each; then `end` happens."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),)
    pieces: Sequence[bytes] = (b"{}",)
    chunked: bool = False
    wait: float = 0.0  # before the head
    gap: float = 0.0
    end: str = "whole"  # whole; early: hang up before the last byte; reset; stall: say nothing more


def json_answer(value: Any, status: int = 200, **headers: str) -> Say:
    names = [("content-type", "application/json")] + [(k.replace("_", "-"), v) for k, v in headers.items()]
    return Say(status, names, (json.dumps(value).encode(),))


def events(*pieces: bytes, gap: float = 0.0, end: str = "whole", wait: float = 0.0) -> Say:
    return Say(200, (("content-type", "text/event-stream"),), pieces, chunked=True, gap=gap, end=end, wait=wait)


def completion(model: str, text: str = "Paris.", prompt_tokens: int = 12, completion_tokens: int = 3) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
        "system_fingerprint": "fp_test",
    }


def chat_events(model: str, words: Sequence[str] = ("Par", "is", "."), *, usage: bool = False) -> list[bytes]:
    """The events of a streamed completion, written as OpenAI writes them."""
    nothing = ',"usage":null' if usage else ""
    head = (
        f'{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"{model}","service_tier":"default"'
    )
    head += ',"system_fingerprint":"fp_test","choices":'

    def chunk(delta: str, finish: str = "null") -> bytes:
        choice = f'[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]'
        return f'data: {head}{choice}{nothing},"obfuscation":"xY"}}\n\n'.encode()

    out = [chunk('{"role":"assistant","content":"","refusal":null}')]
    out += [chunk(f'{{"content":{json.dumps(word)}}}') for word in words]
    out.append(chunk("{}", '"stop"'))
    if usage:
        counted = (
            '{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4}}'
        )
        out.append(f'data: {head}[],"usage":{counted},"obfuscation":""}}\n\n'.encode())
    return [*out, b"data: [DONE]\n\n"]


class FakeOpenAI(LoopbackServer):
    """The server. What was queued with `say` is answered in turn; after that it behaves like a small OpenAI."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[Received] = []
        self.models = json_answer({"object": "list", "data": [_model("gpt-4o"), _model("gpt-4o-mini")]})
        self._queue: deque[Say] = deque()
        super().__init__(port=port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def say(self, *answers: Say) -> None:
        self._queue.extend(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read(reader)) is not None:
                if not _lists_models(request):
                    self.received.append(request)
                if not await self._answer(request, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def _next(self, request: Received) -> Say:
        if _lists_models(request):  # which routers do by themselves when they start
            return self.models
        return self._queue.popleft() if self._queue else _default(request)

    async def _answer(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        say = self._next(request)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            if say.end == "reset" and not say.pieces:
                return _reset(writer)
            if not await _pause(say.wait, gone, request):
                return False
            writer.write(_head(say))
            for number, piece in enumerate(say.pieces):
                if not await _pause(say.gap, gone, request):
                    return False
                if say.end == "early" and number + 1 == len(say.pieces):
                    piece = piece[: len(piece) // 2]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if say.chunked else piece)
                await writer.drain()
            if say.end == "stall":
                await _pause(60, gone, request)
                return False
            if say.end == "reset":
                await asyncio.sleep(0.05)
                return _reset(writer)
            if say.end == "early":
                return False
            if say.chunked:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        finally:
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await gone


async def _pause(seconds: float, gone: asyncio.Future[bytes], request: Received) -> bool:
    """Wait; False where the caller left meanwhile."""
    if seconds:
        await asyncio.wait([gone], timeout=seconds)
    if gone.done():
        request.hung_up.set()
        return False
    return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _head(say: Say) -> bytes:
    lines = [f"HTTP/1.1 {say.status} Whatever"] + [f"{name}: {value}" for name, value in say.headers]
    length = sum(len(piece) for piece in say.pieces) + (say.end in ("reset", "stall"))
    lines.append("transfer-encoding: chunked" if say.chunked else f"content-length: {length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    named = dict(headers)
    body = b""
    if "content-length" in named:
        body = await reader.readexactly(int(named["content-length"]))
    elif named.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\n"), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return Received(method, target, headers, body)


def _lists_models(request: Received) -> bool:
    return request.method == "GET" and request.target.partition("?")[0] == "/v1/models"


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1, "owned_by": "system"}


def _default(request: Received) -> Say:
    path = request.target.partition("?")[0]
    if path == "/v1/chat/completions" and request.method == "POST":
        asked = request.json
        if asked.get("stream"):
            usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            return events(*chat_events(asked["model"], usage=usage))
        return json_answer(completion(asked["model"]))
    return json_answer({"echo": path, "method": request.method})
