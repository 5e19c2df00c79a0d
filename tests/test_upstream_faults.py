"""Upstream faults on real sockets: retries, the fallback model, interrupted streams and circuits."""

import asyncio
import contextlib
import json
import re
import time

import httpx2
import openai
import pytest
from fake_openai import Reply, chat_events, completion, json_reply, stream_reply
from loopback import LoopbackServer

from router.upstream import connection
from router.upstream.breaker import FAILURES, Breaker
from router.upstream.replies import parse_retry_after

BODY = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}).encode()
NAMED = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
STREAMED = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}],"stream":true}'
FAST = {"timeouts": {"first_byte": 0.4, "idle": 0.3, "connect": 0.3}}
RESET = Reply(pieces=(), end="reset")


def ask(router, body=NAMED, **headers) -> httpx2.Response:
    return httpx2.post(router.url + "/chat/completions", content=body, headers=headers, timeout=30)


def server_error(status: int = 500, **headers: str) -> Reply:
    return json_reply(
        {"error": {"message": "oh no", "type": "server_error", "param": None, "code": None}}, status, **headers
    )


@pytest.fixture
def fast(start_router, openai_server):
    return start_router(openai_base_url=openai_server.url, **FAST)


@pytest.mark.parametrize(
    "fault",
    [
        server_error(500),
        server_error(503),
        server_error(429, retry_after="0.05"),
        server_error(408),
        server_error(409),
        RESET,
        Reply(wait=5),
        Reply(pieces=[b'{"id":"x"', b"}"], end="early"),
        Reply(pieces=[b'{"id":"x"'], end="reset"),
    ],
    ids=["500", "503", "429", "408", "409", "reset", "silence", "early end", "reset inside"],
)
def test_a_failure_before_the_first_byte_is_retried(fast, openai_server, fault):
    openai_server.enqueue(fault)
    answer = ask(fast)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Paris."
    record = fast.records()[0]
    assert (record["outcome"], record["reason"]) == ("answered", "passed_through")
    # the reset of an idle connection is not an attempt: the upstream may not have read the request
    assert record["attempts"] == 2 or (fault is RESET and record["attempts"] == 1)
    assert openai_server.received[0].body == openai_server.received[1].body == NAMED


@pytest.mark.parametrize("fault", [stream_reply(), stream_reply(end="stall"), RESET], ids=["empty", "stall", "reset"])
def test_a_stream_that_fails_before_its_first_byte_is_retried(fast, openai_server, fault):
    openai_server.enqueue(fault)
    answer = ask(fast, STREAMED)
    assert answer.content == b"".join(chat_events("gpt-4o"))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_client_error_is_never_retried(fast, openai_server, status):
    openai_server.enqueue(server_error(status, x_should_retry="true"))
    assert ask(fast, BODY).status_code == status
    assert len(openai_server.received) == 1


def test_x_should_retry_false_is_respected(fast, openai_server):
    openai_server.enqueue(server_error(500, x_should_retry="false"))
    assert ask(fast).status_code == 500
    assert len(openai_server.received) == 1


def test_retry_after_is_respected(fast, openai_server):
    openai_server.enqueue(server_error(429, retry_after_ms="400"))
    ask(fast)
    first, second = openai_server.received
    assert 0.399 <= second.began - first.began < 1.0  # the loop counts whole milliseconds


def test_after_all_retries_the_last_error_is_returned_unchanged(fast, openai_server):
    openai_server.enqueue(*[server_error(503, x_request_id=f"req_{n}") for n in range(3)])
    answer = ask(fast)
    assert (answer.status_code, answer.headers["x-request-id"]) == (503, "req_2")
    assert answer.json()["error"]["message"] == "oh no"
    assert len(openai_server.received) == 3


def test_a_delay_beyond_the_limit_is_left_to_the_client(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, timeouts={"retries": 1.0})
    openai_server.enqueue(server_error(429, retry_after="30"))
    start = time.monotonic()
    answer = ask(router)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert time.monotonic() - start < 1


def test_the_fallback_model_answers_if_a_model_fails(fast, openai_server):
    openai_server.enqueue(*[server_error(500)] * 3)
    answer = ask(fast, BODY)
    first, last = openai_server.received[0].json["model"], openai_server.received[-1].json["model"]
    assert {first, last} == {"gpt-4o", "gpt-4o-mini"}
    assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == (last, "fallback")
    record = fast.records()[0]
    assert (record["model"], record["reason"], record["attempts"]) == (last, "fallback", 4)


def test_an_interrupted_attempt_is_recorded_with_unknown_cost(fast, openai_server):
    openai_server.enqueue(Reply(pieces=[b'{"id":"x"', b"}"], end="early"), server_error(500))
    assert ask(fast).status_code == 200
    record = fast.records()[0]
    assert record["attempts"] == 3 and record["cost_usd"] > 0
    assert record["wasted"] == [{"model": "gpt-4o", "usage": None, "cost_usd": None}]


def test_a_named_model_has_no_fallback(fast, openai_server):
    openai_server.enqueue(*[server_error(500)] * 3)
    assert ask(fast).status_code == 500
    assert {received.json["model"] for received in openai_server.received} == {"gpt-4o"}


def test_a_long_retry_after_leads_to_the_fallback_model_at_once(fast, openai_server):
    openai_server.enqueue(server_error(429, retry_after="20"))
    start = time.monotonic()
    assert ask(fast, BODY).headers["x-router-reason"] == "fallback"
    assert time.monotonic() - start < 2


def test_no_reachable_upstream_returns_502(start_router):
    router = start_router(openai_base_url="http://127.0.0.1:9/v1")
    answer = ask(router)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert router.records()[0]["outcome"] == "failed"


def test_a_silent_upstream_returns_504(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, max_attempts=1, **FAST)
    openai_server.enqueue(Reply(wait=5))
    answer = ask(router)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


@pytest.mark.parametrize("end", ["reset", "early", "stall"])
@pytest.mark.parametrize("usage", [b"", b',"stream_options":{"include_usage":true}'])
def test_an_interrupted_stream_ends_with_an_error_event(fast, openai_server, end, usage):
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o")[:3], end=end))
    received_bytes = b""
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        httpx2.stream("POST", fast.url + "/chat/completions", content=STREAMED[:-1] + usage + b"}") as answer,
    ):
        for chunk in answer.iter_raw():
            received_bytes += chunk
    last = received_bytes.rstrip(b"\n").rpartition(b"\n\n")[2]
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["type"], error["code"]) == ("upstream_error", "upstream_cut")
    assert received_bytes.startswith(chat_events("gpt-4o")[0])
    record = fast.records()[0]
    assert (record["outcome"], record["status"]) == ("cut", 200)
    assert len(openai_server.received) == 1


def test_a_stream_without_its_last_event_counts_as_interrupted(fast, openai_server):
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o")[:3]))
    with openai.OpenAI(base_url=fast.url, api_key="x", max_retries=0) as client, pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="gpt-4o", messages=[], stream=True))


def test_a_finish_reason_ends_a_stream_without_done(fast, openai_server):
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o", usage=True)[:-1]))
    assert ask(fast, STREAMED).content == b"".join(chat_events("gpt-4o")[:-1])
    assert fast.records()[0]["usage"]["input_tokens"] == 12


def test_a_closed_idle_connection_costs_no_attempt(fast, openai_server):
    openai_server.enqueue(json_reply(completion("gpt-4o")), RESET)
    ask(fast)
    ask(fast)
    assert [record["attempts"] for record in fast.records(2)] == [1, 1]


class Refusing(LoopbackServer):
    """Answers after the head, before the body; then reads the declared length, or nothing."""

    def __init__(self, *, answers: bool = True) -> None:
        self.answers = answers
        self.heads: list[bytes] = []
        super().__init__()

    async def serve(self, reader, writer) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if not self.answers and head.startswith(b"POST"):
                    await asyncio.sleep(3)
                writer.write(b"HTTP/1.1 413 No\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
                await asyncio.sleep(0.2)
                declared = re.search(rb"content-length: (\d+)", head)
                await reader.readexactly(int(declared[1]) if declared else 0)
        writer.close()


@pytest.fixture
def refusing():
    servers: list[Refusing] = []

    def start(**options) -> Refusing:
        servers.append(Refusing(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


LARGE = NAMED.replace(b'"hi"', b'"' + b"x" * 30_000_000 + b'"')


@pytest.mark.parametrize("path", ["/chat/completions", "/elsewhere"])
def test_a_connection_with_an_unsent_body_is_not_reused(start_router, refusing, path):
    upstream = refusing()
    router = start_router(openai_base_url=f"http://127.0.0.1:{upstream.port}/v1", openai_api_key="sk-upstream")
    for count, body in enumerate((LARGE, NAMED), 1):
        assert httpx2.post(router.url + path, content=body, timeout=10).status_code == 413
        assert sum(head.startswith(b"POST") for head in upstream.heads) == count


def test_an_upstream_that_stops_reading_returns_504(start_router, refusing):
    upstream = refusing(answers=False)
    router = start_router(openai_base_url=f"http://127.0.0.1:{upstream.port}/v1", max_attempts=1, **FAST)
    answer = ask(router, LARGE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


def test_unused_connections_are_closed(router, openai_server, monkeypatch):
    monkeypatch.setattr(connection, "MAX_IDLE_SECONDS", 0.5)
    openai_server.enqueue(*[Reply(wait=2)] * 20)

    async def at_once() -> set[int]:
        async with httpx2.AsyncClient(timeout=30) as client:
            asking = [client.post(router.url + "/chat/completions", content=NAMED) for _ in range(20)]
            return {answer.status_code for answer in await asyncio.gather(*asking)}

    assert asyncio.run(at_once()) == {200}
    assert openai_server.open_connections >= 20
    deadline = time.monotonic() + 10
    while openai_server.open_connections > 1 and time.monotonic() < deadline:
        ask(router)  # the newest connection is enough for them
        time.sleep(0.1)
    assert openai_server.open_connections == 1


def test_retries_of_the_client_are_recorded(fast):
    ask(fast, **{"x-stainless-retry-count": "2"})
    assert fast.records()[0]["client_retries"] == 2


def test_an_open_circuit_leads_to_the_fallback_model_at_once(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, max_attempts=1)
    openai_server.enqueue(*[say for _ in range(FAILURES) for say in (server_error(500), json_reply(completion("x")))])
    for _ in range(FAILURES):
        ask(router, BODY)
    before = len(openai_server.received)
    assert ask(router, BODY).headers["x-router-reason"] == "fallback"
    assert len(openai_server.received) == before + 1


def test_a_named_model_is_tried_once_despite_an_open_circuit(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, max_attempts=3)
    openai_server.enqueue(*[server_error(500)] * 7)
    ask(router)
    ask(router)
    before = len(openai_server.received)
    assert ask(router).status_code == 500
    assert len(openai_server.received) == before + 1


def test_a_failed_probe_extends_the_pause():
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.record_failure(0.0)
    assert breaker.is_open and breaker.allows(5.0)
    breaker.record_failure(5.0)
    assert not breaker.allows(14.9) and breaker.allows(15.0)
    breaker.release_probe()  # its client disconnected
    assert breaker.allows(15.0)
    breaker.record_success()
    assert not breaker.is_open


def test_comments_keep_a_waiting_stream_alive(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, keep_alive_seconds=0.1)
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o", usage=True), wait=0.5))
    content = ask(router, STREAMED).content
    comments, events = content.count(b": keep-alive\n\n"), content.replace(b": keep-alive\n\n", b"")
    assert comments >= 3 and events == b"".join(chat_events("gpt-4o"))
    with openai.OpenAI(base_url=router.url, api_key="x", max_retries=0) as client:
        openai_server.enqueue(stream_reply(*chat_events("gpt-4o"), wait=0.4))
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=[], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris."


def test_an_error_after_a_comment_is_an_event(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, keep_alive_seconds=0.1, max_attempts=1)
    openai_server.enqueue(Reply(500, pieces=[b'{"error":{"message":"late"}}'], wait=0.3))
    content = ask(router, STREAMED).content
    assert content.endswith(b'data: {"error":{"message":"late"}}\n\n')


@pytest.mark.parametrize(
    ("milliseconds", "after", "seconds"),
    [
        (None, None, None),
        (b"250", b"9", 0.25),
        (None, b"1.5", 1.5),
        (None, b"Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        (None, b"Thu, 01 Jan 1970 00:00:40 GMT", 0.0),
        (b"x", None, None),
        (None, b"nonsense", None),
        (b"nan", None, None),
        (None, b"Thu, 01 Jan 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_parsed_in_every_format(milliseconds, after, seconds):
    assert parse_retry_after(milliseconds, after, 60.0) == seconds
