"""Overload: excess requests are rejected, the others are answered, and memory stays within its budget."""

import asyncio
import json
import socket
import time

import httpx2
import pytest
from fake_openai import Reply, completion, json_reply, stream_reply
from waiting import until

from router.admission import MAX_WAIT_SECONDS, REQUEST_BYTES, Admission
from router.errors import OverloadedError
from router.upstream.retry_budget import MAX_SAVED_RETRIES, RETRY_SHARE, RetryBudget
from router.wire.chat_stream import MAX_CHOICES, MAX_KEPT_BYTES, ChatStream

ASKED = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
STREAMED = ASKED[:-1] + b',"stream":true}'


def ask(router, body=ASKED) -> httpx2.Response:
    return httpx2.post(router.url + "/chat/completions", content=body, timeout=30)


def is_overloaded(answer: httpx2.Response) -> None:
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1" and answer.headers["x-should-retry"] == "true"
    assert answer.json()["error"]["code"] == "router_overloaded"


def test_a_request_over_the_limit_is_rejected_and_counted(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, max_requests=1)
    openai_server.enqueue(stream_reply(b"data: x\n\n", end="stall"))
    with httpx2.stream("POST", router.url + "/chat/completions", content=STREAMED, timeout=30):
        is_overloaded(ask(router))
        response = httpx2.get(router.url + "/files", timeout=30)  # passed-through requests count too
        is_overloaded(response)
        assert httpx2.get(router.origin + "/health", timeout=30).status_code == 200
    assert until(lambda: router.app.worker.admission.requests == 0)
    assert ask(router).status_code == 200
    assert 'router_shed_requests_total{why="requests"} 2.0' in httpx2.get(router.origin + "/metrics").text


def test_bodies_over_the_memory_budget_are_rejected_and_release_it(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, memory_budget_mb=16)
    large = ASKED.replace(b"hi", b"x" * 10_000_000)
    is_overloaded(ask(router, large))
    assert ask(router).status_code == 200
    assert until(lambda: router.app.worker.admission.reserved_bytes == 0)
    assert router.app.worker.admission.shed["memory"] == 1


def test_a_large_answer_is_forwarded_in_pieces_and_billed(router, openai_server):
    content = completion("gpt-4o", "x" * 3_000_000)
    openai_server.enqueue(json_reply(content))
    assert ask(router).json() == content
    record = router.records()[0]
    assert (record["outcome"], record["response_model"]) == ("answered", "gpt-4o")
    assert record["usage"]["input_tokens"] == 12 and record["cost_usd"] is not None


def test_an_endless_list_of_models_is_aborted(router, openai_server):
    openai_server.models = Reply(pieces=[b" " * 1_000_000] * 6, chunked=True)
    assert httpx2.get(router.url + "/models", timeout=30).status_code == 502


async def test_requests_take_turns_and_none_waits_too_long():
    admission, finished, refused = Admission(100, 2**30), [], []

    async def request(number: int) -> None:
        try:
            await admission.wait_turn()
        except OverloadedError:
            refused.append(number)
            return
        finished.append(number)
        time.sleep(0.05)  # noqa: ASYNC251  a decision that takes long

    await request(0)
    await asyncio.sleep(0.01)
    await asyncio.gather(*(request(number) for number in range(1, 40)))
    assert finished == sorted(finished) and refused == sorted(refused)
    assert 15 <= len(finished) <= 2 + MAX_WAIT_SECONDS / 0.05
    assert admission.shed["waiting"] == len(refused) == 40 - len(finished)


async def test_other_work_runs_between_two_long_decisions():
    admission, longest = Admission(100, 2**30), 0.0

    async def request() -> None:
        await admission.wait_turn()
        time.sleep(0.02)  # noqa: ASYNC251  a decision that takes long

    await request()
    await asyncio.sleep(0.01)
    all_of_them = asyncio.gather(*(request() for _ in range(20)))
    while not all_of_them.done():
        start = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - start)
    assert longest < 0.2


def test_reserved_memory_is_released_once():
    admission = Admission(2, 10 * REQUEST_BYTES)
    admitted = admission.admit()
    admitted.reserve(5 * REQUEST_BYTES)
    admitted.set_buffered(3 * REQUEST_BYTES)
    with pytest.raises(OverloadedError):
        admitted.set_buffered(6 * REQUEST_BYTES)
    admitted.release()
    admitted.release()
    assert (admission.requests, admission.reserved_bytes) == (0, 0)


def test_retries_are_limited_to_a_share_of_the_requests():
    budget = RetryBudget()
    assert sum(budget.spend(1.0) for _ in range(100)) == MAX_SAVED_RETRIES
    budget.requests = 50
    assert sum(budget.spend(1.0) for _ in range(100)) == pytest.approx(50 * RETRY_SHARE, abs=1)
    assert budget.spend(3.0)


def test_nothing_is_sent_for_a_client_that_disconnects_while_it_waits(router, openai_server):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(ASKED)
    router.app.worker.admission._turns = 0  # as if other requests had used all turns of this round
    router.loop().call_soon_threadsafe(time.sleep, 0.1)
    with socket.create_connection(("127.0.0.1", router.port)) as client:
        client.sendall(head + ASKED)
    assert router.records()[0]["outcome"] == "abandoned"
    assert not openai_server.received


def test_pipelined_requests_are_cancelled_with_their_client(router, openai_server, caplog):
    openai_server.enqueue(Reply(wait=5), Reply(wait=5))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(ASKED)
    with socket.create_connection(("127.0.0.1", router.port)) as client:
        client.sendall((head + ASKED) * 2)
        assert until(lambda: openai_server.received)
    assert openai_server.received[0].hung_up.wait(3)
    assert router.records(1)[0]["outcome"] == "abandoned"
    assert "Traceback" not in caplog.text


def event(choices: list[dict]) -> bytes:
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": choices}).encode() + b"\n\n"


def test_a_stream_over_a_mebibyte_is_forwarded_and_not_kept():
    stream, content = ChatStream(), event([{"index": 0, "delta": {"content": "x" * 1000}}])
    for _ in range(MAX_KEPT_BYTES // 1000 + 10):
        assert stream.feed(content) == content
    assert stream.content() is None and not stream._choices


def test_too_many_choices_are_not_kept():
    stream = ChatStream()
    content = event([{"index": number, "delta": {}, "finish_reason": "stop"} for number in range(MAX_CHOICES + 1)])
    assert stream.feed(content) == content
    assert stream.is_complete and stream.content() is None
