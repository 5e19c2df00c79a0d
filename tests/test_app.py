"""The router's own endpoints, access to them, and its commands."""

import asyncio
import contextlib
import json
import logging
import re
import subprocess
import time
from pathlib import Path

import httpx2
import openai
import pytest
from command_line import run
from fake_openai import Reply, json_reply
from loopback import LoopbackServer
from synthetic_outcomes import expected_policy

from calibration.policies import write_policy
from router.policy.distribution import SHIPPED
from router.settings import SettingsError, load

SUM = [{"role": "user", "content": "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"}]


WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
MAIL = {"name": "send_mail", "description": "Send a mail.", "parameters": {"type": "object", "properties": {}}}
STORY = "The harbour town of Lindau lies on an island. Its lion looks over the lake. " * 12
WHOLE = {  # a chat with history, a system prompt, material, an example and two tools
    "model": "auto@0.95",
    "messages": [
        {"role": "system", "content": "You are a travel assistant."},
        {"role": "user", "content": "Who wrote Faust?"},
        {"role": "assistant", "content": "Goethe."},
        {
            "role": "user",
            "content": f"Context:\n{STORY}\n\nQuestion: Is it cold there?\nAnswer: No.\n\n"
            "Question: What is the weather in the city of Lindau?\nAnswer:",
        },
    ],
    "tools": [{"type": "function", "function": tool} for tool in (WEATHER, MAIL)],
}


def command(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    return run("router", *arguments, stdin=stdin, **environment)


def test_the_models_of_the_upstream_are_listed_with_the_routing_names(router):
    with openai.OpenAI(base_url=router.url, api_key="x", max_retries=0) as client:
        names = [model.id for model in client.models.list()]
        assert client.models.retrieve("auto-cost").owned_by == "router"
    assert names == ["auto", "auto-quality", "auto-balanced", "auto-cost", "gpt-4o", "gpt-4o-mini"]


@pytest.mark.parametrize("name", ["auto", "auto-cost", "auto@0.9", "auto%400.9"])
def test_the_routing_names_are_models_that_can_be_retrieved(router, openai_server, name):
    assert httpx2.get(f"{router.url}/models/{name}").json()["id"] == name.replace("%40", "@")
    assert not openai_server.received


def test_other_models_are_described_by_the_upstream(router, openai_server):
    openai_server.enqueue(Reply(pieces=[b'{"id": "gpt-4o"}']))
    assert httpx2.get(router.url + "/models/gpt-4o").content == b'{"id": "gpt-4o"}'
    assert openai_server.received[0].target == "/v1/models/gpt-4o"


def test_a_decision_is_returned_and_nothing_is_sent(router, openai_server):
    body = {"model": "auto-quality", "messages": SUM}
    decision = httpx2.post(router.origin + "/router/decision", json=body).json()
    assert decision["target"] == 0.99
    assert decision["model"] in decision["quality"]
    assert decision["evidence"]["n"] > 0 and decision["reason"] and decision["policy_version"]
    assert max(decision["likely_types"], key=decision["likely_types"].get) == decision["question_type"]
    assert 0 < sum(decision["likely_types"].values()) <= 1
    assert not openai_server.received


def test_a_decision_shows_which_text_is_the_question(router):
    question = httpx2.post(router.origin + "/router/decision", json=WHOLE).json()["asked"]
    assert question.pop("material_characters") >= len(STORY) - 12
    assert question == {
        "question": "What is the weather in the city of Lindau?",
        "examples": 1,
        "tools_offered": 2,
        "tools_matching": 1,
        "turn": 2,
        "cached_model": None,
    }


def test_a_decision_shows_the_cached_model_of_a_long_conversation(router):
    long = [{"role": "user", "content": "Summarise this story: " + STORY * 8}, {"role": "assistant", "content": "So."}]
    body = {"messages": [*long, {"role": "user", "content": "What is the capital of France?"}]}
    decision = httpx2.post(router.origin + "/router/decision", json={"messages": long[:1]}).json()
    question = httpx2.post(router.origin + "/router/decision", json=body).json()["asked"]
    assert (question["question"], question["cached_model"]) == ("What is the capital of France?", decision["model"])


def test_a_decision_on_an_invalid_body_is_an_error_in_openais_format(router):
    response = httpx2.post(router.origin + "/router/decision", content=b"{}")
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")


def test_the_policy_is_shown_without_its_weights(router):
    document = httpx2.get(router.origin + "/router/policy").json()
    assert [model["name"] for model in document["models"]] == ["gpt-4o-mini", "gpt-4o"]
    assert document["targets"] and document["evidence"] and "weights" not in document


def test_health_and_readiness_need_no_key(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, api_keys=["rk-of-the-tests-1"])
    for path in ("/health", "/ready"):
        assert httpx2.get(router.origin + path).json()["policy"]


def test_only_known_keys_are_accepted(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, api_keys=["rk-of-the-tests-1", "rk-of-the-tests-2"])
    body = json.dumps({"model": "auto", "messages": SUM}).encode()
    for key, status in [
        ("rk-of-the-tests-1", 200),
        ("rk-of-the-tests-2", 200),
        ("rk-of-the-tests-3", 401),
        ("", 401),
        ("rk-of-the-tests-", 401),
    ]:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        answer = httpx2.post(router.url + "/chat/completions", content=body, headers=headers)
        assert answer.status_code == status, key
        if status == 401:
            assert answer.json()["error"]["code"] == "invalid_api_key"
    for path in ("/v1/models", "/v1/files", "/router/policy", "/v1/models/auto"):
        assert httpx2.get(router.origin + path).status_code == 401, path
    assert httpx2.post(router.origin + "/router/decision", content=body).status_code == 401
    assert len(router.records(2)) == 2  # unauthenticated requests write nothing to the disk


def test_the_clients_key_is_forwarded_if_the_setting_is_on(start_router, openai_server):
    router = start_router(openai_base_url=openai_server.url, openai_api_key="sk-own", forward_client_keys=True)
    for headers in ({"authorization": "Bearer sk-client"}, {"api-key": "sk-azure"}, {}):
        httpx2.post(router.url + "/chat/completions", json={"model": "x", "messages": []}, headers=headers)
    sent = [request.header("authorization") for request in openai_server.received]
    assert sent == ["Bearer sk-client", "Bearer sk-azure", "Bearer sk-own"]


def test_the_router_s_own_keys_are_never_forwarded():
    with pytest.raises(SettingsError, match="ROUTER_API_KEYS"):
        load(api_keys="rk-of-the-tests-1", forward_client_keys=True)


def test_several_credentials_are_rejected(router, openai_server):
    for second in ("authorization", "api-key"):
        headers = [("authorization", "Bearer one"), (second, "Bearer two")]
        answer = httpx2.post(router.url + "/chat/completions", json={"model": "x", "messages": []}, headers=headers)
        assert answer.status_code == 400 and "several credentials" in answer.json()["error"]["message"]
    assert not openai_server.received


def test_two_keys_cannot_share_a_trace(start_router, openai_server):
    keys = ("rk-of-the-tests-1", "rk-of-the-tests-2")
    router = start_router(openai_base_url=openai_server.url, api_keys=",".join(keys))
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for key in (*keys, keys[0]):
        headers = {"authorization": f"Bearer {key}", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        httpx2.post(router.url + "/chat/completions", json={"model": "x", "messages": []}, headers=headers)
        httpx2.get(router.url + "/files", headers=headers)
    ids = [(record["key_id"], record["trace_id"]) for record in router.records(6)]
    assert len(set(ids)) == 2 and len({trace_id for _, trace_id in ids}) == 2 and trace not in dict(ids).values()


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/metrics", "/router/usage", "/router/recent", "/router/nothing"]
)
def test_the_routers_own_responses_are_neither_cached_nor_sniffed(router, path):
    headers = httpx2.get(router.origin + path).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    error = httpx2.post(router.url + "/chat/completions", content=b"{").headers
    assert error["x-content-type-options"] == "nosniff"


def test_an_extra_slash_is_not_redirected(router):
    answer = httpx2.get(router.origin + "/metrics/", headers={"host": "localhost"})
    assert answer.status_code == 404 and "location" not in answer.headers


@pytest.mark.parametrize(
    "query", ["from=9999-12-31", "to=9999-12-31", "from=1600-01-01", "to=0001-01-01T00:00:00%2B23:00"]
)
def test_an_invalid_day_is_a_bad_request(router, query):
    assert httpx2.get(router.origin + "/router/usage?" + query).status_code == 400


def test_a_duplicate_group_is_a_bad_request(router):
    answer = httpx2.get(router.origin + "/router/usage?group_by=model,model")
    assert answer.status_code == 400 and "repeats" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/router/decision", "/router/feedback"])
def test_a_client_that_disconnects_within_its_body_causes_no_error(router, path, caplog):
    import socket

    with socket.create_connection(("127.0.0.1", router.port)) as connection:
        head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
        connection.sendall(head % path.encode())
        time.sleep(0.2)
    time.sleep(0.5)
    assert "Exception in ASGI" not in caplog.text and httpx2.get(router.origin + "/health").status_code == 200


class CannedUpstream(LoopbackServer):
    """Answers each request with the same bytes; closes a connection at the request after `max_requests`."""

    def __init__(self, answer: bytes, max_requests: int = 1000) -> None:
        self.answer, self.most, self.heard = answer, max_requests, 0
        super().__init__()

    async def serve(self, reader, writer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await self.converse(reader, writer)

    async def converse(self, reader, writer) -> None:
        for _ in range(self.most):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(re.search(rb"content-length: (\d+)|$", head)[1] or 0))
            self.heard += 1
            writer.write(self.answer)
        await reader.read(1)
        writer.transport.abort()


def test_a_small_body_is_sent_again_if_an_idle_connection_was_closed(start_router):
    with contextlib.closing(
        CannedUpstream(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", max_requests=1)
    ) as upstream:
        router = start_router(openai_base_url=f"http://127.0.0.1:{upstream.port}/v1")
        for _ in range(4):
            answer = httpx2.post(router.url + "/embeddings", json={"model": "e", "input": "x"})
            assert answer.status_code == 200, answer.text
        assert upstream.heard >= 4  # the router also requests its model list


@pytest.mark.parametrize("status", [b"600", b"999", b"000", b"099"])
def test_an_invalid_status_returns_502(start_router, caplog, status):
    sent_content = b"HTTP/1.1 %b Odd\r\ncontent-length: 2\r\n\r\nok" % status
    with contextlib.closing(CannedUpstream(sent_content)) as upstream:
        router = start_router(openai_base_url=f"http://127.0.0.1:{upstream.port}/v1", max_attempts=1)
        for answer in (
            httpx2.post(router.url + "/chat/completions", json={"model": "x", "messages": []}),
            httpx2.get(router.url + "/files"),
        ):
            assert answer.status_code == 502 and answer.json()["error"]["code"] == "upstream_unreachable"
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("status", [204, 304])
def test_the_length_of_a_missing_body_is_not_returned(start_router, caplog, status):
    sent_content = b"HTTP/1.1 %d Whatever\r\netag: a\r\ncontent-length: 5\r\n\r\n" % status
    with contextlib.closing(CannedUpstream(sent_content)) as upstream:
        router = start_router(openai_base_url=f"http://127.0.0.1:{upstream.port}/v1")
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        with httpx2.Client() as client:
            for _ in range(2):
                answer = client.get(router.url + "/files/a/content")
                assert (answer.status_code, answer.content, answer.headers["etag"]) == (status, b"", "a")
                assert "content-length" not in answer.headers
        record = router.records()[-1]
    assert (record["status"], record["outcome"]) == (status, "answered")
    assert "Exception in ASGI" not in caplog.text


def test_an_upstream_url_with_a_password_is_rejected_and_not_printed(start_router):
    with pytest.raises(SettingsError) as error:
        start_router(openai_base_url="https://ada:secret@example.org/v1")
    with pytest.raises(SettingsError) as raised:
        start_router(openai_base_url="ftp://ada:secret@example.org/v1")
    assert "secret" not in str(error.value) + str(raised.value)


def test_a_model_may_have_an_upstream_key_name_and_price_of_its_own(start_router, openai_server):
    model_settings = {"base_url": openai_server.url, "api_key": "sk-other", "name": "llama-3"}
    prices = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 2.0}
    router = start_router(
        openai_base_url="http://127.0.0.1:9/v1",
        openai_api_key="sk-secret",
        models={"local": {**model_settings, **prices}},
    )
    body = b'{"model":"local","messages":[]}'
    answer = httpx2.post(router.url + "/chat/completions", content=body)
    received = openai_server.received[0]
    assert received.body == b'{"model":"llama-3","messages":[]}'
    assert received.header("authorization") == "Bearer sk-other"
    assert answer.headers["x-router-model"] == "local"
    assert router.records()[0]["cost_usd"] == pytest.approx((12 * 1 + 3 * 2) / 1e6)


def test_the_default_key_is_sent_to_no_other_upstream(start_router, openai_server):
    router = start_router(openai_api_key="sk-secret", models={"local": {"base_url": openai_server.url}})
    httpx2.post(router.url + "/chat/completions", content=b'{"model":"local","messages":[]}')
    assert openai_server.received[0].header("authorization") is None


def test_only_loopback_is_served_without_keys():
    result = command("serve", "--host", "0.0.0.0", "--port", "0")
    assert result.returncode == 2
    assert "ROUTER_API_KEYS" in result.stderr and result.stderr.count("\n") == 1


def test_an_invalid_policy_is_a_one_line_error_with_its_file(tmp_path: Path):
    for name in ("policy.json", "weights.npz"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    (tmp_path / "policy.json").write_text('{"format": 1,')
    for arguments in (["serve", "--port", "0"], ["decide", "hi"]):
        result = command(*arguments, ROUTER_POLICY=str(tmp_path), ROUTER_HOME=str(tmp_path / "home"))
        assert result.returncode == 2
        assert result.stderr.startswith(f"router: {tmp_path / 'policy.json'}: ") and result.stderr.count("\n") == 1


def test_a_blank_variable_is_ignored(monkeypatch, tmp_path):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ROUTER_POLICY", "ROUTER_USAGE_DATABASE", "ROUTER_API_KEYS"):
        monkeypatch.setenv(name, "")
    settings = load(home=tmp_path)
    assert settings.simulated and settings.policy is None and settings.usage_url.startswith("sqlite:///")


def test_an_invalid_setting_is_a_one_line_error_without_its_value():
    result = command("decide", "hi", ROUTER_DEFAULT_TARGET="7")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "DEFAULT_TARGET" in result.stderr
    result = command("decide", "hi", ROUTER_MODELS='{"m": {"api_key": "sk-secret", "typo": 1}}')
    assert result.returncode == 2 and "sk-secret" not in result.stderr


def test_a_decision_is_explained_in_the_terminal(tmp_path: Path):
    result = command("decide", "What is 2 + 2?", "--target", "0.95", COLUMNS="160")
    assert result.returncode == 0, result.stderr
    assert "gpt-4o-mini" in result.stdout and "because" in result.stdout and "policy" in result.stdout
    assert command("decide", "hi", "--target", "7").stderr.count("\n") == 1


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a policy with an expected promise; yields folder and target."""
    policy = expected_policy()
    folder = tmp_path_factory.mktemp("expected")
    write_policy(policy, folder)
    rules = [rule for rule in policy.rules.targets if rule.falls_short is not None]
    return folder, max(rule.target for rule in rules)


def test_an_expected_target_is_never_called_certified(start_router, openai_server, expected):
    folder, target = expected
    result = command("decide", "What is 2 + 2?", "--policy", str(folder), "--target", f"{target:g}", COLUMNS="160")
    assert f"target {target:g} (expected)" in result.stdout and "certified" not in result.stdout, result.stderr
    router = start_router(openai_base_url=openai_server.url, openai_api_key="sk-upstream", policy=str(folder))
    for name, promise in ((f"auto@{target:g}", "expected"), ("auto@1", "none")):
        body = {"model": name, "messages": SUM}
        assert httpx2.post(router.origin + "/router/decision", json=body).json()["promise"] == promise
        assert httpx2.post(router.url + "/chat/completions", json=body).headers["x-router-promise"] == promise


def parse_explanation(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The lines on the request as read, by label."""
    assert result.returncode == 0, result.stderr
    lines = (line.strip().partition("  ") for line in result.stdout.splitlines()[:6])
    return {name: value.strip() for name, _, value in lines}


def test_a_whole_request_is_explained_in_the_terminal(tmp_path: Path):
    file = tmp_path / "body.json"
    file.write_text(json.dumps(WHOLE))
    result = command("decide", "--request", str(file), COLUMNS="200")
    document = parse_explanation(result)
    assert re.fullmatch(r"8\d\d|9\d\d", document.pop("material").removesuffix(" characters"))
    assert document == {
        "question": "What is the weather in the city of Lindau?",
        "examples": "1",
        "tools": "1 of 2 match: get_weather",
        "turn": "2",
        "cache": "empty for every model",
    }
    assert " because " in result.stdout and "expected quality" in result.stdout
    assert "target 0.95 " in result.stdout  # as configured for its model
    assert "target 0.9 " in command("decide", "--request", str(file), "--target", "0.9", COLUMNS="200").stdout
    assert command("decide", f"@{file}", COLUMNS="200").stdout == result.stdout
    assert command("decide", "--request", "-", stdin=json.dumps(WHOLE), COLUMNS="200").stdout == result.stdout


@pytest.mark.parametrize("body", [{"input": "Who [bold]wrote Faust?"}, {"prompt": "Who [bold]wrote Faust?"}])
def test_requests_to_every_endpoint_are_explained_in_the_terminal(body):
    result = command("decide", "--request", "-", stdin=json.dumps(body), COLUMNS="200")
    assert parse_explanation(result)["question"] == "Who [bold]wrote Faust?"


def test_a_long_question_is_shortened_in_the_terminal():
    document = parse_explanation(command("decide", "Name every\nriver of " + "Asia and " * 100, COLUMNS="300"))[
        "question"
    ]
    assert len(document) == 200 and document.startswith("Name every river of Asia") and document.endswith("…")


def test_an_invalid_request_is_a_one_line_error(tmp_path: Path):
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_bytes(b'{"messages": "\xff"}')
    missing = str(tmp_path / "missing.json")
    for arguments in (
        ["--request", missing],
        [f"@{missing}"],
        ["--request", str(tmp_path / "list.json")],
        ["--request", str(tmp_path / "broken.json")],
        ["hi", "--request", missing],
        [],
    ):
        result = command("decide", *arguments)
        assert (result.returncode, result.stderr.count("\n"), result.stdout) == (2, 1, ""), arguments


def test_an_uncertain_type_is_explained_with_alternatives():
    result = command("decide", "Schedule five one-hour meetings so that nobody has two at once.", COLUMNS="200")
    assert result.returncode == 0, result.stderr
    others = next(line for line in result.stdout.splitlines() if line.startswith("other likely types: "))
    assert re.search(r"\w+/\w+ \d+% \((measured|published|none)\)", others), others


def test_errors_of_the_model_list_are_returned_unchanged(router, openai_server):
    openai_server.models = json_reply({"error": {"message": "no"}}, 401)
    answer = httpx2.get(router.url + "/models")
    assert (answer.status_code, answer.json()) == (401, {"error": {"message": "no"}})
