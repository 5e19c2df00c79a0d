"""Clients that send anything: the router returns and logs no fault, nothing hangs, and the next client is answered."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from fake_openai import FakeOpenAI, ReceivedRequest, Reply, json_reply

from fuzz.exchanges import Running, request
from fuzz.inputs import inputs
from fuzz.targets import Target

PATIENT = 64  # one in so many clients waits until the router closes
KEPT = b"connection: keep-alive"
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"2+2?"}]}'
STREAMED = BODY[:-1] + b',"stream":true}'
TRACED = b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
CHUNKED = b"host: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
EXAMPLES = (
    request(b"/v1/chat/completions", BODY, b"POST", KEPT),
    request(b"/v1/chat/completions", STREAMED, b"POST", KEPT) + request(b"/v1/models", b"", b"GET"),
    request(b"/v1/chat/completions", STREAMED)[:-20],
    request(b"/v1/completions", b'{"model":"auto","prompt":"x"}', b"POST", b"x-router-target: 0.9", b"x-a: b"),
    request(b"/v1/chat/completions", b"", b"OPTIONS", b"origin: http://localhost", b"expect: 100-continue"),
    b"POST /v1/responses HTTP/1.1\r\n" + CHUNKED + b'1c\r\n{"model":"auto","input":"x"}\r\n0\r\n\r\n',
    b"PUT /v1/files/a HTTP/1.1\r\n" + CHUNKED + b"3;x=y\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n",
    request(b"/v1/files?a=b%20c", b"", b"GET", b"api-key: x", TRACED),
    request(b"/v1/models/gpt-4o", b"", b"DELETE", b"upgrade: websocket", b"connection: upgrade"),
    request(b"/v1/models/auto%400.9", b"", b"HEAD", KEPT),
    request(b"/router/decision", BODY, b"POST", KEPT),
    request(b"/router/feedback", b'{"trace_id":"x","thumbs":"up"}', b"POST", KEPT),
    request(b"/router/feedback", b'{"trace_id":"' + b"a" * 32 + b'","score":0.5,"comment":"x","name":"y"}'),
    request(b"/router/usage?from=2026-01-01&to=2026-02-01&group_by=model&format=csv", b"", b"GET"),
    request(b"/router/overview?from=2026-01-01&to=2026-02-01", b"", b"GET"),
    request(b"/metrics", b"", b"GET", KEPT) + request(b"/router/recent?limit=5", b"", b"GET"),
    request(b"/", b"", b"GET", b"accept: text/html", b"origin: http://localhost") + request(b"/ready", b"", b"HEAD"),
    request(b"/router/policy", b"", b"GET", KEPT) + request(b"/health", b"", b"GET"),
)
PIECES = (
    *(b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"expect: 100-continue\r\n"),
    *(b"content-encoding: gzip\r\n", b"host: evil\r\n", b"x: " + b"y" * 3000 + b"\r\n", b"0\r\n\r\n", b"ffffffff\r\n"),
    *(b"content-length: -1\r\n", b"content-length: 99999999999999999999\r\n", b"authorization: Bearer \xff\r\n"),
    *(b"/v1/../", b"%00", b"%ff", b"?a", b"#", b"HTTP/1.0", b"HTTP/2.0", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"//"),
    *(b"/router/traces/", b"x-router-model: gpt-4o\r\n", b"x-router-target: nan\r\n", b"previous_response_id"),
    *(b"9999-12-31", b"0001-01-01T00:00:00%2B23:00", b"group_by=model,model", b"limit=-1", b"&to=", b"%2B"),
    *(b"CONNECT ", b"HEAD ", b"TRACE ", b"GET ", b"*", b"http://a/v1/models", b"upgrade: h2c\r\n"),
)  # fmt: skip


class _Tolerant(FakeOpenAI):
    """Answers every request with 200."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ValueError):  # a chunk without a size: its client disconnected
            await super().serve(reader, writer)

    def _next(self, request: ReceivedRequest) -> Reply:
        self.received.clear()
        try:
            return super()._next(request)
        except Exception:  # an invalid body
            return json_reply({"id": "x"})


def _check(running: Running, data: bytes) -> None:
    reply = running.ask(data, leave=zlib.crc32(data) % PATIENT != 1)
    assert b"HTTP/1.1 500" not in reply, f"answered with 500: {reply[:500]!r}"
    next_reply = running.ask(request(b"/v1/chat/completions", BODY))
    assert next_reply.startswith(b"HTTP/1.1 200"), f"the next client hears {next_reply[:500]!r}"
    faults = running.faults()
    assert not faults, faults[0]


@contextmanager
def open_target() -> Iterator[Target]:
    """The target, with a router and an upstream."""
    upstream = _Tolerant()
    try:
        with Running(upstream.port) as running:
            yield Target(lambda data: _check(running, data), inputs(EXAMPLES, PIECES))
    finally:
        upstream.close()
