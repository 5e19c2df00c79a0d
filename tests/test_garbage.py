"""Requests leave no reference cycles: reference counts free all that a request held as soon as it ends."""

from __future__ import annotations

import gc
import json
import signal
import socket
import time

import pytest
from fake_openai import Reply, chat_events, completion, json_reply, stream_reply

from router.client.disconnect import WATCH_AFTER_SECONDS
from router.lifetime import exempt_from_collection
from router.request.routed import MAX_INLINE_BYTES

REQUESTS = 3
QUESTION = {"role": "user", "content": "What is 2 + 2?"}
_HEAD = b"%b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def chat(**fields: object) -> bytes:
    body = json.dumps({"model": "auto", "messages": [QUESTION], **fields}).encode()
    return _HEAD % (b"POST /v1/chat/completions", len(body)) + body


def ask(port: int, raw: bytes, *, leave_after: float | None = None) -> None:
    """Send a request on a connection of its own; read the whole answer, or leave."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(raw.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
        if leave_after is not None:
            time.sleep(leave_after)
            return
        while connection.recv(65536):
            pass


def garbage_of(call) -> list[str]:
    """The types of the objects of the router and its server that only a garbage collection frees after `call`."""
    gc.collect()
    gc.disable()
    try:
        call()
        time.sleep(0.1)  # the server closes its connections
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        types = [type(found) for found in gc.garbage]
        return [found.__name__ for found in types if found.__module__.startswith(("router", "uvicorn"))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


SLOW = 1.5 * WATCH_AFTER_SECONDS  # long enough that the router watches the client
PLAIN, STREAMED = chat(), chat(stream=True)


def whole(wait: float) -> Reply:
    reply = json_reply(completion("gpt-4o-mini"))
    reply.wait = wait
    return reply


CASES = {
    "a fast answer": (PLAIN, whole(0), None),
    "a slow answer": (PLAIN, whole(SLOW), None),
    "a stream": (STREAMED, stream_reply(*chat_events("gpt-4o-mini"), gap=SLOW / 4), None),
    "a client that leaves": (PLAIN, whole(2 * SLOW), SLOW),
    "a client that leaves a stream": (STREAMED, stream_reply(*chat_events("gpt-4o-mini"), gap=SLOW / 2), SLOW),
    "a refusal of the upstream": (PLAIN, json_reply({"error": {"message": "no", "type": "x"}}, 403), None),
    "an upstream that hangs up": (PLAIN, Reply(end="reset", pieces=()), None),
    "an invalid request": (_HEAD % (b"POST /v1/chat/completions", 2) + b"[]", whole(0), None),
    "a path that passes through": (_HEAD % (b"GET /v1/files", 0), json_reply({"data": []}), None),
    "a slow path that passes through": (_HEAD % (b"GET /v1/files", 0), whole(SLOW), None),
    "a verified answer": (chat(model="auto+verify"), whole(SLOW), None),
    "a verified stream": (
        chat(model="auto+verify", stream=True),
        stream_reply(*chat_events("gpt-4o-mini"), gap=SLOW / 4),
        None,
    ),
    "a body that is planned in a thread": (chat(user="x" * MAX_INLINE_BYTES), whole(SLOW), None),
    "health": (_HEAD % (b"GET /health", 0), whole(0), None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_request_leaves_no_garbage(router, openai_server, name):
    raw, reply, leave_after = CASES[name]

    def requests() -> None:
        for _ in range(REQUESTS):
            openai_server.enqueue(reply)
            ask(router.port, raw, leave_after=leave_after)

    requests()  # what is created once
    assert garbage_of(requests) == []


def test_a_served_application_is_exempt_from_collection():
    previous = signal.signal(signal.SIGTERM, lambda *_: None)  # as uvicorn does
    try:
        exempt_from_collection()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
        signal.signal(signal.SIGTERM, previous)


def test_an_application_in_another_process_is_not_exempt():
    exempt_from_collection()
    assert gc.get_freeze_count() == 0
