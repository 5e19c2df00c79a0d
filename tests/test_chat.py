"""Chat completions through the router, with real clients and a fake OpenAI server on loopback."""

import asyncio
import json
import time

import httpx2
import openai
import pytest
from fake_openai import Reply, chat_events, completion, json_reply, stream_reply
from running import RunningRouter

SUM = [{"role": "user", "content": "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"}]


@pytest.fixture
def client(router: RunningRouter):
    with openai.OpenAI(base_url=router.url, api_key="sk-client", max_retries=0) as client:
        yield client


def post(router: RunningRouter, body: bytes, path: str = "/chat/completions", **headers: str) -> httpx2.Response:
    http_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.post(router.url + path, content=body, headers={"content-type": "application/json", **http_headers})


def test_a_body_is_forwarded_unchanged_except_for_its_model(router, openai_server):
    body = (
        b'{ "messages" : [{"role":"user","content":"caf\\u00e9 \\ud83d\\ude00 \xc3\xa9 \\/"}],\n\t'
        b'"new_field":{"model":"x","b":1.10,"a":[1e400,-0.0]},"seed":1152921504606846976,'
        b' "model"  :  "auto"  ,"temperature":1.10, "z":null }\n'
    )
    answer = post(router, body)
    sent_body = openai_server.received[0].body
    assert answer.status_code == 200
    assert sent_body == body.replace(b'"auto"', b'"%b"' % answer.headers["x-router-model"].encode())


def test_a_request_for_a_named_model_is_forwarded_unchanged(router, openai_server):
    body = b'{"messages":[{"role":"user","content":"hi"}],"model":"ft:gpt-4o-mini:me::1","x":2.50}'
    assert post(router, body).headers["x-router-reason"] == "passed_through"
    assert openai_server.received[0].body == body


@pytest.mark.parametrize("model", ["auto", "gpt-4o"])
def test_unpaired_surrogates_are_forwarded_unchanged_and_recorded(router, openai_server, model):
    body = b'{"messages":[{"role":"user","content":"a text cut in an emoji: \\ud83d"}],"model":"%b"}' % model.encode()
    answer = post(router, body)
    assert answer.status_code == 200
    sent_body = openai_server.received[0].body
    assert sent_body in (body, body.replace(b'"auto"', b'"%b"' % answer.headers.get("x-router-model", "").encode()))
    (record,) = router.records()
    assert record["request"]["messages"][0]["content"] == "a text cut in an emoji: \ufffd"


@pytest.mark.parametrize(
    ("fields", "headers", "recorded"),
    [
        ({"user": "ada"}, {}, ("ada", "")),
        ({"safety_identifier": "ada", "prompt_cache_key": "thread 1"}, {}, ("ada", "thread 1")),
        ({"metadata": {"user_id": "ada", "session_id": "s1"}, "prompt_cache_key": "p"}, {}, ("ada", "s1")),
        ({"user": "ada"}, {"x-user-id": "bob", "x-session-id": "s2"}, ("bob", "s2")),
        ({"user": 5, "metadata": [[[1]]], "prompt_cache_key": None}, {}, ("", "")),
    ],
)
def test_user_and_session_are_recorded(router, fields, headers, recorded):
    body = {"model": "auto", "messages": SUM, **fields}
    httpx2.post(router.url + "/chat/completions", json=body, headers=headers)
    (record,) = router.records()
    assert (record.get("user", ""), record.get("session", "")) == recorded


def test_an_answer_is_returned_unchanged(router, openai_server):
    sent_content = (
        b'{ "id":"x", "model":"gpt-4o", "n":1.10, "big":1152921504606846976, "s":"\\u00e9\xc3\xa9", "usage":null}\n'
    )
    headers = [("content-type", "application/json"), ("x-request-id", "req_1"), ("openai-version", "2020-10-01")]
    headers += [("x-ratelimit-remaining-requests", "9"), ("set-cookie", "a=b"), ("set-cookie", "c=d")]
    openai_server.enqueue(Reply(200, headers, [sent_content]))
    answer = post(router, b'{"model":"gpt-4o","messages":[]}')
    assert answer.content == sent_content
    assert [(name, value) for name, value in answer.headers.multi_items() if (name, value) in headers] == headers


def test_the_official_client_gets_an_answer_with_its_decision(client, router, openai_server):
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=SUM)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Paris."
    assert answer.model == raw.headers["x-router-model"] == openai_server.received[0].json["model"]
    assert raw.headers["x-router-reason"] in ("cheap_is_enough", "strong_is_better", "novel", "no_evidence")
    assert raw.headers["x-router-policy"] and raw.headers["x-router-type"]
    assert "n=" in raw.headers["x-router-evidence"]
    assert router.records()[0]["trace_id"] == raw.headers["x-router-trace-id"]


async def test_the_async_client_streams(router):
    async with openai.AsyncOpenAI(base_url=router.url, api_key="x", max_retries=0) as client:
        stream = await client.chat.completions.create(model="auto-cost", messages=SUM, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris."
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_is_requested_and_removed_for_clients_that_did_not_request_it(router, openai_server):
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}],"stream":true}'
    answer = post(router, body)
    assert openai_server.received[0].json["stream_options"] == {"include_usage": True}
    assert answer.content == b"".join(chat_events("gpt-4o-mini"))
    record = router.records()[0]
    assert record["usage"]["input_tokens"] == 12
    assert record["usage"]["cached_input_tokens"] == 4
    assert record["cost_usd"] == pytest.approx((8 * 0.15 + 4 * 0.075 + 3 * 0.6) / 1e6)


def test_a_client_that_requests_usage_gets_the_stream_unchanged(router, openai_server):
    body = b'{"model":"gpt-4o-mini","messages":[],"stream_options":{"include_usage":true},"stream":true}'
    answer = post(router, body)
    assert openai_server.received[0].body == body
    assert answer.content == b"".join(chat_events("gpt-4o-mini", usage=True))


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (b'{"include_usage":false}', b'{"include_usage":true}'),
        (b"null", b'{"include_usage":true}'),
        (b"{ }", b'{"include_usage":true }'),
        (b'{"include_obfuscation": false}', b'{"include_usage":true,"include_obfuscation": false}'),
    ],
)
def test_other_stream_options_are_kept(router, openai_server, options, sent):
    post(router, b'{"model":"gpt-4o","messages":[],"stream":true,"stream_options":%b}' % options)
    assert openai_server.received[0].body.endswith(b'"stream_options":%b}' % sent)


def test_headers_are_forwarded_unchanged_except_for_the_credential(router, openai_server):
    post(
        router,
        b'{"model":"gpt-4o","messages":[]}',
        authorization="Bearer sk-client",
        openai_organization="org-1",
        idempotency_key="k-1",
        x_router_target="0.9",
        x_custom="1",
    )
    received = openai_server.received[0]
    assert received.header("authorization") == "Bearer sk-upstream"
    assert (received.header("openai-organization"), received.header("idempotency-key")) == ("org-1", "k-1")
    assert received.header("x-custom") == "1"
    assert received.header("x-router-target") is None
    assert received.header("host") == f"127.0.0.1:{openai_server.port}"
    assert "sk-client" not in str(received)


def test_an_upstream_error_is_returned_with_status_body_and_headers(client, router, openai_server):
    error = {"error": {"message": "no such model", "type": "invalid_request_error", "param": "model", "code": "x"}}
    openai_server.enqueue(json_reply(error, 404, x_request_id="req_9"))
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-none", messages=SUM)
    assert raised.value.body == error["error"]
    assert raised.value.request_id == "req_9"
    record = router.records()[0]
    assert (record["status"], record["outcome"], record["request_id"]) == (404, "failed", "req_9")
    assert len(openai_server.received) == 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[1]", 400, None),
        (b"", 400, None),
        (b'{"model":"auto","messages":[{"role":"user","content":"\xff"}]}', 400, None),
        (b'{"model":"auto","messages":[{"role":"user","content":"\x00"}]}', 400, None),
        (b'{"model":"auto","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, None),
        (b'{"model":"auto"}', 400, "messages"),
        (b'{"model":"auto","messages":[]}', 400, "messages"),
        (b'{"model":"auto","messages":"hi"}', 400, "messages"),
        (b'{"model":"auto","messages":[{"role":"user","content":5}]}', 400, "messages[0].content"),
        (b'{"messages":[]}', 400, "model"),
        (b'{"model":7,"messages":[]}', 400, "model"),
        (b'{"model":"auto@7","messages":[]}', 400, "model"),
        (b'{"model":"auto@x","messages":[]}', 400, "model"),
        (b'{"model":"auto","model":"gpt-4o","messages":[]}', 400, "model"),
        (b'{"a":1,"model":"auto","b":2,"a":1}', 400, "a"),
    ],
)
def test_invalid_input_returns_an_error_in_openais_format(router, openai_server, body, status, param):
    answer = post(router, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert error["message"]
    assert not openai_server.received
    assert router.records()[0]["status"] == status


def test_a_target_in_the_header_overrides_the_name(router):
    body = json.dumps({"model": "auto-cost", "messages": SUM}).encode()
    post(router, body, x_router_target="0.42")
    post(router, body, x_router_target="auto-quality")
    assert [record["target"] for record in router.records(2)] == [0.42, 0.99]
    response = post(router, body, x_router_target="much")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-router-target")


def test_a_model_in_the_header_is_used(router, openai_server):
    answer = post(router, json.dumps({"model": "auto", "messages": SUM}).encode(), x_router_model="o9")
    assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == ("o9", "forced")
    assert openai_server.received[0].json["model"] == "o9"


def test_routed_models_are_routed_in_unchanged_clients(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, routed_models=["gpt-4o"])
    answer = post(router, json.dumps({"model": "gpt-4o", "messages": SUM}).encode())
    assert "x-router-evidence" in answer.headers
    assert answer.json()["model"] == answer.headers["x-router-model"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_upstream_is_cancelled_when_the_client_disconnects(router, openai_server, streamed):
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o"), gap=0.4) if streamed else Reply(wait=30))
    body = {"model": "gpt-4o", "messages": SUM, "stream": streamed}
    async with httpx2.AsyncClient() as client:
        task = asyncio.create_task(client.post(router.url + "/chat/completions", json=body))
        await asyncio.sleep(0.7)
        assert openai_server.received
        task.cancel()
        disconnected_at = time.monotonic()
        await asyncio.gather(task, return_exceptions=True)
    assert await asyncio.to_thread(openai_server.received[0].hung_up.wait, 2)
    assert time.monotonic() - disconnected_at < 1
    record = (await asyncio.to_thread(router.records))[0]
    assert (record["status"], record["outcome"]) == (499, "abandoned")
    assert record["model"] == "gpt-4o"  # the upstream may bill what it has begun


def test_every_record_contains_request_and_response(client, router):
    client.chat.completions.create(model="auto", messages=SUM, user="u-1")
    record = router.records()[0]
    assert record["request"]["messages"] == SUM
    assert record["response"]["choices"][0]["message"]["content"] == "Paris."
    assert (record["asked_model"], record["user"], record["endpoint"]) == ("auto", "u-1", "chat/completions")
    assert record["key_id"] and "sk-client" not in json.dumps(record)
    assert record["started_unix_ns"] <= record["first_byte_unix_ns"] <= record["ended_unix_ns"]


def test_a_streamed_answer_is_recorded_as_one_text(client, router, openai_server):
    list(client.chat.completions.create(model="auto", messages=SUM, stream=True))
    record = router.records()[0]
    assert record["response"]["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}
    ]
    assert record["stream"] is True


def test_content_is_not_recorded_if_the_setting_excludes_it(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, record_content="none")
    post(router, json.dumps({"model": "auto", "messages": SUM}).encode())
    record = router.records()[0]
    assert record["request"] is None and record["response"] is None
    assert record["usage"]["input_tokens"] == 12


def test_a_clients_trace_is_continued(router):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = post(router, b'{"model":"gpt-4o","messages":[]}', traceparent=f"00-{trace}-00f067aa0ba902b7-01")
    record = router.records()[0]
    assert answer.headers["x-router-trace-id"] == record["trace_id"] == trace
    assert record["parent_span_id"] == "00f067aa0ba902b7"


def test_simulated_answers_are_marked_everywhere(start_router):
    router = start_router()
    with openai.OpenAI(base_url=router.url, api_key="x", max_retries=0) as client:
        answer = client.chat.completions.create(model="auto", messages=SUM)
        chunks = list(client.chat.completions.create(model="auto", messages=SUM, stream=True))
    assert answer.system_fingerprint == "fp_simulated"
    assert "simulated" in answer.choices[0].message.content
    assert "simulated" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert answer.usage.completion_tokens > 10
    assert all(record["simulated"] and record["usage"] for record in router.records(2))


def test_answers_with_a_dated_model_name_are_billed_by_that_name(router, openai_server):
    openai_server.enqueue(json_reply(completion("gpt-4o-2024-08-06")))
    post(router, b'{"model":"gpt-4o","messages":[]}')
    record = router.records()[0]
    assert record["response_model"] == "gpt-4o-2024-08-06"
    assert record["cost_usd"] == pytest.approx((8 * 2.5 + 4 * 1.25 + 3 * 10) / 1e6)


@pytest.mark.parametrize("name", ["gpt\0x", "gpt\r\nset-cookie: a=b", "gpt\x7f", "模型"])
def test_a_model_name_that_is_no_valid_header_is_left_to_the_upstream(router, openai_server, name):
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "hi"}]}).encode()
    openai_server.enqueue(json_reply({"error": {"message": "no such model"}}, 404))
    answer = httpx2.post(router.url + "/chat/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "no such model")
    assert answer.headers["x-router-model"].strip() in ("gpt x", "gpt  set-cookie: a=b", "gpt", "??")
    assert "set-cookie" not in answer.headers
    assert openai_server.received[0].body == body


@pytest.mark.parametrize("include_usage", [{"include_usage": False}, {}, None])
def test_removing_usage_keeps_every_choice(router, openai_server, include_usage):
    def chunk(index: int, finish: str, usage: str) -> bytes:
        choice = f'{{"index":{index},"delta":{{"content":"a"}},"finish_reason":{finish}}}'
        return f'data: {{"id":"1","model":"gpt-4o","choices":[{choice}]{usage},"obfuscation":"q"}}\n\n'.encode()

    finishes = [(n, finish) for finish in ("null", '"stop"') for n in range(3)]
    usage_event = (
        b'data: {"id":"1","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":6}}\n\n'
    )
    done = b"data: [DONE]\n\n"
    openai_server.enqueue(
        stream_reply(*[chunk(n, finish, ',"usage":null') for n, finish in finishes], usage_event, done)
    )
    request = {"model": "auto", "n": 3, "stream": True, "stream_options": include_usage}
    answer = httpx2.post(
        router.url + "/chat/completions", json=request | {"messages": [{"role": "user", "content": "x"}]}
    )
    assert answer.content == b"".join(chunk(n, finish, "") for n, finish in finishes) + done
    assert router.records()[0]["usage"]["output_tokens"] == 6
