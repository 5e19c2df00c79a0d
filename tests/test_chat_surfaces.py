"""Responses, legacy completions, and requests that are passed through."""

import asyncio
import datetime as dt
import json
import time

import httpx2
import msgspec
import openai
import pytest
from fake_openai import FakeOpenAI, Reply, chat_events, completion, json_reply, stream_reply

from router.planning.api_formats import read_completion, read_response
from router.policy.features import RequestError
from router.policy.shutdown import read_shutdown_days
from router.serving.retirement import check_model_list, warnings
from router.wire.responses_stream import ResponsesStream

HARD = "Prove that every bounded monotone sequence of real numbers converges."


def response(model: str, identity: str = "resp_1", text: str = "Paris.") -> dict:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }
    return {
        "id": identity,
        "object": "response",
        "created_at": 1,
        "model": model,
        "status": "completed",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens": 4,
            "output_tokens_details": {"reasoning_tokens": 1},
            "total_tokens": 14,
        },
    }


def response_events(model: str) -> list[bytes]:
    whole = response(model)
    unfinished = {**whole, "status": "in_progress", "output": [], "usage": None}
    position = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    event_list = [
        {"type": "response.created", "response": unfinished},
        {"type": "response.output_item.added", "output_index": 0, "item": {**whole["output"][0], "content": []}},
        {
            "type": "response.content_part.added",
            **position,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
        {"type": "response.output_text.delta", **position, "delta": "Par", "logprobs": []},
        {"type": "response.output_text.delta", **position, "delta": "is.", "logprobs": []},
        {"type": "response.completed", "response": whole},
    ]
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': n})}\n\n".encode()
        for n, event in enumerate(event_list)
    ]


@pytest.fixture
def client(router):
    with openai.OpenAI(base_url=router.url, api_key="x", max_retries=0) as client:
        yield client


def test_a_response_is_routed_by_its_input(client, router, openai_server):
    openai_server.enqueue(json_reply(response("gpt-4o")))
    raw = client.responses.with_raw_response.create(model="auto", input="What is the capital of France?")
    assert raw.parse().output_text == "Paris."
    assert raw.headers["x-router-model"] == openai_server.received[0].json["model"]
    assert raw.headers["x-router-evidence"] and raw.headers["x-router-promise"] == "certified"
    record = router.records()[0]
    assert (record["endpoint"], record["usage"]["input_tokens"], record["usage"]["reasoning_tokens"]) == (
        "responses",
        10,
        1,
    )


def test_a_response_gets_the_same_decision_as_the_equivalent_chat(router):
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HARD}]}
    parts = [{"type": "input_text", "text": HARD}]
    items = {"instructions": "Be brief.", "input": [{"role": "user", "content": parts}]}
    text = {"instructions": "Be brief.", "input": HARD}
    shutdown_warnings = [
        httpx2.post(router.origin + "/router/decision", json=body).json() for body in (chat, items, text)
    ]
    assert shutdown_warnings[0]["quality"] == shutdown_warnings[1]["quality"] == shutdown_warnings[2]["quality"]


def test_the_events_of_a_response_are_forwarded_unchanged(router, openai_server):
    sent_content = response_events("gpt-4o")
    openai_server.enqueue(stream_reply(*sent_content))
    body = {"model": "auto", "input": "hi", "stream": True}
    answer = httpx2.post(router.url + "/responses", json=body)
    assert answer.content == b"".join(sent_content)
    assert "stream_options" not in openai_server.received[0].json
    record = router.records()[0]
    assert record["usage"]["output_tokens"] == 4
    assert record["response"]["output"][0]["content"][0]["text"] == "Paris."


def test_the_official_client_reads_a_streamed_response(client, openai_server):
    openai_server.enqueue(stream_reply(*response_events("gpt-4o")))
    with client.responses.stream(model="auto", input="hi") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "Paris." == "".join(deltas)


def test_a_continued_response_stays_on_its_model(router, openai_server):
    openai_server.enqueue(
        json_reply(response("gpt-4o-2024-08-06", "resp_9")), json_reply(response("gpt-4o", "resp_10"))
    )
    url = router.url + "/responses"
    httpx2.post(url, json={"model": "gpt-4o", "input": "hi"})
    answer = httpx2.post(url, json={"model": "auto", "input": "and now?", "previous_response_id": "resp_9"})
    assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == ("gpt-4o", "continued")
    assert openai_server.received[1].json["model"] == "gpt-4o"


def test_another_replica_asks_the_upstream_for_the_previous_model(router, openai_server):
    openai_server.enqueue(json_reply(response("gpt-4o-mini-2024-07-18", "resp_7")), json_reply(response("x", "resp_8")))
    body = {"model": "auto", "input": "and now?", "previous_response_id": "resp_7"}
    answer = httpx2.post(router.url + "/responses", json=body)
    assert answer.headers["x-router-model"] == "gpt-4o-mini"
    assert [received.target for received in openai_server.received] == ["/v1/responses/resp_7", "/v1/responses"]


def test_an_interrupted_response_ends_with_an_error_event(router, openai_server):
    openai_server.enqueue(stream_reply(*response_events("gpt-4o")[:4], end="early"))
    received_bytes = b""
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        httpx2.stream("POST", router.url + "/responses", json={"model": "x", "input": "a", "stream": True}) as answer,
    ):
        for chunk in answer.iter_raw():
            received_bytes += chunk
    last = received_bytes.split(b"\n\n")[-2]
    assert last.startswith(b"event: error\ndata: ")
    error = json.loads(last.partition(b"data: ")[2])
    assert (error["type"], error["code"], error["sequence_number"]) == ("error", "upstream_cut", 3)


def test_a_failed_response_is_recorded_as_failed():
    stream = ResponsesStream()
    failed = {"type": "response.failed", "response": {**response("m"), "status": "failed"}}
    stream.feed(b"event: response.failed\ndata: " + msgspec.json.encode(failed) + b"\n\n")
    assert stream.done and stream.error


def test_a_legacy_completion_is_routed(client, router, openai_server):
    answer = {**completion("gpt-4o"), "object": "text_completion", "choices": [{"index": 0, "text": " Paris."}]}
    openai_server.enqueue(json_reply(answer))
    raw = client.completions.with_raw_response.create(model="auto", prompt="The capital of France is")
    assert raw.parse().choices[0].text == " Paris."
    assert raw.headers["x-router-evidence"]
    assert router.records()[0]["endpoint"] == "completions"


def fields(**values) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in values.items()}


def test_prompts_are_read_in_every_format():
    assert read_completion(fields(prompt="hi")).turns == ("hi",)
    assert read_completion(fields(prompt=["a", "b"])).turns == ("a\n\nb",)
    assert read_completion(fields(prompt=[1, 2, 3])).turns == ("",)
    with pytest.raises(RequestError):
        read_completion(fields(suffix="x"))


def test_input_is_read_in_every_format():
    image = {"type": "input_image", "image_url": "u"}
    items = [
        {"type": "message", "role": "user", "content": "first"},
        {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "5"},
        {"role": "user", "content": [{"type": "input_text", "text": "second"}, image]},
    ]
    features = read_response(fields(input=items, instructions="sys", tools=[{"type": "function", "name": "f"}]))
    assert (features.turns, features.system, len(features.images)) == (("first", "second"), "sys", 1)
    assert [tool.split()[0] for tool in features.tools] == ["f"]
    assert read_response(fields(prompt={"id": "pmpt_1"})).turns == ("",)
    for bad, param in [({}, "input"), ({"input": 5}, "input"), ({"input": []}, "input")]:
        with pytest.raises(RequestError) as error:
            read_response(fields(**bad))
        assert error.value.param == param


def test_the_requested_name_is_echoed_if_the_setting_is_on(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, echo_asked_model=True)
    chat = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
    assert httpx2.post(router.url + "/chat/completions", json=chat).json()["model"] == "auto"
    sent = httpx2.post(router.url + "/chat/completions", json={**chat, "stream": True}).content
    assert sent == b"".join(chat_events("auto"))
    openai_server.enqueue(json_reply(response("gpt-4o")), stream_reply(*response_events("gpt-4o")))
    body = {"model": "auto", "input": "hi"}
    assert httpx2.post(router.url + "/responses", json=body).json()["model"] == "auto"
    sent = httpx2.post(router.url + "/responses", json={**body, "stream": True}).content
    assert sent == b"".join(response_events("auto"))


def test_other_paths_are_passed_through_unchanged(router, openai_server):
    sent_content = bytes(range(256)) * 50
    openai_server.enqueue(Reply(201, [("content-type", "audio/mpeg"), ("x-new", "1")], [sent_content]))
    sent = bytes(reversed(range(256))) * 3000
    answer = httpx2.put(router.url + "/new/thing?b=2&a=%2F", content=sent, headers={"content-type": "audio/wav"})
    assert (answer.status_code, answer.content, answer.headers["x-new"]) == (201, sent_content, "1")
    received = openai_server.received[0]
    assert (received.method, received.target, received.body) == ("PUT", "/v1/new/thing?b=2&a=%2F", sent)
    assert received.header("content-length") == str(len(sent))
    assert answer.headers["x-router-reason"] == "passed_through"


def test_a_file_is_uploaded_with_the_official_client(client, openai_server):
    openai_server.enqueue(
        json_reply({"id": "file-1", "object": "file", "bytes": 3, "created_at": 1, "filename": "a.txt"})
    )
    assert client.files.create(file=("a.txt", b"abc\x00\xff" * 40_000), purpose="batch").id == "file-1"
    received = openai_server.received[0]
    assert received.header("content-type").startswith("multipart/form-data; boundary=")
    assert b"abc\x00\xff" * 40_000 in received.body


def test_a_large_upload_is_streamed_and_not_buffered(router, openai_server):
    started_at = []

    def chunks():
        for _ in range(50):
            started_at.append(time.monotonic())
            yield b"x" * 200_000

    httpx2.post(router.url + "/uploads/u/parts", content=chunks(), timeout=30)
    assert len(openai_server.received[0].body) == 10_000_000


def test_a_response_with_a_stored_prompt_needs_no_model(router, openai_server):
    answer = {"id": "resp_1", "object": "response", "model": "gpt-4o", "output": []}
    for headers, sent in (
        ({}, b'{ "prompt": {"id": "p1"} }'),
        ({"x-router-model": "o9"}, b'{ "prompt": {"id": "p1"}}'),
    ):
        openai_server.enqueue(json_reply(answer))
        response = httpx2.post(router.url + "/responses", content=sent, headers=headers)
        assert response.json() == answer
    assert openai_server.received[0].body == b'{ "prompt": {"id": "p1"} }'
    assert openai_server.received[1].body == b'{"model":"o9", "prompt": {"id": "p1"}}'
    refused = httpx2.post(router.url + "/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "model"


def test_embeddings_are_billed(router, openai_server):
    answer = {"object": "list", "data": [], "model": "text-embedding-3-small", "usage": {"prompt_tokens": 5}}
    openai_server.enqueue(json_reply(answer))
    assert httpx2.post(router.url + "/embeddings", json={"input": "x"}).json() == answer
    record = router.records()[0]
    assert (record["endpoint"], record["model"], record["usage"]["input_tokens"]) == (
        "embeddings",
        "text-embedding-3-small",
        5,
    )


def test_a_passed_through_stream_arrives_piece_by_piece(router, openai_server):
    openai_server.enqueue(stream_reply(*[b"data: %d\n\n" % n for n in range(4)], gap=0.15))
    times = []
    with httpx2.stream("GET", router.url + "/threads/t/runs?stream=true") as answer:
        times += [time.monotonic() for _ in answer.iter_raw()]
    assert times[-1] - times[0] > 0.3


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "PATCH", "PUT"])
@pytest.mark.parametrize("target", ["/files/a%2Fb%20c?x=%20&y", "/files/", "/files//x", "/models/ft:gpt-4o:org"])
def test_methods_and_targets_are_passed_through_unchanged(router, openai_server, method, target):
    assert httpx2.request(method, router.url + target).status_code == 200
    assert [(request.method, request.target) for request in openai_server.received] == [(method, "/v1" + target)]


def test_a_websocket_returns_an_error_in_openais_format(router, openai_server):
    headers = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    answer = httpx2.get(router.url + "/realtime?model=gpt-4o", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "websocket_not_supported")
    assert not openai_server.received


UPWARDS = [
    "/../admin",
    "/files/..%2f..",
    "/files/%2e%2e/x",
    "/./x",
    "/x/..;/y",
    "/x/..;a=b/y",
    "/..%5cadmin",
    "/x/..\\y",
]
UPWARDS += ["/x/%252e%252e/y", "/%25252e%25252e%252fy", "/x%2f..%2f..%2fadmin"]


@pytest.mark.parametrize("path", UPWARDS)
def test_a_path_cannot_escape_the_api(router, openai_server, path):
    import socket

    with socket.create_connection(("127.0.0.1", router.port)) as connection:
        connection.sendall(b"GET /v1%b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % path.encode())
        received_bytes = connection.recv(4096)
    assert received_bytes.startswith(b"HTTP/1.1 400")
    assert not openai_server.received


@pytest.mark.parametrize("path", ["/%76%31/x", "/v1%2ffiles", "/v%31/files"])
def test_only_paths_that_start_with_v1_are_passed_through(router, openai_server, path):
    import socket

    with socket.create_connection(("127.0.0.1", router.port)) as connection:
        connection.sendall(b"GET %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % path.encode())
        received_bytes = connection.recv(4096)
    assert received_bytes.split()[1] in (b"400", b"404")
    assert not openai_server.received


def test_a_name_with_an_encoded_slash_is_passed_through_unchanged(router, openai_server):
    assert httpx2.get(router.url + "/models/org%2Fname").status_code == 200
    assert [request.target for request in openai_server.received] == ["/v1/models/org%2Fname"]


async def test_a_passed_through_request_is_cancelled_when_the_client_disconnects(router, openai_server):
    openai_server.enqueue(Reply(wait=30))
    async with httpx2.AsyncClient() as client:
        task = asyncio.create_task(client.get(router.url + "/files"))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await asyncio.to_thread(openai_server.received[0].hung_up.wait, 1)
    assert (await asyncio.to_thread(router.records))[0]["outcome"] == "abandoned"


def test_an_unreachable_upstream_returns_502(start_router):
    router = start_router(openai_base_url="http://127.0.0.1:9/v1")
    assert httpx2.get(router.url + "/files").status_code == 502
    assert httpx2.get(router.url + "/models").status_code == 502


def test_an_interrupted_answer_breaks_the_response(router, openai_server):
    openai_server.enqueue(Reply(pieces=[b"half", b"of it"], end="reset"))
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(router.url + "/files/f/content")
    assert router.records()[0]["outcome"] == "cut"


TODAY = dt.date(2026, 12, 1)


@pytest.mark.parametrize(
    ("date", "shutdown_warnings"),
    [
        ("2027-01-14", "shuts down on 2027-01-14, in 44 days"),
        ("2027-01-14T00:00:00Z", "in 44 days"),
        (1799884800, "in 44 days"),
        ("2026-11-30", "shut down on 2026-11-30"),
        ("2028-01-01", None),
        ("soon", None),
        (None, None),
        (1e300, None),
    ],
)
def test_the_shutdown_of_a_model_of_the_policy_is_announced(date, shutdown_warnings):
    listed = {"data": [{"id": "gpt-4o-2024-08-06", "shutdown_date": date}, {"id": "other", "shutdown_date": date}]}
    days = read_shutdown_days(listed, ["gpt-4o"], {"gpt-4o-2024-08-06": "gpt-4o"})
    found_warnings = warnings(days, ["gpt-6-sol:none"], TODAY)
    assert len(found_warnings) == (shutdown_warnings is not None)
    assert shutdown_warnings is None or shutdown_warnings in found_warnings[0]


@pytest.mark.parametrize("listed", [None, [], {"data": 5}, {"data": [5, {"id": "gpt-4o"}]}])
def test_an_invalid_list_of_models_announces_nothing(listed):
    assert read_shutdown_days(listed, ["gpt-4o"], {}) == {}


def test_health_announces_shutdowns(start_router):
    server = FakeOpenAI()
    server.models = json_reply({"object": "list", "data": [{"id": "gpt-4o", "shutdown_date": "2026-01-14"}]})
    router = start_router(openai_base_url=server.url)
    deadline = time.monotonic() + 5
    while (
        not (shutdown_warnings := httpx2.get(router.origin + "/health").json()["warnings"])
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    assert shutdown_warnings == [
        "gpt-4o shut down on 2026-01-14; run `python -m calibration retire --to gpt-6-luna,gpt-6-sol`"
    ]
    assert 'router_model_leaves_days{model="gpt-4o"} -' in httpx2.get(router.origin + "/metrics").text
    server.models = json_reply({}, 500)
    asyncio.run_coroutine_threadsafe(check_model_list(router.app.worker, TODAY), router.loop()).result(5)
    assert httpx2.get(router.origin + "/health").json()["warnings"] == shutdown_warnings
    server.close()


def test_known_shutdowns_are_announced_without_an_upstream(start_router):
    router = start_router(openai_base_url="simulated:")
    shutdown_warnings = httpx2.get(router.origin + "/health").json()["warnings"]
    assert [line.split()[0] for line in shutdown_warnings] == ["gpt-4o-mini", "gpt-4o"]
    assert all("2027-01-14" in line and "retire --to gpt-6-luna,gpt-6-sol" in line for line in shutdown_warnings)
