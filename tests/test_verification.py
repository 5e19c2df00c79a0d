"""Verification by form: invalid answers are escalated, valid ones are returned, and both calls are recorded."""

import json
import threading
import time

import httpx2
import openai
import pytest
from answer_cases import BROKEN, HERE, OBJECT, QUESTION, TOOLS, VALID, Case, chat, reply, responses, tool_calls
from answer_wire import build_reply
from fake_openai import chat_events, completion, json_reply, stream_reply
from running import RunningRouter
from synthetic_records import make_record
from waiting import until

from router.client.keyfile import Limits, Owner
from router.limits.account import Account
from router.limits.booking import hold
from router.limits.bound import Bound, Most
from router.planning.api_formats import CHAT
from router.planning.plan import make_plan, read_request
from router.verifying.code import check_code
from router.verifying.schemas import conforms
from router.wire.skeleton import Skeleton

SAID = {"chat": "chat/completions", "responses": "responses", "completions": "completions"}
CHEAP, STRONG = "gpt-4o-mini", "gpt-4o"
STRONG_ANSWER = {
    "chat": chat("strong", "", reply("Strong.")),
    "responses": responses("strong", "", [{"type": "message", "role": "assistant", "content": [
        {"type": "output_text", "text": "Strong.", "annotations": []}]}]),
    "completions": Case("strong", "", "completions", {}, [{"text": "Strong."}]),
}  # fmt: skip
FORM = {"x-router-verify": "form"}
MINI_USD = (12 * 0.15 + 20 * 0.6) / 1e6
STRONG_USD = (12 * 2.5 + 20 * 10) / 1e6


@pytest.fixture(scope="module")
def upstream():
    from fake_openai import FakeOpenAI

    server = FakeOpenAI()
    yield server
    server.close()


@pytest.fixture(scope="module")
def verifying(upstream, tmp_path_factory):
    home = tmp_path_factory.mktemp("verifying")
    router = RunningRouter(home, openai_base_url=upstream.url, openai_api_key="sk-upstream", verify_hold_tokens=64)
    yield router
    router.close()


@pytest.fixture
def ask(verifying, upstream):
    """A function that requests verification by format with queued replies; returns the answer and the called models."""

    def ask_case(case: Case, *replies, **headers: str):
        upstream.enqueue(*replies)
        before, body = len(upstream.received), case.request("auto-cost")
        answer = httpx2.post(f"{verifying.url}/{SAID[case.api]}", json=body, headers=FORM | headers, timeout=30)
        return answer, [received.json["model"] for received in upstream.received[before:]]

    return ask_case


def both(case: Case, *, streamed: bool):
    return build_reply(case, CHEAP, streamed=streamed), build_reply(STRONG_ANSWER[case.api], STRONG, streamed=streamed)


def as_asked(case: Case, *, streamed: bool) -> Case:
    return Case(case.name, case.fault, case.api, {**case.body, "stream": True} if streamed else case.body)


def test_there_are_sixty_cases_of_each_kind():
    assert len(BROKEN) >= 60 and len(VALID) >= 60
    names = [(case.name, case.fault) for case in (*BROKEN, *VALID)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_an_invalid_answer_is_escalated(ask, case, streamed):
    answer, models = ask(as_asked(case, streamed=streamed), *both(case, streamed=streamed))
    assert (answer.status_code, answer.headers["x-router-escalated"]) == (200, case.fault)
    assert models == [CHEAP, STRONG]
    assert answer.headers["x-router-model"] == STRONG and answer.headers["x-router-reason"] == "escalated"
    assert "Str" in answer.text and CHEAP not in answer.text


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_a_valid_answer_is_returned_unchanged(ask, case, streamed):
    say = build_reply(case, CHEAP, streamed=streamed)
    answer, models = ask(as_asked(case, streamed=streamed), say)
    assert models == [CHEAP]
    assert answer.headers["x-router-verified"] == "form" and "x-router-escalated" not in answer.headers
    passed = b"".join(piece for piece in say.pieces if case.api == "responses" or b'"choices": []' not in piece)
    assert answer.content == passed if streamed else answer.content == say.pieces[0]


def test_both_calls_are_recorded_with_their_cost(ask, verifying):
    case = BROKEN[0]
    ask(case, *both(case, streamed=False))
    record = verifying.records()[-1]
    assert (record["verification"], record["finding"], record["reason"]) == ("escalated", "empty", "escalated")
    assert (record["model"], record["escalated_from"], record["attempts"]) == (STRONG, CHEAP, 2)
    assert record["cost_usd"] == pytest.approx(STRONG_USD)
    (first,) = record["wasted"]
    assert first["model"] == CHEAP and first["cost_usd"] == pytest.approx(MINI_USD)
    assert first["usage"]["output_tokens"] == 20


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_the_first_answer_is_returned_if_the_strong_model_does_not_answer(ask, verifying, streamed):
    case = chat("prose", "not_json", reply("Tom has 8."), OBJECT)
    say = build_reply(case, CHEAP, streamed=streamed)
    error = json_reply({"error": {"message": "no", "type": "invalid_request_error"}}, 400)
    answer, models = ask(as_asked(case, streamed=streamed), say, error)
    assert (answer.status_code, models) == (200, [CHEAP, STRONG])
    assert answer.headers["x-router-model"] == CHEAP and answer.headers["x-router-finding"] == "not_json"
    assert "Tom" in answer.text
    record = verifying.records()[-1]
    assert (record["verification"], record["wasted"]) == ("kept", [])
    assert record["cost_usd"] == pytest.approx(MINI_USD)


def test_an_interrupted_stream_of_the_strong_model_is_not_an_answer(ask, verifying):
    case = chat("prose", "not_json", reply("Tom has 8."), OBJECT)
    broken = stream_reply(*chat_events(STRONG, ["a"])[:2], end="early")
    answer, _ = ask(as_asked(case, streamed=True), build_reply(case, CHEAP, streamed=True), broken)
    assert answer.headers["x-router-model"] == CHEAP and answer.text.endswith("data: [DONE]\n\n")
    assert verifying.records()[-1]["wasted"] == [{"model": STRONG, "usage": None, "cost_usd": None}]


def test_a_stream_that_is_interrupted_while_held_is_escalated(ask, verifying):
    case = Case("", "", "chat", {"stream": True})
    answer, models = ask(case, stream_reply(*chat_events(CHEAP, ["a"])[:2], end="early"), both(case, streamed=True)[1])
    assert (answer.headers["x-router-escalated"], models) == ("interrupted", [CHEAP, STRONG])
    assert verifying.records()[-1]["wasted"] == [{"model": CHEAP, "usage": None, "cost_usd": None}]


def test_prose_is_forwarded_after_its_first_tokens_and_checked_at_its_end(ask, verifying):
    said_slowly = stream_reply(*chat_events(CHEAP, ["word " * 80, "\n```python\nx = (\n```\n"], usage=True), gap=0.05)
    answer, models = ask(Case("", "", "chat", {"stream": True}), said_slowly)
    assert models == [CHEAP] and "x = (" in answer.text
    record = verifying.records()[-1]
    assert (record["verification"], record["finding"], record["escalated_from"]) == ("late", "python_syntax", "")


def test_the_first_bytes_of_prose_are_sent_before_its_end(verifying, upstream):
    upstream.enqueue(stream_reply(*chat_events(CHEAP, ["word " * 60] * 3), gap=0.3))
    body = Case("", "", "chat", {"stream": True}).request("auto-cost")
    start = time.monotonic()
    with httpx2.stream("POST", f"{verifying.url}/chat/completions", json=body, headers=FORM) as answer:
        pieces = [(time.monotonic() - start, piece) for piece in answer.iter_raw()]
    first = next(received_at for received_at, piece in pieces if b"word" in piece)
    assert pieces[-1][0] - first > 0.4


def test_held_streams_are_kept_alive(start_router, openai_server):
    router = start_router(
        openai_base_url=openai_server.url, openai_api_key="sk-x", keep_alive_seconds=0.1, verify="form"
    )
    openai_server.enqueue(
        stream_reply(*chat_events(CHEAP, ["Tom has 8."]), gap=0.2), stream_reply(*chat_events(STRONG, ["{}"]))
    )
    body = Case("", "", "chat", {"stream": True, **OBJECT}).request("auto-cost")
    answer = httpx2.post(router.url + "/chat/completions", json=body)
    assert answer.text.startswith(": keep-alive\n\n") and '"{}"' in answer.text and "Tom" not in answer.text


def test_a_held_stream_reserves_memory_and_releases_it(verifying, upstream):
    admission = verifying.app.worker.admission
    upstream.enqueue(
        stream_reply(*chat_events(CHEAP, ["x" * 50_000] * 8), gap=0.05), stream_reply(*chat_events(STRONG, ["{}"]))
    )
    body = Case("", "", "chat", {"stream": True, **OBJECT}).request("auto-cost+verify")
    peak = 0
    thread = threading.Thread(target=httpx2.post, args=(f"{verifying.url}/chat/completions",), kwargs={"json": body})
    thread.start()
    while thread.is_alive():
        peak = max(peak, admission.reserved_bytes)
        time.sleep(0.01)
    thread.join()
    assert peak > 250_000
    assert until(lambda: admission.reserved_bytes == 0)


@pytest.mark.parametrize(
    ("model", "header", "setting", "looked_at"),
    [
        ("auto-cost", None, "off", False),
        ("auto-cost+verify", None, "off", True),
        ("auto@0.95+verify", None, "off", True),
        ("auto-cost", "form", "off", True),
        ("auto-cost", "content", "off", True),
        ("auto-cost", None, "content", True),
        ("auto-cost", None, "form", True),
        ("auto-cost", "off", "form", False),
        ("auto-cost+verify", "off", "off", False),
        ("gpt-4o-mini", "form", "form", False),
    ],
)
def test_verification_is_opt_in(start_router, openai_server, model, header, setting, looked_at):
    router = start_router(openai_base_url=openai_server.url, openai_api_key="sk-x", verify=setting)
    openai_server.enqueue(json_reply(completion(CHEAP, "")))
    headers = {} if header is None else {"x-router-verify": header}
    body = Case("", "", "chat", {}).request(model)
    answer = httpx2.post(router.url + "/chat/completions", json=body, headers=headers)
    assert ("x-router-escalated" in answer.headers) == looked_at
    assert router.records()[0]["verification"] == ("escalated" if looked_at else "")


def test_an_unknown_verification_is_rejected(ask):
    answer, models = ask(Case("", "", "chat", {}), **{"x-router-verify": "twice"})
    assert (answer.status_code, models) == (400, [])
    assert answer.json()["error"]["code"] == "invalid_verify"


@pytest.mark.parametrize(
    "more", [{"background": True}, {"conversation": "conv_1"}, {"tools": [{"type": "mcp", "server_label": "x"}]}]
)
def test_requests_with_side_effects_are_not_repeated(ask, more):
    case = responses("empty", "", [], more)
    answer, models = ask(case, build_reply(case, CHEAP, streamed=False))
    assert models == [CHEAP] and "x-router-verified" not in answer.headers


def test_the_official_client_gets_the_valid_answer(verifying, upstream):
    with openai.OpenAI(base_url=verifying.url, api_key="sk-x", max_retries=0) as client:
        question = [{"role": "user", "content": QUESTION}]
        broken = tool_calls(("wether", HERE))
        good = chat("good", "", tool_calls(("weather", HERE)), TOOLS)
        for streamed in (False, True):
            upstream.enqueue(build_reply(chat("", "", broken, TOOLS), CHEAP, streamed=streamed))
            upstream.enqueue(build_reply(good, STRONG, streamed=streamed))
        completion = client.chat.completions.create(model="auto-cost+verify", messages=question, tools=TOOLS["tools"])
        assert completion.model == STRONG and completion.choices[0].message.tool_calls[0].function.name == "weather"
        with client.chat.completions.stream(
            model="auto-cost+verify", messages=question, tools=TOOLS["tools"]
        ) as stream:
            tool_call = stream.get_final_completion().choices[0].message.tool_calls[0]
        assert json.loads(tool_call.function.arguments) == {"city": "Paris"}
        case = responses("", "", [])
        for streamed in (False, True):
            upstream.enqueue(*both(case, streamed=streamed))
        assert client.responses.create(model="auto-cost+verify", input=QUESTION).output_text == "Strong."
        with client.responses.stream(model="auto-cost+verify", input=QUESTION) as stream:
            assert stream.get_final_response().output_text == "Strong."


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^(a+)+$"},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"allOf": [{"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"}]},
        {"not": {"pattern": "^(a+)+$"}},
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {
            "$ref": "#/$defs/0",
            "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(60)} | {"60": {}},
        },
        {"anyOf": [{"type": "integer"}] * 1500},
        {"type": 5},
        {"required": "ab"},
    ],
)
def test_a_hostile_schema_takes_little_time_and_fetches_nothing(schema):
    start = time.thread_time()
    value = {"a" * 40 + "!": 1} if "patternProperties" in schema else "a" * 40 + "!"
    assert conforms(value, json.dumps(schema).encode()) or schema.keys() & {"anyOf"}
    assert time.thread_time() - start < 2


@pytest.mark.parametrize(
    "code", ["(" * 30_000, "-" * 30_000 + "1", "lambda:" * 4_000 + "1", "a" + "[0]" * 10_000, "\0", "```\n" * 8_000]
)
def test_code_that_is_too_deep_for_the_parser_is_not_checked(code):
    check_code(f"```python\n{code}\n```")


def test_a_key_pays_for_both_calls():
    now = time.time_ns()
    account = Account(Owner("key", "ada"), now)
    account.limit(Limits(usd_a_day=10.0, tokens_a_minute=1000))
    booking = hold([account], Most(2.0, 500, 500), now)
    first = {"model": CHEAP, "usage": {"input_tokens": 12, "output_tokens": 20}, "cost_usd": 0.25}
    record = make_record(0, model=STRONG, cost_usd=1.0, usage={"input_tokens": 12, "output_tokens": 8}, wasted=[first])
    booking.settle(record)
    assert (account.day.spent_usd, account.day.held_usd, record.kept_usd) == (1.25, 0.0, 0.0)
    assert dict(booking.rates())[b"x-ratelimit-remaining-tokens"] == b"948"


def test_twice_the_cost_of_an_answer_is_held(verifying):
    router, peak = verifying.app.worker, []
    for model in ("auto-cost", "auto-cost+verify"):
        body = json.dumps(Case("", "", "chat", {"max_tokens": 100}).request(model)).encode()
        request = read_request(body, CHAT)
        plan = make_plan(CHAT, router.serving, router.adapter, (), request, {})
        skeleton = Skeleton(body, (), ())
        bound = Bound(router.prices, router.adapter)
        peak.append(bound.most(plan, CHAT, skeleton, router.serving.policy.rules.models, time.time_ns(), priced=True))
    assert peak[1].usd == pytest.approx(2 * peak[0].usd, rel=0.1)
