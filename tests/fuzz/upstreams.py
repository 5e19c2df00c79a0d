"""Upstreams that send anything: the client is answered or disconnected, and the next client gets only its own bytes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from fake_openai import chat_events
from loopback import LoopbackServer

from fuzz.clients import BODY, STREAMED
from fuzz.exchanges import Running, request
from fuzz.inputs import inputs
from fuzz.targets import Target

ANSWER = b'{"id":"a","model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SIZED = HEAD + b"content-length: %d\r\n\r\n%b"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
EVENTS = b"".join(chat_events("gpt-4o", ("a",), usage=True))
EXAMPLES = (
    SIZED % (len(ANSWER), ANSWER),
    HEAD + b"transfer-encoding: chunked\r\n\r\n%x;a=b\r\n%b\r\n0\r\nx-trailer: y\r\n\r\n" % (len(ANSWER), ANSWER),
    STREAM + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(EVENTS), EVENTS),
    STREAM + b"content-length: %d\r\n\r\n%b" % (len(EVENTS), EVENTS),
    b"HTTP/1.1 429 Slow\r\nretry-after: 1\r\nx-should-retry: false\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: a\r\n\r\n" + SIZED % (2, b"{}"),
    b"HTTP/1.1 204 No Content\r\nset-cookie: a=b\r\nconnection: close\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nto the end",
    SIZED % (2, b"{}") + SIZED % (4, b"evil"),
)
PIECES = (
    *(b"HTTP/1.1 304 Same\r\n", b"HTTP/1.1 101 Up\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
    *(b"HTTP/1.1 999 What\r\n", b"HTTP/1.1 099 What\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n"),
    *(b"content-encoding: gzip\r\n", b"connection: close\r\n", b"connection: keep-alive\r\n", b"content-length: 0\r\n"),
    *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"5\r\nhello\r\n", b"x: " + b"y" * 3000, b"retry-after: nan\r\n"),
    *(b"x-router-model: evil\r\n", b"content-type: text/event-stream\r\n", b"x\xff: \xff\r\n", b": \r\n", b"\r\n "),
    *(b"data: [DONE]\n\n", b'data: {"usage":{"prompt_tokens":1}}\n\n', b"location: /\r\n", b"date: x\r\n"),
)  # fmt: skip
SILENT = 128  # one in so many upstreams keeps its connection open without sending more
OPEN_SECONDS = 0.01  # the others keep it open for this long, enough for the next client
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STATUS_500 = re.compile(rb"HTTP/\d\.\d\s*500")


class _RawUpstream(LoopbackServer):
    """Sends `content` to requests for `/chat/completions` and `/evil`; to others the last part of their path."""

    content = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        patience = None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                async with asyncio.timeout(patience):
                    head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                patience = await self._answer(head.split(b" ", 2)[1], writer)
        writer.close()

    async def _answer(self, path: bytes, writer: asyncio.StreamWriter) -> float | None:
        """Send the answer; return for how many seconds the connection stays open, or None."""
        if not path.endswith((b"/chat/completions", b"/evil")):
            name = path.rpartition(b"/")[2]
            writer.write(SIZED % (len(name), name))
            return None
        chance = zlib.crc32(self.content)
        cut = chance % (len(self.content) + 1)  # in two pieces, which may arrive apart
        writer.write(self.content[:cut])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(self.content[cut:])
        await writer.drain()
        return None if chance % SILENT == 1 else OPEN_SECONDS


def _check(running: Running, upstream: _RawUpstream, data: bytes, number: int) -> None:
    upstream.content = data
    for router_request in (
        request(b"/v1/chat/completions", BODY),
        request(b"/v1/chat/completions", STREAMED),
        request(b"/v1/evil", b"", b"GET"),
    ):
        reply = running.ask(router_request)
        is_own_fault = reply.startswith(b"HTTP/1.1 500") and not _STATUS_500.search(data)
        assert not is_own_fault, f"answered with 500: {reply[:500]!r}"
        name = b"mine-%d" % number
        next_reply = running.ask(request(b"/v1/" + name, b"", b"GET"))
        is_correct = next_reply.startswith(b"HTTP/1.1 200") and next_reply.endswith(b"\r\n\r\n" + name)
        assert is_correct, f"the next client hears {next_reply[:500]!r}"
    faults = running.faults()
    assert not faults, faults[0]


@contextmanager
def open_target() -> Iterator[Target]:
    """The target, with a router and an upstream."""
    upstream, numbers = _RawUpstream(), count()
    try:
        with Running(upstream.port) as running:
            yield Target(lambda data: _check(running, upstream, data, next(numbers)), inputs(EXAMPLES, PIECES))
    finally:
        upstream.close()
