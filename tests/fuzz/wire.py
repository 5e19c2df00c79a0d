"""What comes over a network: clients and upstreams that say anything to a router that runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import tempfile
from pathlib import Path

from fake_openai import FakeOpenAI
from loopback import LoopbackServer
from running import RunningRouter

SECONDS = 5.0  # of silence after which an answer was forgotten
QUIET_SECONDS = 0.1  # after which a client that makes no sense is left alone
GOOD = b'{"model":"gpt-4o","messages":[{"role":"user","content":"2+2?"}]}'
ANSWER = b'{"id":"a","model":"gpt-4o","usage":{"prompt_tokens":1,"completion_tokens":1},"choices":[]}'


def request(path: bytes, body: bytes = b"", method: bytes = b"POST", more: bytes = b"") -> bytes:
    """A request as a client sends it."""
    head = b"%b %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n%b\r\n"
    return head % (method, path, len(body), more) + body


def closing(path: bytes, body: bytes = b"", method: bytes = b"POST") -> bytes:
    """The same, and the router closes the connection behind its answer."""
    return request(path, body, method, b"connection: close\r\n")


CLIENTS = (
    request(b"/v1/chat/completions", GOOD),
    request(b"/v1/chat/completions", GOOD) + request(b"/v1/models", method=b"GET"),
    request(b"/v1/files?a=b", method=b"GET", more=b"api-key: x\r\ntraceparent: 00-" + b"a" * 32 + b"-1-01\r\n"),
    b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    b'1b\r\n{"model":"auto","input":"x"}\r\n0\r\n\r\n',
    request(b"/router/decision", GOOD) + request(b"/router/feedback", b'{"trace_id":"x","thumbs":"up"}'),
    request(b"/router/usage?from=2026-01-01&group_by=model", method=b"GET") + request(b"/metrics", method=b"GET"),
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
UPSTREAMS = (
    HEAD + b"content-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER),
    HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER), ANSWER),
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b'19\r\ndata: {"model":"m","id":1}\r\n0\r\n\r\n',
    b"HTTP/1.1 429 Slow\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"content-length: 2\r\nx-request-id: a\r\n\r\n{}",
)


class Tracebacks(logging.Handler):
    """Every fault of ours that was logged while it listens."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what has a traceback."""
        if record.exc_info is not None:
            self.found.append(self.format(record))


def exchange(port: int, data: bytes, quiet_seconds: float) -> bytes:
    """What comes back for `data`, until the router closes the connection or is quiet for so long."""
    heard = b""
    there = socket.create_connection(("127.0.0.1", port), timeout=quiet_seconds)
    with there as connection, contextlib.suppress(OSError):
        connection.sendall(data)
        while piece := connection.recv(65536):
            heard += piece
            assert len(heard) < 2**26, "the answer has no end"
    return heard


class Running:
    """A router that runs, with what its log says."""

    def __init__(self, url: str) -> None:
        self._home = tempfile.TemporaryDirectory()
        timeouts = {"connect": 1, "first_byte": 0.3, "idle": 0.3, "request_body": 0.3, "retries": 1, "drain": 1}
        self.router = RunningRouter(Path(self._home.name), openai_base_url=url, max_attempts=1, timeouts=timeouts)
        self.tracebacks = Tracebacks()
        logging.getLogger().addHandler(self.tracebacks)

    def ask(self, data: bytes, quiet_seconds: float = SECONDS) -> bytes:
        """What comes back; a 500 or a traceback is a fault."""
        heard = exchange(self.router.port, data, quiet_seconds)
        assert b"HTTP/1.1 500" not in heard, heard[:500]
        assert not self.tracebacks.found, self.tracebacks.found.pop()
        return heard

    def close(self) -> None:
        logging.getLogger().removeHandler(self.tracebacks)
        self.router.close()
        self._home.cleanup()


class Clients:
    """Clients that say anything."""

    examples = CLIENTS

    def __init__(self) -> None:
        self._upstream = FakeOpenAI()
        self._running = Running(self._upstream.url)

    def check(self, data: bytes) -> None:
        """Whatever a client says, it is told something or hung up on, and the next client is answered."""
        self._upstream.received.clear()
        self._running.ask(data, QUIET_SECONDS)
        heard = self._running.ask(closing(b"/v1/chat/completions", GOOD))
        assert heard.startswith(b"HTTP/1.1 200"), heard[:500]

    def close(self) -> None:
        self._running.close()
        self._upstream.close()


class _Saying(LoopbackServer):
    """Answers with `said` where a path holds `evil`, and with the path itself elsewhere."""

    said = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                await reader.readexactly(int(length[1]) if length else 0)
                if b"/chat/" in head or b"evil" in head:
                    writer.write(self.said)
                else:
                    path = head.split(b" ")[1]
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path))
                await writer.drain()


class Upstreams:
    """Upstreams that say anything."""

    examples = UPSTREAMS

    def __init__(self) -> None:
        self._upstream = _Saying()
        self._running = Running(f"http://127.0.0.1:{self._upstream.port}/v1")
        self._number = 0

    def check(self, data: bytes) -> None:
        """Whatever an upstream says, its client is told something, and the next client hears its own answer alone."""
        self._upstream.said = data
        stream = GOOD[:-1] + b',"stream":true}'
        for body in (GOOD, stream):
            assert self._running.ask(closing(b"/v1/chat/completions", body)), "neither an answer nor an error"
        self._running.ask(closing(b"/v1/evil", method=b"GET"))
        self._number += 1
        path = b"/v1/mine/%d" % self._number
        heard = self._running.ask(closing(path, method=b"GET"))
        assert heard.startswith(b"HTTP/1.1 200") and heard.endswith(b"\r\n\r\n" + path), heard[:500]

    def close(self) -> None:
        self._running.close()
        self._upstream.close()
