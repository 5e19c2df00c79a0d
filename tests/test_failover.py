"""Several upstreams of one model: their order, failover between them, and their status."""

import json
import math
import threading
import time
from collections import Counter

import httpx2
import pytest
from fake_openai import Reply, chat_events, json_reply, stream_reply
from fault_proxy import FaultProxy
from upstream_pair import MODEL, Upstream, chat, conversations, error, send_chats, upstream_settings

from router.settings import SettingsError, load
from router.upstream import breaker
from router.upstream.breaker import FAILURES
from router.upstream.endpoints import Endpoint
from router.upstream.order import order_endpoints
from router.upstream.upstreams import Upstreams

FAST = {"timeouts": {"first_byte": 0.4, "idle": 0.3, "connect": 0.3}}


@pytest.fixture
def upstream():
    """A function that starts an upstream with a name."""
    running = []

    def start(name="a", port=0) -> Upstream:
        running.append(Upstream(name, port))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def pair(upstream):
    return upstream("a"), upstream("b")


def ask(router, body, path="/chat/completions", **headers) -> httpx2.Response:
    return httpx2.post(router.url + path, json=body, headers=headers, timeout=30)


def standing(router) -> list[dict]:
    return httpx2.get(router.origin + "/health").json()["upstreams"]


def metric(router, name: str) -> float:
    lines = httpx2.get(router.origin + "/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


# choice of the upstream


def test_2000_requests_follow_the_weights(start_router, pair):
    router = start_router(**upstream_settings(*pair, weight=(3, 1)))
    assert Counter(send_chats(router.port, conversations(2000))) == {200: 2000}
    counts = [len(upstream.received) for upstream in pair]
    bound = 4 * math.sqrt(2000 * 0.75 * 0.25)  # standard deviations of a binomial; p < 0.0001
    assert sum(counts) == 2000 and abs(counts[0] - 1500) < bound
    answer_counts = Counter(record["upstream"] for record in router.records(2000))
    assert answer_counts == {"a": counts[0], "b": counts[1]}
    assert (
        metric(router, f'router_upstream_calls_total{{model="{MODEL}",outcome="answered",upstream="a"}}') == counts[0]
    )


def test_a_conversation_stays_at_one_upstream(start_router, pair):
    router = start_router(**upstream_settings(*pair))
    for number in range(8):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question {number}"}]
        counts = set()
        for turn in range(4):
            counts.add(ask(router, {"model": MODEL, "messages": messages}).headers["x-router-upstream"])
            messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": f"And {turn}?"}]
        assert len(counts) == 1
    assert all(upstream.received for upstream in pair)


@pytest.mark.parametrize("named", ["prompt_cache_key", "x-session-id"])
def test_a_named_conversation_takes_precedence_over_its_messages(start_router, pair, named):
    router = start_router(**upstream_settings(*pair))
    header = {named: "c1"} if named.startswith("x-") else {}
    field = {} if header else {named: "c1"}
    counts = {ask(router, chat(f"Hello {n}", **field), **header).headers["x-router-upstream"] for n in range(12)}
    assert len(counts) == 1


def test_removing_an_upstream_moves_only_its_own_conversations():
    endpoints = [Endpoint(None, None, label=label) for label in "abc"]
    for key in (str(n).encode() for n in range(200)):
        before = [endpoint.label for endpoint in order_endpoints(endpoints, key)]
        after = [endpoint.label for endpoint in order_endpoints(endpoints[:2], key)]
        assert after == [label for label in before if label != "c"]


def test_lower_priorities_are_tried_first(start_router, pair):
    router = start_router(**upstream_settings(*pair, priority=(1, 0)))
    send_chats(router.port, conversations(20))
    assert [len(upstream.received) for upstream in pair] == [0, 20]
    pair[1].fault = error(500)
    assert set(send_chats(router.port, conversations(5))) == {200}
    assert len(pair[0].received) == 5


def test_each_upstream_gets_its_own_key_and_model_name(start_router, pair):
    router = start_router(**upstream_settings(*pair, name=("my-deployment", "")), openai_api_key="sk-default")
    send_chats(router.port, conversations(20))
    for server, key, name in zip(pair, ("sk-0", "sk-1"), ("my-deployment", MODEL), strict=True):
        assert {received.header("authorization") for received in server.received} == {f"Bearer {key}"}
        assert {received.json["model"] for received in server.received} == {name}
    assert {record["model"] for record in router.records(20)} == {MODEL}


def test_unset_values_of_an_upstream_are_inherited():
    tables = [{"weight": 2}, {"api_key": "sk-2", "label": "second"}, {"base_url": "http://other:1/v1", "name": "x"}]
    model = {"name": "mine", "api_key": "sk-model", "upstreams": tables}
    known = Upstreams(load(openai_base_url="http://default:9/v1", openai_api_key="sk-default", models={"m": model}))
    endpoints_by_label = {
        endpoint.label: (endpoint.origin.host, endpoint.authorization, endpoint.model)
        for endpoint in known.endpoints("m")
    }
    assert endpoints_by_label == {
        "default:9": ("default", b"Bearer sk-model", "mine"),
        "second": ("default", b"Bearer sk-2", "mine"),
        "other:1": ("other", None, "x"),  # no key of another address
    }
    assert known.endpoints("m:low") is known.endpoints("m")
    assert "sk-" not in repr(known.endpoints("m"))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([{"weight": 0}], r"ROUTER_MODELS\.m\.upstreams\.0\.weight: Input should be greater than 0"),
        ([{"priority": -1}], r"upstreams\.0\.priority"),
        ([{"label": "two words"}], r"upstreams\.0\.label"),
        ([{"wait": 1}], r"upstreams\.0\.wait: Extra inputs are not permitted"),
        ([{"base_url": "ftp://x"}], r"models\.m\.upstreams\.0\.base_url: not an http or https URL"),
        ([{"base_url": "http://u:secret@x"}], r"must not contain a user or password"),
        ([{}, {"api_key": "sk-2"}], r"upstreams\.1\.label: two upstreams have the label"),
    ],
)
def test_invalid_settings_are_one_line_errors(tables, message):
    with pytest.raises(SettingsError, match=message) as error:
        Upstreams(load(models={"m": {"upstreams": tables}}))
    assert "\n" not in str(error.value) and "secret" not in str(error.value) and "sk-" not in str(error.value)


# failures


FAULTS = {
    "500": (error(500), 0),
    "503": (error(503), 0),
    "refused key": (error(401, "invalid_api_key"), 0),
    "forbidden": (error(403), 0),
    "no such model": (error(404, "model_not_found"), 0),
    "long rate limit": (error(429, retry_after="30"), 0),
    "no money": (error(429, "insufficient_quota"), 0),
    "reset": (Reply(pieces=(), end="reset"), 1),
    "silence": (Reply(wait=5), 1),
    "early end": (Reply(pieces=[b'{"id":"x"', b"}"], end="early"), 1),
}


@pytest.mark.parametrize(("fault", "extra_attempts"), FAULTS.values(), ids=FAULTS)
def test_no_request_fails_if_one_upstream_fails(start_router, pair, fault, extra_attempts):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)), **FAST)
    pair[0].fault = fault
    start = time.monotonic()
    assert send_chats(router.port, conversations(12), threads=1) == [200] * 12
    assert time.monotonic() - start < 6
    assert len(pair[0].received) == FAILURES  # then the upstream is not called
    assert len(pair[1].received) == 12
    records = router.records(12)
    assert {(record["upstream"], record["model"], record["outcome"]) for record in records} == {
        ("b", MODEL, "answered")
    }
    assert [record["attempts"] for record in records] == [2] * FAILURES + [1] * (12 - FAILURES)
    unknown = [{"model": MODEL, "usage": None, "cost_usd": None}] * extra_attempts  # it may have been billed
    assert [record["wasted"] for record in records] == [unknown] * FAILURES + [[]] * (12 - FAILURES)
    assert all(record["cost_usd"] > 0 for record in records)


def test_an_unreachable_upstream_fails_no_request(start_router, pair, closed_port):
    router = start_router(**upstream_settings(f"http://127.0.0.1:{closed_port}/v1", pair[1]))
    assert set(send_chats(router.port, conversations(40))) == {200}
    assert all(record["wasted"] == [] for record in router.records(40))
    assert standing(router) == [
        {"model": MODEL, "upstream": "a", "left_alone": True, "key_refused": 0},
        {"model": MODEL, "upstream": "b", "left_alone": False, "key_refused": 0},
    ]
    assert metric(router, "router_upstream_left_alone{") == 1
    failed = metric(router, f'router_upstream_calls_total{{model="{MODEL}",outcome="failed",upstream="a"}}')
    assert FAILURES <= failed <= FAILURES + 3  # as many as were in progress at the last failure


@pytest.mark.parametrize(("mode", "unknown"), [("refuse", 1), ("error", 0), ("lose", 1), ("stall", 1)])
def test_a_broken_connection_leads_to_the_next_upstream(start_router, pair, mode, unknown):
    proxy = FaultProxy(pair[0].port)
    router = start_router(**upstream_settings(f"http://127.0.0.1:{proxy.port}/v1", pair[1], priority=(0, 1)), **FAST)
    try:
        assert ask(router, chat("hi")).headers["x-router-upstream"] == "a"
        proxy.mode = mode
        answer = ask(router, chat("hi"))
        assert (answer.status_code, answer.headers["x-router-upstream"]) == (200, "b")
        assert len(router.records(2)[1].get("wasted")) == unknown
        if mode == "lose":  # answered and billed, but the answer is lost
            assert len(pair[0].received) == 2
    finally:
        proxy.close()


def test_a_recovered_upstream_gets_its_conversations_again(start_router, pair, monkeypatch):
    monkeypatch.setattr(breaker, "FIRST_PAUSE_SECONDS", 0.3)
    router = start_router(**upstream_settings(*pair, priority=(0, 1)))
    pair[0].fault = error(500)
    send_chats(router.port, conversations(FAILURES + 2), threads=1)
    assert standing(router)[0]["left_alone"]
    pair[0].fault = None
    time.sleep(0.35)
    assert ask(router, chat("hi")).headers["x-router-upstream"] == "a"
    assert not standing(router)[0]["left_alone"]


def test_an_upstream_that_restarts_under_load_fails_no_request(start_router, pair, upstream, monkeypatch):
    monkeypatch.setattr(breaker, "FIRST_PAUSE_SECONDS", 0.2)
    first = Upstream("a")
    router, port = start_router(**upstream_settings(first, pair[1])), first.port

    def kill_and_return() -> None:
        time.sleep(0.3)
        first.close()
        time.sleep(0.5)
        restarted.append(upstream("a", port))

    restarted, statuses, killer = [], [], threading.Thread(target=kill_and_return)
    killer.start()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and not (restarted and restarted[0].received):
        statuses += send_chats(router.port, conversations(60))
    killer.join()
    assert set(statuses) == {200} and restarted[0].received
    records = router.records(len(statuses))
    assert len(records) == len(statuses) and all(record["cost_usd"] > 0 for record in records)
    sent = len(first.received) + len(restarted[0].received) + len(pair[1].received)
    assert sent - len(records) <= sum(len(record["wasted"]) for record in records)  # every request is accounted for


def test_an_upstream_with_an_open_circuit_is_skipped(start_router, pair, upstream):
    third = upstream("c")
    router = start_router(**upstream_settings(*pair, third, priority=(0, 1, 2)))
    pair[0].fault = pair[1].fault = error(500)
    assert set(send_chats(router.port, conversations(FAILURES), threads=1)) == {200}
    pair[0].fault = None
    router.app.worker.upstreams.endpoints(MODEL)[0].health.breaker.record_success()
    pair[0].enqueue(error(401))
    counts = len(pair[1].received)
    answer = ask(router, chat("hi"))
    assert (answer.status_code, answer.headers["x-router-upstream"]) == (200, "c")
    assert len(pair[1].received) == counts


def test_a_short_rate_limit_is_waited_for_at_the_same_upstream(start_router, pair):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)))
    pair[0].enqueue(error(429, retry_after="0.1"))
    assert ask(router, chat("hi")).headers["x-router-upstream"] == "a"
    assert not pair[1].received


def test_the_last_usable_upstream_is_retried(start_router, pair, closed_port):
    router = start_router(**upstream_settings(f"http://127.0.0.1:{closed_port}/v1", pair[1]))
    send_chats(router.port, conversations(30), threads=1)
    pair[1].enqueue(error(500))
    assert ask(router, chat("hi")).status_code == 200


def test_an_interrupted_stream_is_not_repeated(start_router, pair):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)), **FAST)
    pair[0].enqueue(stream_reply(*chat_events(MODEL)[:3], end="reset"))
    with pytest.raises(httpx2.RemoteProtocolError):
        ask(router, chat("hi", stream=True))
    record = router.records()[0]
    assert (record["outcome"], record["upstream"], record["attempts"]) == ("cut", "a", 1)
    assert not pair[1].received


def test_a_stream_that_fails_before_its_first_byte_moves_to_the_next_upstream(start_router, pair):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)), **FAST)
    pair[0].enqueue(stream_reply())
    assert ask(router, chat("hi", stream=True)).content == b"".join(chat_events(MODEL))
    assert router.records()[0]["upstream"] == "b"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_the_error_of_the_last_upstream_is_returned(start_router, pair, status):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)))
    pair[0].fault, pair[1].fault = error(status), error(status, x_request_id="req_b")
    answer = ask(router, chat("hi"))
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, "req_b")
    assert router.records()[0]["upstream"] == "b"


@pytest.mark.parametrize("status", [400, 422])
def test_an_invalid_request_is_sent_once(start_router, pair, status):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)))
    pair[0].fault = error(status)
    assert [ask(router, chat("hi")).status_code for _ in range(8)] == [status] * 8
    assert not pair[1].received


def test_a_rejected_key_is_reported_until_it_is_accepted(start_router, pair):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)))
    pair[0].enqueue(error(401, "invalid_api_key"))
    assert ask(router, chat("hi")).status_code == 200
    health = httpx2.get(router.origin + "/health").json()
    assert health["upstreams"][0]["key_refused"] == 401
    assert any("a of gpt-4o rejects its API key (401)" in warning for warning in health["warnings"])
    assert metric(router, "router_upstream_key_refused{") == 1
    ask(router, chat("hi"))
    assert standing(router)[0]["key_refused"] == 0


def test_a_rejected_client_key_is_not_a_fault_of_the_upstream(start_router, pair):
    model = {"upstreams": [{"label": "a"}, {"label": "b", "base_url": pair[1].url, "priority": 1}]}
    router = start_router(openai_base_url=pair[0].url, forward_client_keys=True, models={MODEL: model})
    pair[0].fault = error(401, "invalid_api_key")
    statuses = [ask(router, chat("hi"), authorization="Bearer sk-wrong").status_code for _ in range(FAILURES + 2)]
    assert statuses == [401] * len(statuses) and not pair[1].received
    assert not standing(router)[0]["left_alone"] and standing(router)[0]["key_refused"] == 0


# a model and its fallback


def test_the_next_upstream_is_tried_before_another_model(start_router, pair, openai_server):
    settings = upstream_settings(*pair, priority=(0, 1))
    settings["models"]["gpt-4o-mini"] = settings["models"][MODEL]
    settings["openai_base_url"] = openai_server.url
    router = start_router(**settings)
    pair[0].fault = error(500)
    answer = ask(router, chat("What is 2 + 2?", model="auto"))
    assert answer.status_code == 200 and answer.headers["x-router-reason"] != "fallback"
    assert pair[0].received[0].json["model"] == pair[1].received[0].json["model"] == answer.headers["x-router-model"]


def test_another_model_answers_if_no_upstream_of_the_first_does(start_router, pair, openai_server):
    probe = start_router(openai_base_url=openai_server.url)
    chosen_model = ask(probe, chat("What is 2 + 2?", model="auto")).headers["x-router-model"]
    router = start_router(
        **upstream_settings(*pair, model=chosen_model) | {"openai_base_url": openai_server.url}, max_attempts=1
    )
    pair[0].fault = pair[1].fault = error(500)
    for count in range(1, FAILURES + 3):
        answer = ask(router, chat("What is 2 + 2?", model="auto"))
        assert (answer.status_code, answer.headers["x-router-reason"]) == (200, "fallback")
        assert sum(len(upstream.received) for upstream in pair) == 2 * min(count, FAILURES)
    assert router.records(FAILURES + 2)[-1]["upstream"] == ""
    assert metric(router, f'router_circuit_open{{model="{chosen_model}"}}') == 1


# what clients see


def test_clients_see_labels_and_no_addresses(start_router, pair):
    router = start_router(**upstream_settings(*pair, label=("", "azure")))
    lines = {record: ask(router, chat(f"hi {record}")).headers.get("x-router-upstream") for record in range(12)}
    assert set(lines.values()) == {None, "azure"}
    assert {record["upstream"] for record in router.records(12)} == {f"127.0.0.1:{pair[0].port}", "azure"}
    for path in ("/health", "/ready"):
        lines = httpx2.get(router.origin + path)
        assert [alert["upstream"] for alert in lines.json()["upstreams"]] == ["upstream 1", "azure"]
        assert str(pair[0].port) not in lines.text and "sk-" not in lines.text


def test_a_model_with_one_upstream_has_no_upstream_status(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url)
    assert "x-router-upstream" not in ask(router, chat("hi")).headers
    assert router.records()[0]["upstream"] == "" and standing(router) == []


# stored responses


def respond(router, **body) -> httpx2.Response:
    return ask(router, {"model": MODEL, "input": [], **body}, "/responses")


def test_a_response_is_continued_where_it_is_stored(start_router, pair):
    router = start_router(**upstream_settings(*pair))
    for number in range(6):
        first = respond(router, input=[{"role": "user", "content": f"Question {number}"}])
        again = respond(router, model="auto", previous_response_id=first.json()["id"])
        assert again.headers["x-router-upstream"] == first.headers["x-router-upstream"]
        assert again.headers["x-router-reason"] == "continued"
    assert all(upstream.received for upstream in pair)


@pytest.mark.parametrize("named", [MODEL, "auto"])
def test_another_replica_finds_the_upstream_that_stores_a_response(start_router, pair, named):
    pair[1].stored.add("resp_of_b")
    for _ in range(2):
        router = start_router(**upstream_settings(*pair, priority=(0, 1)))
        answer = respond(router, model=named, previous_response_id="resp_of_b")
        assert (answer.status_code, answer.headers["x-router-upstream"]) == (200, "b")
        assert answer.headers["x-router-model"] == MODEL
    assert {received.method for received in pair[0].received} == {"GET"}


def test_a_missing_response_is_not_a_fault_of_the_upstream(start_router, pair):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)))
    names = [f"conv_{number}" for number in range(FAILURES + 1)]
    pair[1].stored.update(names)
    for name in [*names, *names]:
        answer = respond(router, conversation={"id": name})
        assert (answer.status_code, answer.headers["x-router-upstream"]) == (200, "b")
    assert len(pair[0].received) == len(names)  # then the addresses are known
    assert not standing(router)[0]["left_alone"]


def test_a_response_that_is_stored_nowhere_returns_the_upstreams_error(start_router, pair):
    router = start_router(**upstream_settings(*pair))
    answer = respond(router, previous_response_id="resp_none")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "previous_response_not_found")


def test_a_stored_response_has_no_fallback_if_its_upstream_is_down(start_router, pair):
    router = start_router(**upstream_settings(*pair, priority=(0, 1)), max_attempts=1)
    first = respond(router).json()["id"]
    pair[0].fault = error(503)
    assert respond(router, previous_response_id=first).status_code == 503
    assert not pair[1].received


def test_requests_with_files_try_the_default_upstream_first(start_router, pair):
    tables = [{"base_url": pair[1].url, "label": "b"}, {"label": "a", "priority": 1}]
    router = start_router(openai_base_url=pair[0].url, openai_api_key="sk", models={MODEL: {"upstreams": tables}})
    pair[0].stored.add("file-1")
    answer = respond(router, input=[{"type": "input_file", "file_id": "file-1"}])
    assert (answer.status_code, answer.headers["x-router-upstream"]) == (200, "a")
    assert not pair[1].received


@pytest.mark.parametrize("remembered", [True, False])
def test_operations_on_a_stored_response_go_to_its_upstream(start_router, pair, openai_server, remembered):
    settings = upstream_settings(*pair, priority=(1, 0)) | {"openai_base_url": openai_server.url}
    router = start_router(**settings)
    response_id = respond(router).json()["id"]
    counts = router if remembered else start_router(**settings)
    openai_server.enqueue(*[error(404)] * 2)
    answer = httpx2.post(f"{counts.url}/responses/{response_id}/cancel")
    assert answer.json() == {"cancelled_at": "b"}
    assert len(openai_server.received) == (0 if remembered else 1)


def test_other_paths_go_to_the_default_upstream(start_router, pair, openai_server):
    router = start_router(**upstream_settings(*pair) | {"openai_base_url": openai_server.url})
    openai_server.enqueue(json_reply({"id": "file-1"}), json_reply({"id": "batch-1"}))
    assert [ask(router, {}, path).json()["id"] for path in ("/files", "/batches")] == ["file-1", "batch-1"]
    assert not any(upstream.received for upstream in pair)


def test_the_exporter_does_not_get_the_keys_of_upstreams(monkeypatch, tmp_path):
    from router.exporter import process

    tables = [{"api_key": "sk-secret", "base_url": "http://x:1"}]
    monkeypatch.setenv("ROUTER_MODELS", json.dumps({"m": {"upstreams": tables}}))
    started = []
    monkeypatch.setattr(process, "Exporter", started.append)
    process.start(load(home=tmp_path))
    document = json.loads(started[0]["ROUTER_MODELS"])
    assert "sk-secret" not in json.dumps(started[0]) and "upstreams" not in document["m"]
