"""Refusals of OpenAI's models are understood by their messages; other errors are not read as refusals."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import CHAT, MODELS, RESPONSES, ROWS, SNAPSHOTS, refusal
from test_refusing_openai import CASES

from router.policy.naming import EFFORTS
from router.policy.parameters import LIMITS, ParameterRule, ParameterSupport, apply_changes, compute_adaptation
from router.policy.refusals import MAX_ERROR_BYTES, Refusal, RefusalKind, read_refusal, support_after_refusal
from router.wire import bodies

NOT_MENDED = {  # rows of `refusals.json` whose errors are forwarded, each with its reason
    "response_format on responses": "a field of the other endpoint, which no model takes there",
    "reasoning_effort on responses": "a field of the other endpoint, which no model takes there",
    "images": "what is asked is not changed; the policy knows which models read images",
    "audio": "what is asked is not changed; the policy knows which models hear",
    "json_schema": "an answer of another form is no answer",
    "json_object": "an answer of another form is no answer",
    "max_completion_tokens too small": "no model takes it, and a longer answer was not asked for",
    "max_output_tokens too small": "no model takes it, and a longer answer was not asked for",
}
KINDS = {  # kinds of the other rows that are not about a parameter
    "retired model": RefusalKind.MODEL_NOT_FOUND,
    **{name: RefusalKind.CONTEXT for name in ROWS if "too long" in name},
    **{name: RefusalKind.TOOLS for name in ROWS if name.startswith("function tools")},
    **{name: RefusalKind.ROLE for name in ROWS if name.startswith("roles of")},
    **{name: RefusalKind.EFFORT for name in ROWS if name.startswith(("reasoning_effort", "reasoning.effort"))},
}


def body_of(name):
    """The endpoint and a body that the row refuses."""
    endpoint, model, parameters, *_ = CASES[name]
    asks = {"messages": [{"role": "user", "content": "hi"}]} if endpoint == CHAT else {"input": "hi"}
    return endpoint, {"model": model, **asks, **parameters}


def error(**fields):
    return json.dumps({"error": {"message": "", "type": "invalid_request_error", "param": None, "code": None} | fields})


def read_error(status=400, **fields):
    return read_refusal(status, error(**fields).encode())


def test_every_recorded_refusal_is_understood_or_listed_as_not():
    assert set(CASES) == set(ROWS)
    assert set(NOT_MENDED) <= set(ROWS)
    assert not set(NOT_MENDED) & {name for name, kind in KINDS.items() if name not in NOT_MENDED}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_refusals_are_read_by_kind(name):
    endpoint, body = body_of(name)
    refused = refusal(endpoint, body)
    assert refused is not None and refused.row == name
    lesson = read_refusal(refused.status, json.dumps(refused.body).encode())
    if name in NOT_MENDED:
        assert lesson is None
    else:
        assert lesson is not None and lesson.kind is KINDS.get(name, RefusalKind.PARAMETER)


@pytest.mark.parametrize("name", sorted(set(ROWS) - set(NOT_MENDED)))
def test_an_unknown_model_accepts_the_request_after_learning_from_its_refusals(name):
    """Each refusal teaches one lesson, which repairs the request; the same refusal does not recur."""
    endpoint, body = body_of(name)
    support, lessons_read = ParameterSupport(), []
    while (refused := refusal(endpoint, body)) is not None:
        lesson = read_refusal(refused.status, json.dumps(refused.body).encode())
        if lesson.kind in (RefusalKind.MODEL_NOT_FOUND, RefusalKind.CONTEXT):
            return
        assert (refused.row, refused.body) not in lessons_read
        lessons_read.append((refused.row, refused.body))
        assert support_after_refusal(support, lesson, endpoint) != support
        support = support_after_refusal(support, lesson, endpoint)
        adaptation = compute_adaptation(support, bodies.read_fields(json.dumps(body_of(name)[1]).encode()), endpoint)
        body = apply_changes(body_of(name)[1], adaptation.changes)
        if "tools with reasoning" in adaptation.unavailable:
            return
    assert lessons_read


def test_several_refusals_of_one_request_are_learnt_one_by_one():
    fields_sent = {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 200_000,
        "temperature": 0,
        "top_p": 0.5,
        "stop": "x",
        "presence_penalty": 0,
        "logprobs": True,
        "reasoning_effort": "none",
    }
    support, body, lessons = ParameterSupport(), fields_sent, 0
    while (refused := refusal(CHAT, body)) is not None:
        support = support_after_refusal(support, read_refusal(refused.status, json.dumps(refused.body).encode()), CHAT)
        body = apply_changes(
            fields_sent, compute_adaptation(support, bodies.read_fields(json.dumps(fields_sent).encode()), CHAT).changes
        )
        lessons += 1
    assert lessons == 8
    assert body == {
        "model": "gpt-5",
        "messages": fields_sent["messages"],
        "reasoning_effort": "minimal",
        "max_completion_tokens": 128_000,
    }


@pytest.mark.parametrize(
    ("message", "param", "role"),
    [
        ("Unsupported value: 'messages[3].role' does not support 'developer' with this model.", "messages[3].role", 1),
        ("messages[0].role: unknown variant `system`, expected `user` or `assistant`", None, 2),
        ("The parameter `messages.role` specified in the request are not valid: invalid value: `developer`", None, 1),
        ("Invalid enum value. Expected 'system' | 'user', received 'developer'", "messages.0.role", 1),
        ("invalid parameter 'messages[0].role': invalid role 'developer', must be one of: system, user", "", 1),
        ("chat template rejected the request: Unexpected message role.", None, 1),
        ("Unsupported value: 'messages[59].role' does not support 'function' with this model.", "messages[59].role", 0),
        ("invalid value: `SYSTEM_`, supported values are: `system`, `developer`: messages.role", None, 0),
        ("Unsupported value: 'user' does not support 'developer' with this model.", "user", 0),
        ("You are a developer: 'developer'. What a role!", None, 0),
    ],
)
def test_a_refused_role_is_read_from_the_message(message, param, role):
    """Source: issues lobehub 5704, vm0 15388, agno 6697, chatwise-releases 971, new-api 5330 and others."""
    lesson = read_error(message=message, param=param)
    assert (lesson.role if lesson is not None and lesson.kind is RefusalKind.ROLE else "") == [
        "",
        "developer",
        "system",
    ][role]


def test_status_422_is_read_for_roles_only():
    message = "Failed to deserialize the JSON body into the target type: messages[0].role: unknown variant `developer`"
    assert read_error(422, message=message).role == "developer"
    assert read_error(422, message="Unsupported parameter: 'stop'", code="unsupported_parameter") is None


def test_a_model_that_refuses_both_roles_of_instructions_gets_user_messages():
    body = {"messages": [{"role": role, "content": "hi"} for role in ("developer", "user", "system")]}
    support, roles = ParameterSupport(), []
    for refused in ("developer", "system"):
        support = support_after_refusal(support, Refusal(RefusalKind.ROLE, role=refused), CHAT)
        fields = bodies.read_fields(json.dumps(body).encode())
        roles.append(
            [
                message_sent["role"]
                for message_sent in apply_changes(body, compute_adaptation(support, fields, CHAT).changes)["messages"]
            ]
        )
        assert support_after_refusal(support, Refusal(RefusalKind.ROLE, role=refused), CHAT) == support
        assert support_after_refusal(support, Refusal(RefusalKind.ROLE, role=refused), "completions") == support
    assert roles == [["system", "user", "system"], ["user", "user", "user"]]
    assert (
        compute_adaptation(support, bodies.read_fields(b'{"input":[{"role":"developer"}]}'), RESPONSES).description
        == ""
    )


@pytest.mark.parametrize("first", ["limit", "name"])
def test_a_limit_and_a_new_name_are_both_learnt(first):
    large = "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you provided"
    limit = read_error(message=large, param="max_tokens")
    name = read_error(
        message="Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
        "instead.",
        param="max_tokens",
        code="unsupported_parameter",
    )
    support = ParameterSupport()
    for lesson in (limit, name) if first == "limit" else (name, limit):
        support = support_after_refusal(support, lesson, CHAT)
        assert support_after_refusal(support, lesson, CHAT) == support
    for body, expected in (({"max_tokens": 32_000}, 16_384), ({"max_completion_tokens": 20_000}, 16_384)):
        fields = bodies.read_fields(json.dumps(body).encode())
        assert apply_changes(body, compute_adaptation(support, fields, CHAT).changes) == {
            "max_completion_tokens": expected
        }


def test_a_smaller_limit_replaces_a_known_one():
    known = ParameterSupport(tuple(ParameterRule(name, most=16_384) for name in LIMITS))
    large = "max_tokens is too large: 9000. This model supports at most 8192 completion tokens, whereas you provided"
    assert support_after_refusal(known, read_error(message=large, param="max_tokens"), CHAT).lowest_limit() == 8192


def test_a_lesson_holds_for_its_endpoint_only():
    lesson = read_error(
        message="Unsupported parameter: 'temperature' is not supported with this model.", param="temperature"
    )
    support = support_after_refusal(ParameterSupport(), lesson, RESPONSES)
    fields = bodies.read_fields(b'{"temperature":0}')
    assert compute_adaptation(support, fields, RESPONSES).description == "temperature dropped"
    assert compute_adaptation(support, fields, CHAT).description == ""


def test_unknown_efforts_are_not_requested():
    message = "Unsupported value: 'reasoning_effort' does not support 'low' with this model. Supported values are: {}."
    some_known = read_error(message=message.format("'high', 'turbo', and 'none'"), param="reasoning_effort")
    assert some_known.efforts == ("none", "high")
    none_known = read_error(message=message.format("'turbo'"), param="reasoning_effort")
    for lesson, expected in ((some_known, {"reasoning_effort": "high"}), (none_known, {})):
        fields = bodies.read_fields(b'{"reasoning_effort":"low"}')
        support = support_after_refusal(ParameterSupport(), lesson, CHAT)
        assert apply_changes({"reasoning_effort": "low"}, compute_adaptation(support, fields, CHAT).changes) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"message": "Unsupported parameter: 'messages' is not supported with this model.", "param": "messages"},
        {"message": "Unsupported parameter: 'tools' is not supported with this model.", "param": "tools"},
        {"message": "Unsupported value: 'model' does not support 'x'.", "param": "model"},
        {"message": "Invalid value: 'bogus'. Supported values are: 'low'.", "param": "reasoning_effort"},
        {
            "message": "Invalid type for 'temperature': expected a number.",
            "param": "temperature",
            "code": "invalid_type",
        },
        {
            "message": "max_tokens is too large: 5. This model supports at most 0 completion tokens",
            "param": "max_tokens",
        },
        {"message": "max_tokens is too large: 5. This model supports at most -1 completion", "param": "max_tokens"},
        {"message": "max_tokens is too large: 5. This model supports at most 9999999999 c", "param": "max_tokens"},
        {"message": "Unrecognized request argument supplied: functions"},
        {"message": "Unrecognized request argument supplied: "},
        {"message": "Unsupported parameter: '"},
        {"message": "Unsupported parameter: ''"},
        {"message": "'''''''", "code": "unsupported_parameter"},
        {"message": 'Unsupported parameter: "temperature"'},
        {"message": 5, "code": 5, "param": 5},
        {"message": ["a"], "code": ["unsupported_parameter"], "param": {"a": 1}},
        {"message": {}, "code": {}, "param": []},
        {"message": None, "code": "unsupported_parameter"},
        {"message": "\x00" * 100, "code": "\x00"},
    ],
    ids=str,
)
def test_other_errors_are_not_read_as_refusals(fields):
    assert read_error(**fields) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Bad Request",
        b"<html><body>400</body></html>",
        b"null",
        b"5",
        b'"error"',
        b"[]",
        b'["error"]',
        b"{}",
        b'{"error":null}',
        b'{"error":"Unsupported parameter: \'temperature\'"}',
        b'{"error":[{"code":"model_not_found"}]}',
        b'{"error":{}}',
        b'{"error":{"message":"Unsupported parameter: \'temperature\'"',
        b'{"error":{"message":"\xff\xfe"}}',
        b'{"error":{"message":"\\ud83d"}}',
        b"[" * 60_000,
        b'{"error":' * 7_000,
        b'{"error":{"param":' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
        b'{"error":{"code":' + b"9" * 60_000 + b"}}",
        b'{"error":{"code":1e999999}}',
    ],
    ids=lambda body: repr(body[:40]),
)
@pytest.mark.parametrize("status", [400, 403, 404])
def test_bodies_in_other_formats_are_not_read_as_refusals(body, status):
    assert read_refusal(status, body) is None


def test_only_refusal_statuses_are_read():
    gone = error(code="model_not_found").encode()
    assert read_refusal(404, gone).kind is RefusalKind.MODEL_NOT_FOUND
    assert read_refusal(410, b"gone").kind is RefusalKind.MODEL_NOT_FOUND
    for status in (200, 401, 409, 422, 429, 500, 503):
        assert read_refusal(status, gone) is None
    assert read_refusal(404, gone + b" " * MAX_ERROR_BYTES) is None
    assert read_refusal(404, error(code="not_found", message="no such route").encode()) is None


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation", "invalid_prompt", "cyber_policy"])
def test_filtered_content_is_recognised_by_its_code(code):
    assert (
        read_error(code=code, message="Invalid prompt: we've limited access to this content").kind
        is RefusalKind.CONTENT
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WORDS = st.sampled_from(
    [
        *("Unsupported parameter: ", "Unsupported value: ", "'", "temperature", "reasoning_effort", " is too large: "),
        *("Supported values are: ", "Use '", "' instead", "max_tokens", "at most ", "٣", "²", "16384", " ", "none"),
        *("messages[0].role", " does not support '", "developer", "unknown variant `system`"),
        *("Unrecognized request argument supplied: ", "Function tools with reasoning_effort", "\ud83d", "turbo"),
    ]
)
MESSAGES = st.lists(WORDS, max_size=12).map("".join)


@given(
    st.dictionaries(st.sampled_from(["message", "code", "param", "type"]), JSON | MESSAGES, max_size=4) | JSON,
    st.sampled_from([400, 403, 404, 410]),
    st.sampled_from([CHAT, RESPONSES]),
)
def test_no_upstream_error_raises(said, status, endpoint):
    lesson = read_refusal(status, json.dumps({"error": said}).encode())
    if lesson is None:
        return
    support = support_after_refusal(ParameterSupport(), lesson, endpoint)
    for body in (
        b'{"max_tokens":99999999,"temperature":0,"stop":[]}',
        b'{"reasoning_effort":"low","tools":[{}]}',
        b'{"messages":[{"role":"system"}]}',
    ):
        changes = compute_adaptation(support, bodies.read_fields(body), endpoint).changes
        assert isinstance(apply_changes(json.loads(body), changes), dict)
    assert set(lesson.efforts) <= set(EFFORTS)


UNITS = ("'", "Use '", "' instead", "a", " ", "Supported values are: '", "at most ", "1", " is too large: ", "\\u0027")


@pytest.mark.parametrize("beginning", ["", "Unsupported value: '", "Unrecognized request argument supplied: ", "This "])
@pytest.mark.parametrize("unit", UNITS)
def test_errors_are_read_in_linear_time(beginning, unit):
    def seconds(length):
        body = b'{"error":{"message":"%b","code":"unsupported_value"}}' % (beginning + unit * length).encode()[:length]
        times = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(20):
                read_refusal(400, body)
            times.append(time.perf_counter() - start)
        return min(times) / 20

    for _ in range(3):  # other processes run on this machine
        once, twice = seconds(30_000), seconds(60_000)
        if twice < max(2.6 * once, 1e-4):
            return
    raise AssertionError((once, twice))


def test_every_model_in_the_table_of_refusals_has_its_snapshots():
    assert set(SNAPSHOTS.values()) <= set(MODELS)
