"""Requests for `auto` are adapted to the model that answers, and successors replace retired models."""

import json

import httpx2
import openai
import pytest
import refusals
from fake_openai import Reply, json_reply, stream_reply
from refusing_openai import RefusingOpenAI
from running import RunningRouter

from router.adaptation.adapter import MAX_RULES

EASY = "Tom has 3 apples and buys 5 more. How many apples does Tom have now?"
CHAT, RESPONSES = "/chat/completions", "/responses"
PAIRS = [("gpt-6-luna", "gpt-6-sol"), ("gpt-6-luna:none", "gpt-6-sol:none"), ("gpt-6-luna:low", "gpt-6-sol:low")]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
RESPONSE_TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
LOGPROBS = "message.output_text.logprobs"
DEVELOPER = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": EASY}]
DROPPED_EFFORT_NONE = {"presence_penalty", "frequency_penalty", "logit_bias"}


def chat(**fields):
    return {"model": "auto", "messages": [{"role": "user", "content": EASY}], **fields}


def response(**fields):
    return {"model": "auto", "input": EASY, **fields}


def ask(router, body, path=None, **headers):
    path = path or (CHAT if "messages" in body else RESPONSES)
    http_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.post(router.url + path, json=body, headers=http_headers, timeout=30)


def unsupported(name, instead="", status=400):
    message = f"Unsupported parameter: '{name}' is not supported with this model."
    message += f" Use '{instead}' instead." if instead else ""
    error = {"message": message, "type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}
    return json_reply({"error": error}, status)


def error(code, status=400, message="No."):
    return json_reply({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status)


def count_requests(model, server):
    return [body["model"] for body in server.bodies].count(model)


@pytest.fixture
def start_pair(start_router, refusing_openai):
    """A function that starts a router with a pair of models in front of the refusing OpenAI."""

    def start(*pair: str, **settings) -> RunningRouter:
        return start_router(openai_base_url=refusing_openai.url, openai_api_key="sk-upstream", pair=pair, **settings)

    return start


@pytest.fixture
def new_router(start_pair):
    """A router for two models of which only the price is known."""
    models = {
        "new-cheap": {"usd_per_million_input_tokens": 0.1, "usd_per_million_output_tokens": 0.4},
        "new-strong": {"usd_per_million_input_tokens": 2, "usd_per_million_output_tokens": 8},
    }
    return start_pair("new-cheap", "new-strong", models=models)


@pytest.fixture
def gpt5_refusals(monkeypatch):
    """Both models exist and refuse the same requests as gpt-5."""
    for name in ("new-cheap", "new-strong"):
        monkeypatch.setitem(refusals.MODELS, name, refusals.MODELS["gpt-5"])
        monkeypatch.setitem(refusals.SNAPSHOTS, name, "gpt-5")


# known refusals


CHATS = {
    "max_tokens": {"max_tokens": 50},
    "a limit beyond the model's": {"max_tokens": 900_000},
    "temperature": {"temperature": 0},
    "temperature of a client's default": {"temperature": 1},
    "top_p": {"top_p": 0.5},
    "stop": {"stop": ["END"]},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0},
    "logit_bias": {"logit_bias": {"50256": -100}},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "tools": {"tools": [TOOL], "parallel_tool_calls": False},
    "tools and an effort": {"tools": [TOOL], "reasoning_effort": "low"},
    "a schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
    "effort": {"reasoning_effort": "minimal"},
    "no effort in particular": {"reasoning_effort": None},
    "the most effort": {"reasoning_effort": "max"},
    "an effort of nobody's": {"reasoning_effort": "bogus"},
    "a developer": {"messages": DEVELOPER},
    "everything": {
        "max_tokens": 50,
        "temperature": 0,
        "top_p": 0.5,
        "stop": "x",
        "presence_penalty": 1,
        "frequency_penalty": 1,
        "logprobs": True,
        "tools": [TOOL],
        "parallel_tool_calls": True,
        "reasoning_effort": "minimal",
        "messages": DEVELOPER,
        "seed": 1,
        "user": "ada",
    },
}
ANSWERS = {
    "temperature": {"temperature": 0},
    "temperature of a client's default": {"temperature": 1},
    "top_p": {"top_p": 0.5},
    "a limit beyond the model's": {"max_output_tokens": 900_000},
    "logprobs": {"include": [LOGPROBS, "reasoning.encrypted_content"]},
    "tools": {"tools": [RESPONSE_TOOL], "reasoning": {"effort": "low"}, "parallel_tool_calls": False},
    "a schema": {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
    "effort": {"reasoning": {"effort": "minimal", "summary": "auto"}},
    "no effort in particular": {"reasoning": {"effort": None}},
    "an effort of nobody's": {"reasoning": {"effort": "bogus"}},
    "a developer": {"input": DEVELOPER},
    "everything": {
        "max_output_tokens": 50,
        "temperature": 0,
        "top_p": 0.5,
        "include": [LOGPROBS],
        "tools": [RESPONSE_TOOL],
        "reasoning": {"effort": "minimal"},
        "input": DEVELOPER,
        "user": "ada",
    },
}
REQUESTS = [(chat, CHATS[name], name) for name in CHATS] + [(response, ANSWERS[name], name) for name in ANSWERS]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_known_refusals_never_reach_a_client(start_pair, refusing_openai, pair):
    router = start_pair(*pair)
    request_count = 0
    for build_body, fields, name in REQUESTS:
        for streamed in ({}, {"stream": True}):
            body = build_body(**fields, **streamed)
            count_before = len(refusing_openai.bodies)
            answer = ask(router, body)
            context = (build_body.__name__, name, streamed, answer.text)
            assert answer.status_code == 200, context
            assert refusing_openai.refusals == [], context
            (sent_body,) = refusing_openai.bodies[count_before:]
            reported = answer.headers.get("x-router-adapted", "")
            assert_only_reported_changes(body, sent_body, reported, answer.headers["x-router-model"])
            request_count += 1
    reported = [record["adapted"] for record in router.records(request_count)]
    assert len(reported) == request_count and any(reported)


def assert_only_reported_changes(body, sent_body, reported, model):
    """Assert that `reported` names exactly the fields that differ from the client's body."""
    sent_body, body = dict(sent_body), dict(body)
    assert sent_body.pop("model") == model.partition(":")[0]
    del body["model"]
    if body.get("stream") and "messages" in body:
        assert sent_body.pop("stream_options") == {"include_usage": True}
    changed = {name for name in {*sent_body, *body} if sent_body.get(name, "absent") != body.get(name, "absent")}
    names = set()
    for change in filter(None, reported.split("; ")):
        if change.startswith("reasoning effort"):
            names.add("reasoning_effort" if "messages" in body else "reasoning")
        else:
            names |= {change.split(" ")[0], change.split(" as ")[-1].split(" ")[0]} & {*sent_body, *body}
    assert changed == names, reported
    assert [name for name in sent_body if name in body] == [name for name in body if name in sent_body]


@pytest.mark.parametrize("streamed", [False, True])
def test_changes_are_reported_to_the_client_and_in_the_journal(start_pair, refusing_openai, streamed):
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    answer = ask(router, chat(max_tokens=50, temperature=0, stream=streamed))
    assert answer.headers["x-router-adapted"] == "max_tokens as max_completion_tokens; temperature dropped"
    (record,) = router.records()
    assert record["adapted"] == "max_tokens as max_completion_tokens; temperature dropped"
    assert record["request"]["max_tokens"] == 50
    assert "x-router-adapted" not in ask(router, chat()).headers


def test_the_effort_in_a_policys_model_name_is_set_and_reported(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna:low", "gpt-6-sol:low")
    for body in (chat(), chat(reasoning_effort="high"), response(), response(reasoning={"summary": "auto"})):
        answer = ask(router, body)
        assert answer.headers["x-router-model"] in ("gpt-6-luna:low", "gpt-6-sol:low")
        assert answer.headers["x-router-adapted"] == "reasoning effort low"
    efforts = [body.get("reasoning_effort") or body["reasoning"]["effort"] for body in refusing_openai.bodies]
    assert efforts == ["low"] * 4
    assert {body["model"] for body in refusing_openai.bodies} <= {"gpt-6-luna", "gpt-6-sol"}
    assert all(record["cost_usd"] > 0 for record in router.records(4))


def test_the_sent_bytes_differ_from_the_clients_by_the_edits_only(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    body = (
        b'{ "messages":[ {"role":"user","content":"caf\\u00e9 2+2?"}], "max_tokens" : 50 ,"x":1.10,"temperature":0.0,\n'
    )
    body += b'"model" :"auto","new_field":{"max_tokens":[1e400]} }'
    answer = httpx2.post(router.url + CHAT, content=body)
    sent = body.replace(b'"max_tokens" : 50', b'"max_completion_tokens" : 50').replace(b',"temperature":0.0', b"")
    assert refusing_openai.received[-1].body == sent.replace(b"auto", answer.headers["x-router-model"].encode())


def test_an_attachment_of_a_megabyte_is_unchanged(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    url = "data:image/png;base64," + "A" * 2**20
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"temperature": 0, "messages": [{"role": "user", "content": parts}], "max_tokens": 9, "model": "auto"}
    answer = ask(router, body)
    assert answer.status_code == 200
    (sent_body,) = refusing_openai.bodies
    assert sent_body.pop("model") == answer.headers["x-router-model"]
    assert sent_body == {"messages": body["messages"], "max_completion_tokens": 9}


def test_requests_of_the_official_client_are_adapted(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    with openai.OpenAI(base_url=router.url, api_key="sk-client", max_retries=0) as client:
        completion = client.chat.completions.create(model="auto", messages=DEVELOPER, max_tokens=20, temperature=0)
        stream = client.chat.completions.create(model="auto", messages=DEVELOPER, stop=["x"], top_p=0.5, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        answer = client.responses.create(model="auto", input=EASY, temperature=0, reasoning={"effort": "minimal"})
    assert completion.choices[0].message.content == text == answer.output_text
    assert refusing_openai.refusals == []


@pytest.mark.parametrize("tools", [[], None])
def test_an_empty_list_of_tools_does_not_disable_reasoning(start_pair, refusing_openai, tools):
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    assert "x-router-adapted" not in ask(router, chat(tools=tools)).headers
    assert "reasoning_effort" not in refusing_openai.bodies[0]


# eligible models


def test_models_that_cannot_fulfil_the_request_are_not_chosen(start_pair, refusing_openai):
    """gpt-6-sol returns logprobs only without reasoning, gpt-4o-mini always."""
    router = start_pair("gpt-4o-mini", "gpt-6-sol:low")
    answer = ask(router, chat(logprobs=True))
    assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == ("gpt-4o-mini", "parameters")
    assert refusing_openai.bodies[0]["logprobs"] is True


def test_requests_for_logprobs_disable_reasoning(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    answer = ask(router, chat(logprobs=True, top_logprobs=2, temperature=0))
    assert answer.headers["x-router-reason"] != "parameters"
    assert answer.headers["x-router-adapted"] == "reasoning effort none"
    sent_body = refusing_openai.bodies[0]
    assert (sent_body["logprobs"], sent_body["top_logprobs"], sent_body["temperature"]) == (True, 2, 0)
    assert refusing_openai.refusals == []


def test_a_model_with_a_reasoning_effort_is_not_chosen_for_tools(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna:none", "gpt-6-sol:low")
    answer = ask(router, chat(tools=[TOOL]))
    assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == ("gpt-6-luna:none", "tools")
    assert refusing_openai.bodies[0]["reasoning_effort"] == "none"


def test_without_adaptation_models_that_require_it_are_not_eligible(start_pair, refusing_openai):
    router = start_pair("gpt-4o-mini", "gpt-6-sol", adapt=False)
    for fields, reason in (({"max_tokens": 9}, "parameters"), ({"tools": [TOOL]}, "parameters")):
        answer = ask(router, chat(**fields))
        assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == ("gpt-4o-mini", reason)
        assert "x-router-adapted" not in answer.headers
    assert refusing_openai.refusals == []


def test_without_adaptation_the_refusal_is_forwarded_if_no_model_is_eligible(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna", "gpt-6-sol", adapt=False)
    for body in (chat(max_tokens=9, temperature=0), response(temperature=0), chat(reasoning_effort="minimal")):
        answer = ask(router, body)
        assert answer.status_code == 400
        assert answer.json() == refusing_openai.refusals[-1].body
        assert answer.headers["x-router-reason"] == "parameters"
        assert "x-router-adapted" not in answer.headers
        assert refusing_openai.bodies[-1] == {**body, "model": "gpt-6-sol"}
    assert len(refusing_openai.bodies) == 3


def test_without_adaptation_the_effort_in_a_policys_model_name_is_still_set(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna:low", "gpt-6-sol:low", adapt=False)
    assert ask(router, chat()).headers["x-router-adapted"] == "reasoning effort low"
    response = ask(router, chat(temperature=0))
    assert (response.status_code, response.headers["x-router-adapted"]) == (400, "reasoning effort low")
    assert (refusing_openai.bodies[-1]["temperature"], refusing_openai.bodies[-1]["reasoning_effort"]) == (0, "low")
    assert ask(router, chat(tools=[TOOL])).headers["x-router-reason"] == "tools"


@pytest.mark.parametrize("named_in", ["name", "header"])
def test_requests_for_a_named_model_are_forwarded_unchanged(start_pair, refusing_openai, named_in):
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    body = chat(max_tokens=9, temperature=0) | ({"model": "gpt-6-luna"} if named_in == "name" else {})
    answer = ask(router, body, **({"x_router_model": "gpt-6-luna"} if named_in == "header" else {}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "max_tokens"
    assert refusing_openai.bodies == [{**body, "model": "gpt-6-luna"}]
    assert "x-router-adapted" not in answer.headers
    assert router.app.worker.adapter.lessons == []


# learning from refusals


def test_refusals_are_learnt(new_router, gpt5_refusals, refusing_openai):
    body = chat(max_tokens=9)
    first, second = ask(new_router, body), ask(new_router, body)
    assert [first.status_code, second.status_code] == [200, 200]
    assert first.headers["x-router-adapted"] == second.headers["x-router-adapted"]
    assert len(refusing_openai.refusals) == 1
    assert [body.get("max_completion_tokens") for body in refusing_openai.bodies] == [None, 9, 9]
    model = first.headers["x-router-model"]
    (lesson,) = new_router.app.worker.adapter.describe_lessons()
    assert (lesson["model"], lesson["parameter"], lesson["done"]) == (
        model,
        "max_tokens",
        "sent as max_completion_tokens",
    )
    assert [record["adapted"] for record in new_router.records(2)] == [first.headers["x-router-adapted"]] * 2


@pytest.mark.parametrize("streamed", [False, True])
def test_several_refusals_are_resolved_in_one_request(new_router, gpt5_refusals, refusing_openai, streamed):
    body = chat(max_tokens=9, temperature=0, stop="x", reasoning_effort="none", stream=streamed)
    answer = ask(new_router, body)
    assert answer.status_code == 200
    assert [refusal.row for refusal in refusing_openai.refusals] == [
        "max_tokens",
        "temperature",
        "stop",
        "reasoning_effort of gpt-5",
    ]
    sent_body = refusing_openai.bodies[-1]
    assert (sent_body["max_completion_tokens"], sent_body["reasoning_effort"]) == (9, "minimal")
    assert not {"temperature", "stop", "max_tokens"} & set(sent_body)
    assert ask(new_router, body).status_code == 200
    assert len(refusing_openai.refusals) == 4


def test_refusals_on_the_responses_api_are_learnt(new_router, gpt5_refusals, refusing_openai):
    body = response(temperature=0, top_p=0.5, reasoning={"effort": "max", "summary": "auto"})
    assert [ask(new_router, body).status_code, ask(new_router, body).status_code] == [200, 200]
    assert len(refusing_openai.refusals) == 3
    sent_body = refusing_openai.bodies[-1]
    assert sent_body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert not {"temperature", "top_p"} & set(sent_body)


def test_later_requests_avoid_a_model_that_cannot_fulfil_them(new_router, gpt5_refusals, refusing_openai):
    for build_body, fields in ((chat, {"logprobs": True}), (response, {"include": [LOGPROBS]})):
        answers = [ask(new_router, build_body(**fields)) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3
        first, second, third = (answer.headers["x-router-model"] for answer in answers)
        assert {first, second} == {"new-cheap", "new-strong"}
        assert third == "new-strong"
        assert all(answer.headers["x-router-adapted"] for answer in answers)
    assert len(refusing_openai.refusals) == 4


def test_a_refusal_of_tools_with_reasoning_is_learnt(new_router, refusing_openai):
    message = "Function tools with reasoning_effort are not supported for new in /v1/chat/completions. To use function "
    refusing_openai.enqueue(error(None, message=message), json_reply({"id": "1", "model": "new"}))
    answer = ask(new_router, chat(tools=[TOOL]))
    assert (answer.status_code, answer.headers["x-router-adapted"]) == (200, "reasoning effort none")
    assert refusing_openai.bodies[-1]["reasoning_effort"] == "none"


def test_one_request_teaches_at_most_eight_lessons(new_router, refusing_openai):
    names = ["temperature", "top_p", "stop", "seed", "user", "store", "metadata", "logit_bias", "verbosity"]
    refusing_openai.enqueue(*(unsupported(name) for name in names))
    answer = ask(new_router, chat(**dict.fromkeys(names, 1)))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "verbosity"
    assert len(refusing_openai.bodies) == 9
    assert answer.headers["x-router-adapted"] == "; ".join(f"{name} dropped" for name in names[:8])
    refusing_openai.enqueue(unsupported("verbosity"), json_reply({"id": "1", "model": "new"}))
    assert ask(new_router, chat(**dict.fromkeys(names, 1))).status_code == 200


def test_a_persistent_refusal_is_forwarded(new_router, refusing_openai):
    """The upstream refuses a parameter that was not sent, or that was already removed."""
    refusing_openai.enqueue(unsupported("temperature"))
    assert ask(new_router, chat()).status_code == 400
    refusing_openai.enqueue(*[unsupported("top_p")] * 3)
    assert ask(new_router, chat(top_p=0.5)).status_code == 400
    assert len(refusing_openai.bodies) == 3


@pytest.mark.parametrize(
    "error_reply",
    [
        error("invalid_value", message="Invalid 'messages[0]'."),
        error(["unsupported_parameter"]),
        error(None, 403, "Your organization must be verified to stream this model."),
        error("invalid_api_key", 401),
        Reply(400, pieces=[b"<html>Bad Request</html>"]),
        Reply(400, pieces=[b"{" * 100_000]),
        Reply(404, pieces=[b'{"error":{"code":"not_found"}}']),
        unsupported("messages"),
        unsupported("temperature", status=422),
    ],
    ids=["value", "odd code", "403", "401", "html", "nested", "404", "messages", "422"],
)
def test_an_error_that_is_not_understood_is_forwarded_unchanged(new_router, refusing_openai, error_reply):
    refusing_openai.enqueue(error_reply)
    answer = ask(new_router, chat(temperature=0))
    assert (answer.status_code, answer.content) == (error_reply.status, b"".join(error_reply.pieces))
    assert len(refusing_openai.bodies) == 1
    assert new_router.app.worker.adapter.lessons == []


def test_a_refused_field_of_the_other_endpoint_is_not_learnt(new_router, refusing_openai):
    """An invalid request to the Responses API does not disable reasoning for other requests."""
    message = "Unsupported parameter: 'reasoning_effort'. In the Responses API, this parameter has moved to "
    message += "'reasoning.effort'. Try again with the new parameter."
    refusing_openai.enqueue(error("unsupported_parameter", message=message), json_reply({"id": "1", "model": "new"}))
    assert ask(new_router, response(reasoning_effort="low")).status_code == 400
    assert ask(new_router, response(reasoning={"effort": "low"})).status_code == 200
    assert refusing_openai.bodies[-1]["reasoning"] == {"effort": "low"}


def test_the_lessons_of_a_model_are_limited(new_router):
    from router.policy.parameters import ParameterRule
    from router.policy.refusals import Refusal, RefusalKind

    adapter = new_router.app.worker.adapter
    taught = [
        adapter.learn("m", Refusal(RefusalKind.PARAMETER, ParameterRule(f"p{n}")), "responses") for n in range(50)
    ]
    assert taught.count(True) == MAX_RULES == len(adapter.lessons)


def test_a_model_without_reasoning_efforts_gets_none(start_pair, refusing_openai):
    models = {"new-cheap:low": {"usd_per_million_input_tokens": 0.1, "usd_per_million_output_tokens": 0.4}}
    models["new-cheap"] = models["new-strong"] = models.pop("new-cheap:low")
    models["new-strong"] = {"usd_per_million_input_tokens": 2, "usd_per_million_output_tokens": 8}
    router = start_pair("new-cheap:low", "new-strong:low", models=models)
    unknown_argument = error(None, message="Unrecognized request argument supplied: reasoning_effort")
    refusing_openai.enqueue(unknown_argument, *[json_reply({"id": "1", "model": "new"})] * 2)
    assert [ask(router, chat()).status_code for _ in range(2)] == [200, 200]
    assert ["reasoning_effort" in body for body in refusing_openai.bodies] == [True, False, False]


# message roles

PRICE = {"usd_per_million_input_tokens": 0.1, "usd_per_million_output_tokens": 0.4}
EXPENSIVE = {"usd_per_million_input_tokens": 2, "usd_per_million_output_tokens": 8}
NAMED = {  # by model: the role that replaces `developer`, and the number of refusals until it is learnt
    "o1-mini": ("user", 0),
    "deepseek-chat": ("system", 0),
    "qwen-plus": ("system", 1),
    "qwen3": ("system", 1),
    "gpt-learnt": ("user", 2),
}


@pytest.fixture
def of_roles(start_pair, monkeypatch):
    """A function that starts a router for a model, under two names, whose upstream accepts few roles."""
    monkeypatch.setitem(refusals.MODELS, "gpt-learnt", refusals.MODELS["o1-mini"])
    monkeypatch.setitem(refusals.SNAPSHOTS, "gpt-learnt", "o1-mini")

    def start(name: str, **settings) -> RunningRouter:
        models = {name: PRICE, "other": {**EXPENSIVE, "name": name}}
        return start_pair(name, "other", models=models, **settings)

    return start


@pytest.mark.parametrize("name", NAMED)
def test_developer_messages_reach_a_model_that_refuses_that_role(of_roles, refusing_openai, name):
    accepted_role, refusal_count = NAMED[name]
    router = of_roles(name)
    for body in (chat(messages=DEVELOPER), chat(messages=DEVELOPER, stream=True)):
        first = ask(router, body | {"model": "auto-cost"})
        assert first.status_code == 200, first.text
        assert first.headers["x-router-adapted"] == f"developer messages as {accepted_role}"
        assert refusing_openai.bodies[-1]["messages"] == [{**DEVELOPER[0], "role": accepted_role}, DEVELOPER[1]]
    assert len(refusing_openai.refusals) == refusal_count
    assert [record["adapted"] for record in router.records(2)] == [f"developer messages as {accepted_role}"] * 2


def test_roles_in_the_input_of_a_response_are_adapted(of_roles, refusing_openai):
    router = of_roles("deepseek-chat")
    answer = ask(router, response(input=DEVELOPER) | {"model": "auto-cost"})
    assert (answer.status_code, answer.headers["x-router-adapted"]) == (200, "developer messages as system")
    assert refusing_openai.bodies[-1]["input"][0] == {**DEVELOPER[0], "role": "system"}
    assert refusing_openai.refusals == []


def test_an_attachment_in_a_message_with_a_new_role_is_unchanged(of_roles, refusing_openai):
    router = of_roles("deepseek-chat")
    url = "data:image/png;base64," + "A" * 2**20
    image_message = {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}],
    }
    answer = ask(router, chat(messages=[image_message, DEVELOPER[0], DEVELOPER[1]]) | {"model": "auto-cost"})
    assert answer.status_code == 200
    assert refusing_openai.bodies[-1]["messages"] == [image_message, {**DEVELOPER[0], "role": "system"}, DEVELOPER[1]]


def test_without_adaptation_a_model_that_refuses_the_role_is_not_eligible(start_pair, refusing_openai):
    router = start_pair("deepseek-chat", "gpt-4o", models={"deepseek-chat": PRICE}, adapt=False)
    answer = ask(router, chat(messages=DEVELOPER) | {"model": "auto-cost"})
    assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == ("gpt-4o", "parameters")
    assert refusing_openai.bodies[-1]["messages"] == DEVELOPER
    router = start_pair("deepseek-chat", "other", models={"deepseek-chat": PRICE, "other": EXPENSIVE}, adapt=False)
    ask(router, chat(messages=[{**DEVELOPER[0], "role": "system"}, DEVELOPER[1]]) | {"model": "auto-cost"})
    assert refusing_openai.bodies[-1]["model"] == "deepseek-chat"


# requests that are too long or filtered


@pytest.mark.parametrize("error_in", ["code", "message", "fake"])
def test_too_long_requests_go_to_the_model_with_the_larger_context_window(start_pair, refusing_openai, error_in):
    router = start_pair("gpt-4o-mini", "gpt-6-sol")
    message = "Input tokens exceed the configured limit of 272000 tokens."
    if error_in == "fake":
        refusing_openai.context_tokens = {"gpt-4o-mini": 2}
    else:
        refusing_openai.enqueue(
            error("context_length_exceeded") if error_in == "code" else error(None, message=message)
        )
    answer = ask(router, chat(temperature=0) | {"model": "auto-cost"})
    assert [body["model"] for body in refusing_openai.bodies] == ["gpt-4o-mini", "gpt-6-sol"]
    assert (answer.status_code, answer.headers["x-router-model"]) == (200, "gpt-6-sol")
    assert answer.headers["x-router-reason"] == "context_window"
    assert answer.headers["x-router-adapted"] == "temperature dropped"
    (record,) = router.records()
    assert (record["reason"], record["status"], record["attempts"]) == ("context_window", 200, 2)


TOO_LONG = {
    "type": "invalid_request_error",
    "code": "context_length_exceeded",
    "message": "Too long.",
    "param": "input",
}
NO_TEMPERATURE = {**TOO_LONG, "code": "unsupported_parameter", "param": "temperature"}
CREATED_EVENT = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","error":null}}\n\n'
)


def stream_with_error(error, path):
    if path == CHAT:
        return stream_reply(b"data: " + json.dumps({"error": error}).encode() + b"\n\n", b"data: [DONE]\n\n")
    return stream_reply(
        CREATED_EVENT + b"event: error\ndata: " + json.dumps({**error, "type": "error"}).encode() + b"\n\n"
    )


@pytest.mark.parametrize("build_body", [chat, response])
def test_a_stream_that_begins_with_a_refusal_is_requested_again(start_pair, refusing_openai, build_body):
    router = start_pair("gpt-4o-mini", "gpt-6-sol")
    body = build_body(stream=True) | {"model": "auto-cost"}
    path = CHAT if build_body is chat else RESPONSES
    refusing_openai.enqueue(stream_with_error(TOO_LONG, path))
    answer = ask(router, body)
    assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == ("gpt-6-sol", "context_window")
    assert "Too long." not in answer.text and answer.text.count("response.created") <= 2
    refusing_openai.enqueue(stream_with_error(NO_TEMPERATURE, path))
    answer = ask(router, body | {"temperature": 0})
    assert (answer.headers["x-router-model"], answer.headers["x-router-adapted"]) == (
        "gpt-4o-mini",
        "temperature dropped",
    )
    assert "Too long." not in answer.text
    records = router.records(2)
    assert [(record["status"], record["outcome"], record["attempts"]) for record in records] == [
        (200, "answered", 2)
    ] * 2


@pytest.mark.parametrize("build_body", [chat, response])
def test_a_stream_that_begins_with_another_error_is_forwarded(start_pair, refusing_openai, build_body):
    router = start_pair("gpt-4o-mini", "gpt-6-sol")
    path = CHAT if build_body is chat else RESPONSES
    error_stream = stream_with_error({**TOO_LONG, "code": "server_error"}, path)
    refusing_openai.enqueue(error_stream)
    answer = ask(router, build_body(stream=True) | {"model": "auto-cost"})
    assert (answer.status_code, answer.content) == (200, b"".join(error_stream.pieces))
    late_error = stream_reply(
        b'data: {"id":"1","model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
        *stream_with_error(TOO_LONG, CHAT).pieces,
    )
    refusing_openai.enqueue(late_error)
    answer = ask(router, chat(stream=True) | {"model": "auto-cost"})
    assert answer.content == b"".join(late_error.pieces)
    assert len(refusing_openai.bodies) == 2


@pytest.mark.parametrize("settings", [{}, {"fallbacks": ()}], ids=["no larger one", "not set"])
def test_a_request_too_long_for_all_models_gets_the_upstreams_error(start_pair, refusing_openai, settings):
    pair = ("gpt-6-luna", "gpt-6-sol") if not settings else ("gpt-4o-mini", "gpt-6-sol")
    router = start_pair(*pair, **settings)
    refusing_openai.context_tokens = dict.fromkeys(pair, 2)
    answer = ask(router, chat() | {"model": "auto-cost"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert len(refusing_openai.bodies) == 1


@pytest.mark.parametrize("code", ["content_filter", "invalid_prompt"])
def test_filtered_content_goes_to_another_model_only_if_configured(start_pair, refusing_openai, code):
    refusing_openai.enqueue(error(code))
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    assert (ask(router, chat()).status_code, len(refusing_openai.bodies)) == (400, 1)
    router = start_pair("gpt-6-luna", "gpt-6-sol", fallbacks=("content_filter",))
    refusing_openai.enqueue(error(code))
    answer = ask(router, chat())
    assert (answer.status_code, answer.headers["x-router-reason"]) == (200, "fallback")
    first, second = (body["model"] for body in refusing_openai.bodies[1:])
    assert {first, second} == {"gpt-6-luna", "gpt-6-sol"}
    assert answer.headers["x-router-model"] == second
    refusing_openai.enqueue(error(code), error(code))
    assert ask(router, chat()).status_code == 400


# retired models


RETIRED_PAIR = ("gpt-4o-mini", "gpt-4o")
SUCCESSORS = {"gpt-4o-mini": "gpt-6-luna:none", "gpt-4o": "gpt-6-sol:none"}


@pytest.mark.parametrize("build_body", [chat, response])
def test_the_successor_answers_for_a_retired_model(start_pair, refusing_openai, build_body):
    router = start_pair(*RETIRED_PAIR)
    refusing_openai.retired = set(RETIRED_PAIR)
    body = build_body(temperature=0)
    first, second = ask(router, body), ask(router, body)
    requested_model = refusing_openai.bodies[0]["model"]
    for answer in (first, second):
        assert answer.status_code == 200
        assert answer.headers["x-router-reason"] == "successor"
        assert answer.headers["x-router-promise"] == "none"
        assert answer.headers["x-router-model"] == SUCCESSORS[requested_model]
        assert answer.headers["x-router-adapted"] == "reasoning effort none"
    name = SUCCESSORS[requested_model].partition(":")[0]
    assert [sent_body["model"] for sent_body in refusing_openai.bodies] == [requested_model, name, name]
    assert all(sent_body["temperature"] == 0 for sent_body in refusing_openai.bodies)
    text = httpx2.get(router.origin + "/metrics").text
    assert f'model="{SUCCESSORS[requested_model]}"' in text and 'model="other"' not in text
    records = router.records(2)
    assert [record["reason"] for record in records] == ["successor"] * 2
    assert all(record["cost_usd"] > 0 for record in records)


def test_without_a_successor_the_other_model_answers(start_pair, refusing_openai):
    router = start_pair(*RETIRED_PAIR, models={name: {"successor": "none"} for name in RETIRED_PAIR})
    chosen_model = ask(router, chat()).headers["x-router-model"]
    other = next(name for name in RETIRED_PAIR if name != chosen_model)
    refusing_openai.retired = {chosen_model}
    for _ in range(2):
        answer = ask(router, chat())
        assert (answer.status_code, answer.headers["x-router-model"]) == (200, other)
        assert answer.headers["x-router-reason"] == "fallback"
    assert [body["model"] for body in refusing_openai.bodies] == [chosen_model, chosen_model, other, other]


def test_a_configured_successor_applies_to_every_effort(start_pair, refusing_openai):
    models = {"gpt-6-luna": {"successor": "gpt-4.1-mini"}, "gpt-6-sol": {"successor": "gpt-4.1-mini"}}
    router = start_pair("gpt-6-luna:low", "gpt-6-sol:low", models=models)
    refusing_openai.retired = {"gpt-6-luna", "gpt-6-sol"}
    answer = ask(router, chat())
    assert (answer.status_code, answer.headers["x-router-model"]) == (200, "gpt-4.1-mini")
    assert "reasoning_effort" not in refusing_openai.bodies[-1]


def test_if_no_model_exists_the_404_is_forwarded(start_pair, refusing_openai):
    router = start_pair(*RETIRED_PAIR, models={name: {"successor": "none"} for name in RETIRED_PAIR})
    refusing_openai.retired = set(RETIRED_PAIR)
    for _ in range(2):
        answer = ask(router, chat())
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_a_missing_successor_is_replaced_by_its_own_successor(start_pair, refusing_openai):
    models = {"gpt-4o": {"successor": "gpt-5"}, "gpt-4o-mini": {"successor": "gpt-5"}}
    router = start_pair(*RETIRED_PAIR, models=models)
    refusing_openai.retired = {*RETIRED_PAIR, "gpt-5"}
    for _ in range(2):
        answer = ask(router, chat())
        assert (answer.status_code, answer.headers["x-router-model"]) == (200, "gpt-6-sol")
        assert answer.headers["x-router-reason"] == "successor"
    requested = [body["model"] for body in refusing_openai.bodies]
    assert requested[1:] == ["gpt-5", "gpt-6-sol", "gpt-6-sol"]


def test_a_cycle_of_successors_ends(start_pair, refusing_openai):
    router = start_pair(
        *RETIRED_PAIR, models={"gpt-4o": {"successor": "gpt-4o-mini"}, "gpt-4o-mini": {"successor": "gpt-4o"}}
    )
    refusing_openai.retired = set(RETIRED_PAIR)
    assert [ask(router, chat()).status_code for _ in range(2)] == [404, 404]
    assert len(refusing_openai.bodies) <= 4


def test_a_model_that_is_its_own_successor_is_missing(start_pair, refusing_openai):
    router = start_pair(*RETIRED_PAIR, models={name: {"successor": name} for name in RETIRED_PAIR})
    refusing_openai.retired = set(RETIRED_PAIR)
    assert ask(router, chat()).status_code == 404


def test_a_successor_that_is_in_the_policy_is_requested_once(start_pair, refusing_openai):
    router = start_pair(
        *RETIRED_PAIR,
        models={name: {"successor": other} for name, other in zip(RETIRED_PAIR, reversed(RETIRED_PAIR), strict=True)},
    )
    chosen_model = ask(router, chat()).headers["x-router-model"]
    other = next(name for name in RETIRED_PAIR if name != chosen_model)
    refusing_openai.retired = {chosen_model}
    answer = ask(router, chat())
    assert (answer.headers["x-router-model"], answer.headers["x-router-reason"]) == (other, "successor")


def test_a_model_that_reappears_is_requested_again(start_pair, refusing_openai, monkeypatch):
    router = start_pair(*RETIRED_PAIR)
    refusing_openai.retired = set(RETIRED_PAIR)
    monkeypatch.setattr("router.adaptation.adapter.MISSING_SECONDS", 0.0)
    assert ask(router, chat()).headers["x-router-reason"] == "successor"
    refusing_openai.retired = set()
    assert ask(router, chat()).headers["x-router-model"] == refusing_openai.bodies[0]["model"]


def test_a_request_for_a_missing_named_model_gets_the_upstreams_error(start_pair, refusing_openai):
    router = start_pair(*RETIRED_PAIR)
    refusing_openai.retired = set(RETIRED_PAIR)
    answer = ask(router, chat() | {"model": "gpt-4o"})
    assert (answer.status_code, len(refusing_openai.bodies)) == (404, 1)


def test_a_model_may_be_retired_during_a_conversation(start_pair, refusing_openai):
    router = start_pair(*RETIRED_PAIR)
    first = ask(router, response(store=True)).json()
    requested_model = refusing_openai.bodies[0]["model"]
    refusing_openai.retired = set(RETIRED_PAIR)
    for _ in range(2):
        answer = ask(router, response(previous_response_id=first["id"], temperature=0))
        assert answer.status_code == 200
        assert answer.headers["x-router-reason"] in ("successor", "continued")  # the fake has one id for all answers
        assert answer.headers["x-router-model"] == SUCCESSORS[requested_model]
    assert refusing_openai.bodies[-1]["reasoning"] == {"effort": "none"}
    turns = [{"role": "user", "content": EASY}, {"role": "assistant", "content": "4"}]
    answer = ask(router, chat(messages=[*turns, {"role": "user", "content": "and times 3?"}]))
    assert (answer.status_code, answer.headers["x-router-reason"]) == (200, "successor")


def test_a_continued_conversation_is_adapted(start_pair, refusing_openai):
    router = start_pair("gpt-6-luna", "gpt-6-sol")
    first = ask(router, response(store=True)).json()
    answer = ask(router, response(previous_response_id=first["id"], temperature=0, reasoning={"effort": "minimal"}))
    assert (answer.status_code, answer.headers["x-router-reason"]) == (200, "continued")
    assert answer.headers["x-router-adapted"] == "reasoning effort low; temperature dropped"
    assert refusing_openai.refusals == []


def test_a_missing_fallback_model_is_replaced_by_its_successor(start_pair, refusing_openai):
    """The chosen model is down and the other one is retired."""
    router = start_pair(*RETIRED_PAIR, max_attempts=1)
    chosen_model = ask(router, chat()).headers["x-router-model"]
    other = next(name for name in RETIRED_PAIR if name != chosen_model)
    refusing_openai.retired = {other}
    refusing_openai.enqueue(error("server_error", 503))
    answer = ask(router, chat())
    assert (answer.status_code, answer.headers["x-router-model"]) == (200, SUCCESSORS[other])


def test_adaptation_uses_no_retry_and_opens_no_circuit(new_router, gpt5_refusals, refusing_openai):
    for number in range(12):
        assert (
            ask(
                new_router, chat(**{"messages": [{"role": "user", "content": f"{EASY} {number}"}]}, max_tokens=9)
            ).status_code
            == 200
        )
    assert len(refusing_openai.refusals) <= 2
    refusing_openai.enqueue(error("server_error", 500))
    assert ask(new_router, chat()).status_code == 200


def test_the_fake_has_the_table_that_this_file_extends(refusing_openai, gpt5_refusals):
    assert isinstance(refusing_openai, RefusingOpenAI)
    body = json.dumps(chat(max_tokens=1) | {"model": "new-cheap"})
    assert httpx2.post(refusing_openai.url + CHAT, content=body).status_code == 400
