"""A fake OpenAI server on loopback. A test sets its replies byte by byte: answers, streams and broken connections.

It implements HTTP itself, so that a test can send half an answer, stall or reset, and see exactly what arrived.
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
class ReceivedRequest:
    """One request as it arrived."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    began: float = field(default_factory=time.monotonic)
    hung_up: threading.Event = field(
        default_factory=threading.Event
    )  # the client disconnected before the end of the answer

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """A reply. Its pieces are written one by one, `gap` seconds before each; `end` says how the reply ends."""

    status: int = 200
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),)
    pieces: Sequence[bytes] = (b"{}",)
    chunked: bool = False
    wait: float = 0.0  # seconds before the head
    gap: float = 0.0
    end: str = "whole"  # whole; early: close before the last byte; reset; stall: send nothing more


def json_reply(value: Any, status: int = 200, **headers: str) -> Reply:
    header_list = [("content-type", "application/json")] + [(name.replace("_", "-"), v) for name, v in headers.items()]
    return Reply(status, header_list, (json.dumps(value).encode(),))


def stream_reply(*pieces: bytes, gap: float = 0.0, end: str = "whole", wait: float = 0.0) -> Reply:
    return Reply(200, (("content-type", "text/event-stream"),), pieces, chunked=True, gap=gap, end=end, wait=wait)


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
    null_usage = ',"usage":null' if usage else ""
    head = (
        f'{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"{model}","service_tier":"default"'
    )
    head += ',"system_fingerprint":"fp_test","choices":'

    def chunk(delta: str, finish: str = "null") -> bytes:
        choice = f'[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]'
        return f'data: {head}{choice}{null_usage},"obfuscation":"xY"}}\n\n'.encode()

    events = [chunk('{"role":"assistant","content":"","refusal":null}')]
    events += [chunk(f'{{"content":{json.dumps(word)}}}') for word in words]
    events.append(chunk("{}", '"stop"'))
    if usage:
        usage_json = (
            '{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4}}'
        )
        events.append(f'data: {head}[],"usage":{usage_json},"obfuscation":""}}\n\n'.encode())
    return [*events, b"data: [DONE]\n\n"]


class FakeOpenAI(LoopbackServer):
    """The server. It sends the replies queued with `enqueue` in order; after that it behaves like a small OpenAI."""

    def __init__(self, port: int = 0) -> None:
        self.received: list[ReceivedRequest] = []
        self.models = json_reply({"object": "list", "data": [_model("gpt-4o"), _model("gpt-4o-mini")]})
        self._queue: deque[Reply] = deque()
        super().__init__(port=port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def enqueue(self, *answers: Reply) -> None:
        self._queue.extend(answers)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                if not _lists_models(request):
                    self.received.append(request)
                if not await self._answer(request, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def _next(self, request: ReceivedRequest) -> Reply:
        if _lists_models(request):  # routers list the models when they start
            return self.models
        return self._queue.popleft() if self._queue else _default(request)

    async def _answer(
        self, request: ReceivedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        reply = self._next(request)
        disconnect = asyncio.ensure_future(reader.read(1))
        try:
            if reply.end == "reset" and not reply.pieces:
                return _reset(writer)
            if not await _pause(reply.wait, disconnect, request):
                return False
            writer.write(_head(reply))
            for number, piece in enumerate(reply.pieces):
                if not await _pause(reply.gap, disconnect, request):
                    return False
                if reply.end == "early" and number + 1 == len(reply.pieces):
                    piece = piece[: len(piece) // 2]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if reply.chunked else piece)
                await writer.drain()
            if reply.end == "stall":
                await _pause(60, disconnect, request)
                return False
            if reply.end == "reset":
                await asyncio.sleep(0.05)
                return _reset(writer)
            if reply.end == "early":
                return False
            if reply.chunked:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            return True
        finally:
            disconnect.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await disconnect


async def _pause(seconds: float, disconnect: asyncio.Future[bytes], request: ReceivedRequest) -> bool:
    """Wait; return False if the client disconnected meanwhile."""
    if seconds:
        await asyncio.wait([disconnect], timeout=seconds)
    if disconnect.done():
        request.hung_up.set()
        return False
    return True


def _reset(writer: asyncio.StreamWriter) -> bool:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _head(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} Whatever"] + [f"{name}: {value}" for name, value in reply.headers]
    length = sum(len(piece) for piece in reply.pieces) + (reply.end in ("reset", "stall"))
    lines.append("transfer-encoding: chunked" if reply.chunked else f"content-length: {length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


async def read_request(reader: asyncio.StreamReader) -> ReceivedRequest | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    request_line, *lines = head.strip().split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers_by_name = dict(headers)
    body = b""
    if "content-length" in headers_by_name:
        body = await reader.readexactly(int(headers_by_name["content-length"]))
    elif headers_by_name.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\n"), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return ReceivedRequest(method, target, headers, body)


def _lists_models(request: ReceivedRequest) -> bool:
    return request.method == "GET" and request.target.partition("?")[0] == "/v1/models"


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1, "owned_by": "system"}


def _default(request: ReceivedRequest) -> Reply:
    path = request.target.partition("?")[0]
    if path == "/v1/chat/completions" and request.method == "POST":
        body = request.json
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return stream_reply(*chat_events(body["model"], usage=usage))
        return json_reply(completion(body["model"]))
    return json_reply({"echo": path, "method": request.method})
