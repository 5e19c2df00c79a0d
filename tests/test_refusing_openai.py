"""The refusing OpenAI refuses the reported requests with the reported errors, and accepts similar requests."""

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx2
import openai
import pytest
from refusals import CHAT, MODELS, RESPONSES, ROWS

NO_PARAMETER = "Unsupported parameter: '{}' is not supported with this model."
ONLY_ONE = (
    "Unsupported value: 'temperature' does not support {} with this model. Only the default (1) value is supported."
)
EFFORT = "Unsupported value: 'reasoning_effort' does not support {} with this model. Supported values are: {}."
RESPONSE_EFFORT = "Unsupported value: '{}' is not supported with the '{}' model. Supported values are: {}."
MOVED = (
    "Unsupported parameter: '{}'. In the Responses API, this parameter has moved to '{}'. Try again with the new "
    "parameter. See the API documentation for more information: "
    "https://platform.openai.com/docs/api-reference/responses/create."
)
TOOLS = "Function tools with reasoning_effort are not supported for {} in /v1/chat/completions. "
TOOLS_NOW = TOOLS + "To use function tools, use /v1/responses or set reasoning_effort to 'none'."
LOGPROBS = ("You are not allowed to request logprobs from this model", None, None, 403)
TOO_LARGE = "max_tokens is too large: {0}. This model supports at most {1} completion tokens, whereas you provided {0}."
BELOW = "Invalid '{}': integer below minimum value. Expected a value >= {}, but got {} instead."
LOW = "'low', 'medium', and 'high'"
TO_XHIGH = "'low', 'medium', 'high', and 'xhigh'"
TO_MAX = "'low', 'medium', 'high', 'xhigh', and 'max'"
UNKNOWN_ROLE = (
    "Failed to deserialize the JSON body into the target type: messages[{}].role: unknown variant `developer`, "
    "expected one of `system`, `user`, `assistant`, `tool`, `latest_reminder`"
)
UNSUPPORTED, UNSUPPORTED_VALUE = "unsupported_parameter", "unsupported_value"

SIZES = {"tokens", "above"}  # conditions whose sizes depend on the model
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOL = {"tools": [{"type": "function", "function": FUNCTION}]}
CUSTOM = {"tools": [{"type": "custom", "custom": {"name": "shell"}}]}
LOGPROBS_INCLUDED = {"include": ["message.output_text.logprobs"]}
QUESTION = {"role": "user", "content": "What is the capital of France?"}


def with_roles(*roles):
    return {"messages": [{"role": role, "content": "Be brief."} for role in roles] + [QUESTION]}


def with_content_part(kind):
    parts = [{"type": "text", "text": "What is this?"}, {"type": kind, kind: {"url": "https://example.org/1.png"}}]
    return {"messages": [{"role": "user", "content": parts}]}


def with_tokens(tokens):
    return {"messages": [{"role": "user", "content": "word" * tokens}]}


def with_format(kind):
    return {"response_format": {"type": kind, "json_schema": {"name": "a", "schema": {"type": "object"}}}}


def with_effort(value):
    return {"reasoning_effort": value}


def with_reasoning(value):
    return {"reasoning": {"effort": value}}


# By row of the table: endpoint, model, refused fields, the error, and accepted fields of the same or another model.
CASES = {
    "retired model": (
        CHAT,
        "gpt-4o-retired",
        {},
        (
            "The model `gpt-4o-retired` does not exist or you do not have access to it.",
            None,
            "model_not_found",
            404,
        ),
        {"model": "gpt-4o"},
    ),
    "response_format on responses": (
        RESPONSES,
        "gpt-4o",
        with_format("json_schema"),
        (MOVED.format("response_format", "text.format"), None, UNSUPPORTED),
        {"text": {"format": {"type": "text"}}},
    ),
    "reasoning_effort on responses": (
        RESPONSES,
        "gpt-5",
        with_effort("low"),
        (MOVED.format("reasoning_effort", "reasoning.effort"), None, UNSUPPORTED),
        with_reasoning("low"),
    ),
    "reasoning_effort without reasoning": (
        CHAT,
        "gpt-4o",
        with_effort("none"),
        ("Unrecognized request argument supplied: reasoning_effort", None, None),
        with_effort(None),
    ),
    "reasoning.effort without reasoning": (
        RESPONSES,
        "gpt-4.1",
        with_reasoning("low"),
        (NO_PARAMETER.format("reasoning.effort"), "reasoning.effort", UNSUPPORTED),
        with_reasoning(None),
    ),
    "max_tokens": (
        CHAT,
        "gpt-5",
        {"max_tokens": 20},
        (NO_PARAMETER.format("max_tokens") + " Use 'max_completion_tokens' instead.", "max_tokens", UNSUPPORTED),
        {"max_completion_tokens": 20},
    ),
    "temperature": (
        CHAT,
        "o3",
        {"temperature": 0.2},
        (ONLY_ONE.format("0.2"), "temperature", UNSUPPORTED_VALUE),
        {"temperature": 1.0},
    ),
    "temperature while reasoning": (
        CHAT,
        "gpt-6-luna",
        {"temperature": 0},
        (ONLY_ONE.format("0"), "temperature", UNSUPPORTED_VALUE),
        {"temperature": 0, **with_effort("none")},
    ),
    "temperature of o3-mini": (
        CHAT,
        "o3-mini",
        {"temperature": 1},
        (NO_PARAMETER.format("temperature"), "temperature", UNSUPPORTED),
        {"temperature": None},
    ),
    "temperature on responses": (
        RESPONSES,
        "gpt-5.2",
        {"temperature": 0.5, **with_reasoning("high")},
        (NO_PARAMETER.format("temperature"), "temperature", None),
        {"temperature": 0.5},
    ),
    "top_p": (CHAT, "gpt-6-astra", {"top_p": 0}, (NO_PARAMETER.format("top_p"), "top_p", UNSUPPORTED), {"top_p": 1}),
    "top_p while reasoning": (
        CHAT,
        "gpt-6-sol",
        {"top_p": 0.9},
        (NO_PARAMETER.format("top_p"), "top_p", UNSUPPORTED),
        {"top_p": 0.9, **with_effort("none")},
    ),
    "top_p on responses": (
        RESPONSES,
        "gpt-6-luna",
        {"top_p": 0.9},
        (NO_PARAMETER.format("top_p"), "top_p", None),
        {"top_p": 0.9, **with_reasoning("none")},
    ),
    "stop": (
        CHAT,
        "gpt-5.2",
        {"stop": ["\n"]},
        (NO_PARAMETER.format("stop"), "stop", UNSUPPORTED),
        {"model": "gpt-6-luna"},
    ),
    "logprobs": (CHAT, "o4-mini", {"logprobs": True}, LOGPROBS, {"logprobs": False}),
    "logprobs while reasoning": (
        CHAT,
        "gpt-6-luna",
        {"logprobs": True},
        LOGPROBS,
        {"logprobs": True, **with_effort("none")},
    ),
    "logprobs on responses": (
        RESPONSES,
        "gpt-5-mini",
        LOGPROBS_INCLUDED,
        ("logprobs are not supported with reasoning models.", "include", UNSUPPORTED),
        {"include": ["reasoning.encrypted_content"]},
    ),
    "parallel_tool_calls": (
        CHAT,
        "o3",
        {**TOOL, "parallel_tool_calls": False},
        (NO_PARAMETER.format("parallel_tool_calls"), "parallel_tool_calls", UNSUPPORTED),
        {"model": "gpt-4.1"},
    ),
    "reasoning_effort of the o-series": (
        CHAT,
        "o4-mini",
        with_effort("minimal"),
        (EFFORT.format("'minimal'", LOW), "reasoning_effort", UNSUPPORTED_VALUE),
        with_effort("low"),
    ),
    "reasoning_effort of gpt-5": (
        CHAT,
        "gpt-5-mini",
        with_effort("xhigh"),
        (EFFORT.format("'xhigh'", "'minimal', " + LOW), "reasoning_effort", UNSUPPORTED_VALUE),
        with_effort("minimal"),
    ),
    "reasoning_effort of gpt-5.1": (
        CHAT,
        "gpt-5.1",
        with_effort("minimal"),
        (EFFORT.format("'minimal'", "'none', " + LOW), "reasoning_effort", UNSUPPORTED_VALUE),
        with_effort("none"),
    ),
    "reasoning_effort null": (
        CHAT,
        "gpt-5.1",
        with_effort(None),
        (EFFORT.format("null", "'none', " + LOW), "reasoning_effort", UNSUPPORTED_VALUE),
        {"model": "gpt-5"},
    ),
    "reasoning_effort of gpt-5.2-chat-latest": (
        CHAT,
        "gpt-5.2-chat-latest",
        with_effort("high"),
        (EFFORT.format("'high'", "'medium'"), "reasoning_effort", UNSUPPORTED_VALUE),
        with_effort("medium"),
    ),
    "reasoning_effort of gpt-5.2 and gpt-5.4": (
        CHAT,
        "gpt-5.4",
        with_effort("minimal"),
        (EFFORT.format("'minimal'", "'none', " + TO_XHIGH), "reasoning_effort", UNSUPPORTED_VALUE),
        with_effort("xhigh"),
    ),
    "reasoning_effort of gpt-5.6": (
        CHAT,
        "gpt-5.6-luna",
        with_effort("max"),
        (EFFORT.format("'max'", "'none', " + TO_XHIGH), "reasoning_effort", UNSUPPORTED_VALUE),
        with_effort("xhigh"),
    ),
    "reasoning_effort of gpt-6": (
        CHAT,
        "gpt-6-luna",
        with_effort("minimal"),
        (EFFORT.format("'minimal'", "'none', " + TO_XHIGH), "reasoning_effort", UNSUPPORTED_VALUE),
        with_effort("none"),
    ),
    "reasoning_effort without none": (
        CHAT,
        "gpt-6-astra",
        with_effort("none"),
        (EFFORT.format("'none'", TO_XHIGH), "reasoning_effort", UNSUPPORTED_VALUE),
        with_effort("low"),
    ),
    "reasoning.effort of the o-series": (
        RESPONSES,
        "o3",
        with_reasoning("none"),
        (RESPONSE_EFFORT.format("none", "o3", LOW), "reasoning.effort", UNSUPPORTED_VALUE),
        with_reasoning("high"),
    ),
    "reasoning.effort of gpt-5": (
        RESPONSES,
        "gpt-5-nano",
        with_reasoning("none"),
        (RESPONSE_EFFORT.format("none", "gpt-5-nano", "'minimal', " + LOW), "reasoning.effort", UNSUPPORTED_VALUE),
        with_reasoning("minimal"),
    ),
    "reasoning.effort of gpt-5.1": (
        RESPONSES,
        "gpt-5.1",
        with_reasoning("minimal"),
        (RESPONSE_EFFORT.format("minimal", "gpt-5.1", "'none', " + LOW), "reasoning.effort", UNSUPPORTED_VALUE),
        with_reasoning("low"),
    ),
    "reasoning.effort of gpt-5.2 and gpt-5.4": (
        RESPONSES,
        "gpt-5.4",
        with_reasoning("max"),
        (RESPONSE_EFFORT.format("max", "gpt-5.4", "'none', " + TO_XHIGH), "reasoning.effort", UNSUPPORTED_VALUE),
        with_reasoning("xhigh"),
    ),
    "reasoning.effort of gpt-5.6": (
        RESPONSES,
        "gpt-5.6-luna",
        with_reasoning("minimal"),
        (RESPONSE_EFFORT.format("minimal", "gpt-5.6-luna", "'none', " + TO_MAX), "reasoning.effort", UNSUPPORTED_VALUE),
        with_reasoning("max"),
    ),
    "reasoning.effort of gpt-5.6-sol": (
        RESPONSES,
        "gpt-5.6-sol",
        with_reasoning("ultra"),
        (
            RESPONSE_EFFORT.format("ultra", "gpt-5.6-sol", "'none', 'minimal', " + TO_MAX),
            "reasoning.effort",
            UNSUPPORTED_VALUE,
        ),
        with_reasoning("minimal"),
    ),
    "reasoning.effort of gpt-6": (
        RESPONSES,
        "gpt-6-sol",
        with_reasoning("minimal"),
        (RESPONSE_EFFORT.format("minimal", "gpt-6-sol", "'none', " + TO_MAX), "reasoning.effort", UNSUPPORTED_VALUE),
        with_reasoning("max"),
    ),
    "reasoning.effort without none": (
        RESPONSES,
        "gpt-6-astra",
        with_reasoning("none"),
        (RESPONSE_EFFORT.format("none", "gpt-6-astra", TO_MAX), "reasoning.effort", UNSUPPORTED_VALUE),
        with_reasoning("max"),
    ),
    "function tools while reasoning": (
        CHAT,
        "gpt-6-luna",
        TOOL,
        (TOOLS_NOW.format("gpt-6-luna"), "reasoning_effort", None),
        {**TOOL, **with_effort("none")},
    ),
    "function tools without none": (
        CHAT,
        "gpt-6-astra",
        {**TOOL, **with_effort("low")},
        (TOOLS_NOW.format("gpt-6-astra"), "reasoning_effort", None),
        CUSTOM,
    ),
    "function tools with an effort that is sent": (
        CHAT,
        "gpt-5.4",
        {**TOOL, **with_effort("low")},
        (TOOLS.format("gpt-5.4") + "Please use /v1/responses instead.", "reasoning_effort", None),
        TOOL,
    ),
    "roles of o1-mini": (
        CHAT,
        "o1-mini",
        with_roles("user", "developer"),
        (
            "Unsupported value: 'messages[1].role' does not support 'developer' with this model.",
            "messages[1].role",
            UNSUPPORTED_VALUE,
        ),
        with_roles("user", "assistant"),
    ),
    "roles of deepseek-chat": (
        CHAT,
        "deepseek-chat",
        with_roles("system", "developer"),
        (UNKNOWN_ROLE.format(1), None, "invalid_request_error"),
        with_roles("system"),
    ),
    "roles of deepseek-chat on responses": (
        RESPONSES,
        "deepseek-chat",
        {"input": with_roles("developer")["messages"]},
        (UNKNOWN_ROLE.format(0), None, "invalid_request_error"),
        {"input": with_roles("system")["messages"]},
    ),
    "roles of qwen-plus": (
        CHAT,
        "qwen-plus",
        with_roles("developer"),
        (
            "developer is not one of ['system', 'assistant', 'user', 'tool', 'function'] - 'messages.['0].role'",
            None,
            "invalid_parameter_error",
        ),
        with_roles("system"),
    ),
    "roles of qwen3": (
        CHAT,
        "qwen3",
        with_roles("developer"),
        ("Unexpected message role.", None, 400, 400, "BadRequestError"),
        with_roles("system"),
    ),
    "roles of gemma-2b-it": (
        CHAT,
        "gemma-2b-it",
        with_roles("system"),
        ("System role not supported", None, 400, 400, "BadRequestError", True),
        with_roles("user"),
    ),
    "verbosity without reasoning": (
        CHAT,
        "gpt-4o",
        {"verbosity": "low"},
        (
            "Unsupported value: 'verbosity' does not support 'low' with this model. Supported values are: 'medium'.",
            "verbosity",
            UNSUPPORTED_VALUE,
        ),
        {"verbosity": "medium"},
    ),
    "images": (
        CHAT,
        "o3-mini",
        with_content_part("image_url"),
        ("Invalid content type. image_url is only supported by certain models.", "messages.[0].content.[1].type", None),
        {"model": "gpt-6-luna"},
    ),
    "audio": (
        CHAT,
        "gpt-6-luna",
        with_content_part("input_audio"),
        (
            "Invalid 'messages[0]'. Content blocks are expected to be either text or image_url type.",
            "messages[0]",
            "invalid_value",
        ),
        with_content_part("image_url"),
    ),
    "json_schema": (
        CHAT,
        "gpt-4o-2024-05-13",
        with_format("json_schema"),
        (
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more "
            "about supported models at the Structured Outputs guide: "
            "https://platform.openai.com/docs/guides/structured-outputs",
            None,
            None,
        ),
        with_format("json_object"),
    ),
    "json_object": (
        CHAT,
        "gpt-4",
        with_format("json_object"),
        (
            "Invalid parameter: 'response_format' of type 'json_object' is not supported with this model.",
            "response_format",
            None,
        ),
        with_format("text"),
    ),
    "max_tokens too large": (
        CHAT,
        "gpt-4o",
        {"max_tokens": 32000},
        (TOO_LARGE.format(32000, 16384), "max_tokens", None),
        {"max_tokens": 16384},
    ),
    "max_completion_tokens too large": (
        CHAT,
        "gpt-6-luna",
        {"max_completion_tokens": 128001},
        (TOO_LARGE.format(128001, 128000), "max_completion_tokens", None),
        {"max_completion_tokens": 128000},
    ),
    "max_completion_tokens too small": (
        CHAT,
        "gpt-5.6-luna",
        {"max_completion_tokens": 0},
        (BELOW.format("max_completion_tokens", 1, 0), "max_completion_tokens", "integer_below_min_value"),
        {"max_completion_tokens": 1},
    ),
    "max_output_tokens too small": (
        RESPONSES,
        "gpt-5.4",
        {"max_output_tokens": 10},
        (BELOW.format("max_output_tokens", 16, 10), "max_output_tokens", "integer_below_min_value"),
        {"max_output_tokens": 16},
    ),
    "messages and functions too long": (
        CHAT,
        "gpt-4",
        {**with_tokens(8192), **TOOL},
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in {} tokens (8192 in "
            "the messages, {} in the functions). Please reduce the length of the messages or functions.".format(
                8192 + len(json.dumps(TOOL["tools"])) // 4, len(json.dumps(TOOL["tools"])) // 4
            ),
            "messages",
            "context_length_exceeded",
        ),
        {**with_tokens(8000), **TOOL},
    ),
    "messages too long": (
        CHAT,
        "gpt-4o",
        with_tokens(128001),
        (
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 128001 tokens. "
            "Please reduce the length of the messages.",
            "messages",
            "context_length_exceeded",
        ),
        with_tokens(128000),
    ),
    "messages and completion too long": (
        CHAT,
        "gpt-4",
        {**with_tokens(64), "max_tokens": 8192},
        (
            "This model's maximum context length is 8192 tokens. However, you requested 8256 tokens (64 in the "
            "messages, 8192 in the completion). Please reduce the length of the messages or completion.",
            "messages",
            "context_length_exceeded",
        ),
        {**with_tokens(64), "max_tokens": 8128},
    ),
    "input too long": (
        CHAT,
        "gpt-5",
        with_tokens(272001),
        (
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 272001 tokens. "
            "Please reduce the length of the messages.",
            "messages",
            "context_length_exceeded",
        ),
        with_tokens(272000),
    ),
    "input too long on responses": (
        RESPONSES,
        "gpt-5.2",
        {"input": "word" * 272001},
        (
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            "input",
            "context_length_exceeded",
        ),
        {"input": "word" * 272000},
    ),
}
for _name, _sent in (("presence_penalty", 0.5), ("frequency_penalty", 0.5), ("logit_bias", {"50256": -100})):
    _error = (NO_PARAMETER.format(_name), _name, UNSUPPORTED)
    CASES[_name] = (CHAT, "gpt-5-mini", {_name: _sent}, _error, {"model": "gpt-4o"})
    CASES[f"{_name} of gpt-6"] = (CHAT, "gpt-6-luna", {_name: _sent}, _error, {"model": "gpt-4o"})


def request(endpoint, model, fields):
    content = {"messages": [QUESTION]} if endpoint == CHAT else {"input": QUESTION["content"]}
    return {"model": model, **content, **fields}


def post(server, endpoint, body):
    return httpx2.post(f"{server.url}/{endpoint}", json=body)


def error(message, param, code, status=400, kind="invalid_request_error", bare=False):
    description = {"message": message, "type": kind, "param": param, "code": code}
    return status, {"object": "error", **description} if bare else {"error": description}


def test_every_row_of_the_table_has_a_case():
    assert set(CASES) == set(ROWS)
    assert len(ROWS) >= 25


def test_every_row_has_known_models_a_source_and_its_date():
    for row in ROWS.values():
        assert row["models"] == ["*"] or set(row["models"]) <= set(MODELS)
        assert row["source"].count("/") == 1 or "discussion" in row["source"]
        assert "#" in row["source"]
        assert row["date"][:3] == "202"
        assert row["basis"] in ("quoted", "reported", "assumed")


@pytest.mark.parametrize("name", CASES)
def test_a_row_refuses_with_the_json_of_its_source(refusing_openai, name):
    endpoint, model, fields, expected, _ = CASES[name]
    body = request(endpoint, model, fields)
    answer = post(refusing_openai, endpoint, body)
    assert (answer.status_code, answer.json()) == error(*expected)
    assert [refused.row for refused in refusing_openai.refusals] == [name]
    assert refusing_openai.bodies == [body]


@pytest.mark.parametrize("name", CASES)
def test_a_request_that_is_almost_refused_is_answered(refusing_openai, name):
    endpoint, model, fields, _, near = CASES[name]
    other_model = {**fields, **near} if "model" in near else near
    answer = post(refusing_openai, endpoint, request(endpoint, model, other_model))
    assert answer.status_code == 200, answer.text
    assert not refusing_openai.refusals


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not SIZES & set(row["when"])])
def test_a_row_refuses_every_model_that_it_names(refusing_openai, name):
    row, (endpoint, model, fields, _, _) = ROWS[name], CASES[name]
    for model_named in row["models"]:
        sent = request(endpoint, model if model_named == "*" else model_named, fields)
        if "effort" in row["when"]:
            sent |= with_effort("low") if endpoint == CHAT else with_reasoning("low")
        assert post(refusing_openai, endpoint, sent).status_code == row["status"]
        assert refusing_openai.refusals[-1].row == name


def test_several_faults_are_refused_one_by_one(refusing_openai):
    body = request(CHAT, "gpt-6-luna", {**TOOL, "max_tokens": 5, "temperature": 0, "presence_penalty": 0.1})
    for name, cure in (
        ("max_tokens", {"max_completion_tokens": 5}),
        ("temperature", {}),
        ("presence_penalty", {}),
        ("tools", {}),
    ):
        answer = post(refusing_openai, CHAT, body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == ("reasoning_effort" if name == "tools" else name)
        body = {key: value for key, value in body.items() if key != name} | cure
    assert post(refusing_openai, CHAT, body).status_code == 200
    assert len(refusing_openai.bodies) == 5
    assert len(refusing_openai.refusals) == 4


def test_faults_are_refused_in_the_order_of_the_rows(refusing_openai):
    faults = {"stop": ["."], "logit_bias": {"1": 1}, "top_p": 0.5, "temperature": 0.5, "max_tokens": 5}
    body = request(CHAT, "gpt-5", dict(faults))
    refused = []
    while (answer := post(refusing_openai, CHAT, body)).status_code == 400:
        refused.append(answer.json()["error"]["param"])
        del body[refused[-1]]
    assert refused == ["max_tokens", "temperature", "top_p", "stop", "logit_bias"]


def test_effort_none_resolves_every_refusal_that_depends_on_the_effort(refusing_openai):
    sampled = {**TOOL, "temperature": 0, "top_p": 0.5, "logprobs": True}
    for model in ("gpt-6-luna", "gpt-6-sol", "gpt-5.6-luna"):
        assert post(refusing_openai, CHAT, request(CHAT, model, sampled)).status_code == 400
        assert post(refusing_openai, CHAT, request(CHAT, model, {**sampled, **with_effort("none")})).status_code == 200
    for model in ("gpt-5.2", "gpt-5.4"):
        assert post(refusing_openai, CHAT, request(CHAT, model, sampled)).status_code == 200


def test_only_function_tools_depend_on_the_effort(refusing_openai):
    for model in ("gpt-6-luna", "gpt-5.4"):
        sent = {**CUSTOM, **with_effort("low")}
        assert post(refusing_openai, CHAT, request(CHAT, model, sent)).status_code == 200
        sent["tools"] = CUSTOM["tools"] + TOOL["tools"]
        assert post(refusing_openai, CHAT, request(CHAT, model, sent)).status_code == 400


def test_a_snapshot_is_refused_like_its_model_under_its_own_name(refusing_openai):
    body = request(RESPONSES, "gpt-5.1-2025-11-13", with_reasoning("minimal"))
    message = post(refusing_openai, RESPONSES, body).json()["error"]["message"]
    assert message == RESPONSE_EFFORT.format("minimal", "gpt-5.1-2025-11-13", "'none', " + LOW)
    assert (
        post(refusing_openai, CHAT, request(CHAT, "gpt-4o-2024-08-06", with_format("json_schema"))).status_code == 200
    )
    assert post(refusing_openai, CHAT, request(CHAT, "gpt-4o-2099-01-01", {})).status_code == 404


def test_a_retired_model_returns_404(refusing_openai):
    refusing_openai.retired.add("gpt-4o")
    for endpoint in (CHAT, RESPONSES):
        answer = post(refusing_openai, endpoint, request(endpoint, "gpt-4o", {}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert post(refusing_openai, endpoint, request(endpoint, "gpt-4o-mini", {})).status_code == 200


def test_models_are_retired_by_date_and_removed_from_the_list(refusing_openai):
    client = openai.OpenAI(base_url=refusing_openai.url, api_key="sk-test", max_retries=0)
    with client:
        listed = {model.id: model.shutdown_date for model in client.models.list()}
        assert (listed["gpt-4o"], listed["gpt-6-luna"]) == ("2027-01-14", None)
        assert client.models.retrieve("gpt-5").shutdown_date == "2026-12-11"
        refusing_openai.retire_until("2026-12-11")
        remaining = {model.id for model in client.models.list()}
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-5")
    assert set(listed) - remaining >= {"gpt-5", "o4-mini", "gpt-4"}
    assert {"gpt-4o", "gpt-6-luna"} <= remaining


def test_a_smaller_context_window_can_be_set(refusing_openai):
    refusing_openai.context_tokens["gpt-6-luna"] = 100
    assert post(refusing_openai, CHAT, request(CHAT, "gpt-6-luna", with_tokens(100))).status_code == 200
    answer = post(refusing_openai, CHAT, request(CHAT, "gpt-6-luna", with_tokens(101)))
    assert answer.json()["error"]["message"].startswith("Input tokens exceed the configured limit of 100 tokens.")


def test_a_streamed_response_ends_with_an_error_if_its_input_is_too_long(refusing_openai):
    refusing_openai.context_tokens["gpt-5.2"] = 10
    body = request(RESPONSES, "gpt-5.2", {"input": "word" * 11, "stream": True})
    answer = post(refusing_openai, RESPONSES, body)
    assert answer.status_code == 200
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "error"]
    assert events[-1] == {
        "type": "error",
        "sequence_number": 2,
        "error": {
            "message": "Your input exceeds the context window of this model. Please adjust your input and try again.",
            "type": "invalid_request_error",
            "param": "input",
            "code": "context_length_exceeded",
        },
    }


def test_a_streamed_request_is_refused_before_its_stream(refusing_openai):
    for endpoint in (CHAT, RESPONSES):
        answer = post(refusing_openai, endpoint, request(endpoint, "gpt-5", {"temperature": 0, "stream": True}))
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("model", "fields", "written", "reasoned"),
    [("gpt-6-luna", {}, 3, 16), ("gpt-6-luna", with_effort("none"), 3, 0), ("gpt-4o", {}, 0, 0), ("gpt-5", {}, 0, 16)],
)
def test_both_endpoints_report_cached_written_and_reasoning_tokens(refusing_openai, model, fields, written, reasoned):
    with openai.OpenAI(base_url=refusing_openai.url, api_key="sk-test", max_retries=0) as client:
        whole = client.chat.completions.create(**request(CHAT, model, fields)).usage
        *_, last = client.chat.completions.create(
            **request(CHAT, model, fields), stream=True, stream_options={"include_usage": True}
        )
        fields = with_reasoning(fields["reasoning_effort"]) if fields else {}
        response = client.responses.create(**request(RESPONSES, model, fields)).usage
        *_, completed = client.responses.create(**request(RESPONSES, model, fields), stream=True)
    assert whole == last.usage
    assert (whole.prompt_tokens, whole.completion_tokens) == (7, 5 + reasoned)
    assert whole.prompt_tokens_details.cached_tokens == 4
    assert whole.prompt_tokens_details.cache_write_tokens == written
    assert whole.completion_tokens_details.reasoning_tokens == reasoned
    assert response == completed.response.usage
    assert (response.input_tokens, response.output_tokens) == (7, 5 + reasoned)
    assert response.input_tokens_details.cached_tokens == 4
    assert response.input_tokens_details.cache_write_tokens == written
    assert response.output_tokens_details.reasoning_tokens == reasoned


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_tool_is_called_until_its_result_is_sent(refusing_openai, stream):
    with openai.OpenAI(base_url=refusing_openai.url, api_key="sk-test", max_retries=0) as client:
        content = {"model": "gpt-6-luna", **TOOL, **with_effort("none"), "messages": [QUESTION]}
        if stream:
            with client.chat.completions.stream(**content) as events:
                message = events.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(**content).choices[0].message
        (call,) = message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})
        result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
        content["messages"] = [QUESTION, {"role": "assistant", "tool_calls": [call.model_dump()]}, result]
        assert client.chat.completions.create(**content).choices[0].message.content == "The capital is Paris."


def test_tools_on_responses_are_called_at_any_effort(refusing_openai):
    tool = {"type": "function", **FUNCTION, "strict": False}
    with openai.OpenAI(base_url=refusing_openai.url, api_key="sk-test", max_retries=0) as client:
        first = client.responses.create(model="gpt-6-luna", input="Weather?", tools=[tool])
        (call,) = first.output
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"}
        input_items = [{"role": "user", "content": "Weather?"}, call.model_dump(), result]
        second = client.responses.create(model="gpt-6-luna", input=input_items, tools=[tool])
    assert (call.name, call.arguments) == ("weather", '{"city": "Paris"}')
    assert second.output_text == "The capital is Paris."


def test_an_invalid_body_is_refused(refusing_openai):
    assert httpx2.post(f"{refusing_openai.url}/{CHAT}", content=b"{").status_code == 400
    answer = post(refusing_openai, CHAT, {"model": "gpt-4o"})
    assert answer.json()["error"]["code"] == "missing_required_parameter"


def test_the_server_runs_as_a_separate_process():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parent / "refusing_openai.py"
    command = [sys.executable, str(script), "--port", str(port), "--retired", "gpt-5", "--context-tokens", "gpt-4=9"]
    command += ["--alias", "auto=gpt-6-luna"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == f"http://127.0.0.1:{port}/v1\n"
        for model, fields in (("gpt-5", {}), ("gpt-4", with_tokens(10)), ("auto", {"max_tokens": 5})):
            httpx2.post(f"http://127.0.0.1:{port}/v1/{CHAT}", json=request(CHAT, model, fields))
        assert json.loads(process.stdout.readline())["row"] == "retired model"
        assert json.loads(process.stdout.readline())["row"] == "messages too long"
        assert json.loads(process.stdout.readline())["row"] == "max_tokens"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/bodies") as answer:
            assert [body["model"] for body in json.load(answer)] == ["gpt-5", "gpt-4", "auto"]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
