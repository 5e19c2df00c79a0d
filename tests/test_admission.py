"""More than a worker can do: some are told to come back, the others are answered, and memory stays in its budget."""

import asyncio
import json
import socket
import time

import httpx2
import pytest
from fake_openai import Say, completion, events, json_answer

from router.admission import MAX_WAIT_SECONDS, REQUEST_BYTES, Admission
from router.errors import OverloadedError
from router.upstream.retry_budget import MAX_SAVED_RETRIES, RETRY_SHARE, RetryBudget
from router.wire.chat_stream import MAX_CHOICES, MAX_KEPT_BYTES, ChatStream

ASKED = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
STREAMED = ASKED[:-1] + b',"stream":true}'


def ask(router, body=ASKED) -> httpx2.Response:
    return httpx2.post(router.url + "/chat/completions", content=body, timeout=30)


def wait_until(true, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_told_to_come_back(answer: httpx2.Response) -> None:
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1" and answer.headers["x-should-retry"] == "true"
    assert answer.json()["error"]["code"] == "router_overloaded"


def test_a_request_over_the_cap_is_told_to_come_back_and_counted(serve, openai_server):
    router = serve(openai_base_url=openai_server.url, max_requests=1)
    openai_server.say(events(b"data: x\n\n", end="stall"))
    with httpx2.stream("POST", router.url + "/chat/completions", content=STREAMED, timeout=30):
        is_told_to_come_back(ask(router))
        told = httpx2.get(router.url + "/files", timeout=30)  # what passes through counts as well
        is_told_to_come_back(told)
        assert httpx2.get(router.origin + "/health", timeout=30).status_code == 200
    wait_until(lambda: router.app.worker.admission.requests == 0)
    assert ask(router).status_code == 200
    assert 'router_shed_requests_total{why="requests"} 2.0' in httpx2.get(router.origin + "/metrics").text


def test_bodies_over_the_budget_are_told_to_come_back_and_leave_nothing(serve, openai_server):
    router = serve(openai_base_url=openai_server.url, memory_budget_mb=16)
    large = ASKED.replace(b"hi", b"x" * 10_000_000)
    is_told_to_come_back(ask(router, large))
    assert ask(router).status_code == 200
    wait_until(lambda: router.app.worker.admission.reserved_bytes == 0)
    assert router.app.worker.admission.shed["memory"] == 1


def test_a_large_answer_passes_in_pieces_and_is_billed(router, openai_server):
    said = completion("gpt-4o", "x" * 3_000_000)
    openai_server.say(json_answer(said))
    assert ask(router).json() == said
    record = router.records()[0]
    assert (record["outcome"], record["response_model"]) == ("answered", "gpt-4o")
    assert record["usage"]["input_tokens"] == 12 and record["cost_usd"] is not None


def test_an_endless_list_of_models_is_given_up(router, openai_server):
    openai_server.models = Say(pieces=[b" " * 1_000_000] * 6, chunked=True)
    assert httpx2.get(router.url + "/models", timeout=30).status_code == 502


async def test_requests_have_their_turn_one_after_the_other_and_none_waits_too_long():
    admission, ran, refused = Admission(100, 2**30), [], []

    async def request(number: int) -> None:
        try:
            await admission.wait_turn()
        except OverloadedError:
            refused.append(number)
            return
        ran.append(number)
        time.sleep(0.05)  # noqa: ASYNC251  a decision that takes long

    await request(0)
    await asyncio.sleep(0.01)
    await asyncio.gather(*(request(number) for number in range(1, 40)))
    assert ran == sorted(ran) and refused == sorted(refused)
    assert 15 <= len(ran) <= 2 + MAX_WAIT_SECONDS / 0.05
    assert admission.shed["waiting"] == len(refused) == 40 - len(ran)


async def test_others_have_their_turn_between_two_long_decisions():
    admission, longest = Admission(100, 2**30), 0.0

    async def request() -> None:
        await admission.wait_turn()
        time.sleep(0.02)  # noqa: ASYNC251  a decision that takes long

    await request()
    await asyncio.sleep(0.01)
    all_of_them = asyncio.gather(*(request() for _ in range(20)))
    while not all_of_them.done():
        began = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - began)
    assert longest < 0.2


def test_what_a_request_held_is_given_back_once():
    admission = Admission(2, 10 * REQUEST_BYTES)
    admitted = admission.admit()
    admitted.reserve(5 * REQUEST_BYTES)
    admitted.set_buffered(3 * REQUEST_BYTES)
    with pytest.raises(OverloadedError):
        admitted.set_buffered(6 * REQUEST_BYTES)
    admitted.release()
    admitted.release()
    assert (admission.requests, admission.reserved_bytes) == (0, 0)


def test_retries_are_a_share_of_the_requests_and_a_few_beside():
    budget = RetryBudget()
    assert sum(budget.spend(1.0) for _ in range(100)) == MAX_SAVED_RETRIES
    budget.requests = 50
    assert sum(budget.spend(1.0) for _ in range(100)) == pytest.approx(50 * RETRY_SHARE, abs=1)
    assert budget.spend(3.0)


def test_nothing_is_asked_for_a_client_that_left_while_it_waited_for_its_turn(router, openai_server):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(ASKED)
    router.app.worker.admission._turns = 0  # as when others have had all turns of this round
    router.loop().call_soon_threadsafe(time.sleep, 0.1)
    with socket.create_connection(("127.0.0.1", router.port)) as client:
        client.sendall(head + ASKED)
    assert router.records()[0]["outcome"] == "abandoned"
    assert not openai_server.received


def test_pipelined_requests_are_cancelled_with_their_client(router, openai_server, caplog):
    openai_server.say(Say(wait=5), Say(wait=5))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(ASKED)
    with socket.create_connection(("127.0.0.1", router.port)) as client:
        client.sendall((head + ASKED) * 2)
        wait_until(lambda: openai_server.received)
    assert openai_server.received[0].hung_up.wait(3)
    assert router.records(1)[0]["outcome"] == "abandoned"
    assert "Traceback" not in caplog.text


def event(choices: list[dict]) -> bytes:
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": choices}).encode() + b"\n\n"


def test_what_a_stream_says_beyond_a_mebibyte_passes_and_is_not_kept():
    stream, said = ChatStream(), event([{"index": 0, "delta": {"content": "x" * 1000}}])
    for _ in range(MAX_KEPT_BYTES // 1000 + 10):
        assert stream.feed(said) == said
    assert stream.content() is None and not stream._choices


def test_choices_without_end_are_not_kept():
    stream = ChatStream()
    said = event([{"index": number, "delta": {}, "finish_reason": "stop"} for number in range(MAX_CHOICES + 1)])
    assert stream.feed(said) == said
    assert stream.is_complete and stream.content() is None
