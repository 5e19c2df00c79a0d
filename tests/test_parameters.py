"""Adapted requests: the edited bytes parse to the result of `apply`, and other bytes stay unchanged."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.planning.plan import Plan, Request
from router.policy.catalogue import parse_support
from router.policy.naming import EFFORTS, effort_of, without_effort
from router.policy.parameters import (
    CHAT,
    RESPONSES,
    UNCHANGED,
    Adaptation,
    Change,
    ParameterRule,
    ParameterSupport,
    apply_changes,
    compute_adaptation,
)
from router.policy.reasons import Reason
from router.policy.roles import MOST_MESSAGES
from router.wire import bodies
from router.wire.parameters import MAX_FIELDS, parameter_edits
from router.wire.skeleton import SkeletonBuilder

LOGPROBS = "message.output_text.logprobs"
REASONING = ParameterSupport(
    (
        ParameterRule("max_tokens", called="max_completion_tokens", on=CHAT, most=100),
        ParameterRule("max_completion_tokens", most=100),
        ParameterRule("temperature", values=(1,), unless_effort="none"),
        ParameterRule("logprobs", values=(False,), needed=True),
        ParameterRule("include", on=RESPONSES, without=LOGPROBS, needed=True),
        ParameterRule("stop"),
    ),
    efforts={CHAT: ("none", "low", "medium", "high"), RESPONSES: ("low", "medium", "max")},
    default_effort="medium",
    tools_need_no_effort=True,
)
LONG = "data:image/png;base64," + "A" * 3000


def fields_of(body):
    return bodies.read_fields(body.encode() if isinstance(body, str) else body)


def adapt(support, body, endpoint=CHAT, effort=""):
    """The adapted body of a decoded body."""
    return apply_changes(body, compute_adaptation(support, fields_of(json.dumps(body)), endpoint, effort).changes)


def apply_to_bytes(body, changes, model=None, streamed=False, pieces=1):
    """The sent bytes of a body: read without attachments and edited in chunks, like `router.sending`."""
    size = len(body) // pieces + 1
    cut = [body[index : index + size] for index in range(0, len(body), size)]
    stripping = SkeletonBuilder()
    for piece in cut:
        stripping.feed(piece)
    skeleton = stripping.finish()
    fields = bodies.read_fields(skeleton.text)
    spans = bodies.locate_fields(skeleton.text, fields)
    name = bodies.read_string(fields, "model") or ""
    usage = bodies.usage_edit(fields, spans) if streamed else None
    plan = Plan(Request(fields, spans, name), [], None, Reason.FORCED, streamed, usage, "", "")
    edits = plan.edits(skeleton.text, model or name, Adaptation(tuple(changes)))
    body_edits = [bodies.Edit(skeleton.in_body(start), skeleton.in_body(stop), text) for start, stop, text in edits]
    return b"".join(bodies.apply_edits(cut, body_edits))


# changed fields


def test_fields_without_a_rule_are_not_changed():
    body = {"model": "auto", "messages": [], "user": "a", "temperature": 1, "max_completion_tokens": 9}
    assert compute_adaptation(REASONING, fields_of(json.dumps(body)), CHAT) is UNCHANGED
    assert (
        compute_adaptation(
            ParameterSupport(), fields_of('{"max_tokens":5,"reasoning_effort":"low","tools":[{}]}'), CHAT
        )
        is UNCHANGED
    )
    assert compute_adaptation(REASONING, fields_of('{"max_tokens":5}'), "completions") is UNCHANGED


@pytest.mark.parametrize(
    ("body", "expected", "description"),
    [
        ({"max_tokens": 5}, {"max_completion_tokens": 5}, "max_tokens as max_completion_tokens"),
        ({"max_tokens": 500}, {"max_completion_tokens": 100}, "max_tokens as max_completion_tokens 100"),
        ({"max_tokens": 5, "max_completion_tokens": 9}, {"max_completion_tokens": 9}, "max_tokens dropped"),
        (
            {"max_tokens": 5, "max_completion_tokens": None},
            {"max_completion_tokens": 5},
            "max_tokens as max_completion_tokens",
        ),
        ({"max_completion_tokens": 500}, {"max_completion_tokens": 100}, "max_completion_tokens 100"),
        ({"temperature": 0}, {}, "temperature dropped"),
        ({"temperature": True}, {}, "temperature dropped"),
        ({"temperature": 1.0}, {"temperature": 1.0}, ""),
        ({"temperature": None, "stop": None}, {"temperature": None, "stop": None}, ""),
        ({"logprobs": False}, {"logprobs": False}, ""),
        ({"logprobs": 0}, {}, "logprobs dropped"),
        (
            {"temperature": 0, "reasoning_effort": "none"},
            {"temperature": 0, "reasoning_effort": "none"},
            "",
        ),
        ({"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}, "reasoning effort low"),
        ({"reasoning_effort": "max"}, {"reasoning_effort": "high"}, "reasoning effort high"),
        ({"reasoning_effort": "bogus"}, {}, "reasoning effort dropped"),
        ({"reasoning_effort": ""}, {}, "reasoning effort dropped"),
        ({"reasoning_effort": None}, {}, "reasoning effort dropped"),
        ({"reasoning_effort": 5}, {"reasoning_effort": 5}, ""),
        (
            {"tools": [{}], "temperature": 0},
            {"tools": [{}], "temperature": 0, "reasoning_effort": "none"},
            "reasoning effort none",
        ),
        ({"tools": []}, {"tools": []}, ""),
        ({"tools": None}, {"tools": None}, ""),
        ({"stop": ["a"], "temperature": 2}, {}, "temperature dropped; stop dropped"),
    ],
)
def test_a_chat_request_is_changed_by_the_rules(body, expected, description):
    adaptation = compute_adaptation(REASONING, fields_of(json.dumps(body)), CHAT)
    assert apply_changes(body, adaptation.changes) == expected
    assert adaptation.description == description


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"reasoning": {"effort": "minimal"}}, {"reasoning": {"effort": "low"}}),
        (
            {"reasoning": {"summary": "auto", "effort": "xhigh"}},
            {"reasoning": {"summary": "auto", "effort": "max"}},
        ),
        ({"reasoning": {"effort": "bogus"}}, {}),
        ({"reasoning": {"effort": "bogus", "summary": "auto"}}, {"reasoning": {"summary": "auto"}}),
        ({"reasoning": None}, {"reasoning": None}),
        ({"reasoning": {"effort": None}}, {"reasoning": {"effort": None}}),
        ({"include": ["a", LOGPROBS]}, {"include": ["a"]}),
        ({"include": [LOGPROBS]}, {"include": []}),
        ({"include": ["a"]}, {"include": ["a"]}),
        ({"include": LOGPROBS}, {"include": LOGPROBS}),
        ({"tools": [{}]}, {"tools": [{}]}),
        ({"max_tokens": 500}, {"max_tokens": 500}),
    ],
)
def test_a_response_request_is_changed_by_the_rules(body, expected):
    assert adapt(REASONING, body, RESPONSES) == expected


def test_the_effort_in_a_policys_model_name_overrides_the_clients():
    assert adapt(REASONING, {"reasoning_effort": "high"}, effort="low") == {"reasoning_effort": "low"}
    assert adapt(REASONING, {}, effort="low") == {"reasoning_effort": "low"}
    assert adapt(REASONING, {"reasoning": {"summary": "auto"}}, RESPONSES, "low") == {
        "reasoning": {"summary": "auto", "effort": "low"}
    }
    assert adapt(REASONING, {"reasoning": None}, RESPONSES, "low") == {"reasoning": {"effort": "low"}}
    assert adapt(ParameterSupport(), {}, effort="low") == {"reasoning_effort": "low"}


def test_tools_are_unavailable_with_reasoning_if_they_require_no_effort():
    tools = fields_of('{"tools":[{"type":"function"}]}')
    assert compute_adaptation(REASONING, tools, CHAT).unavailable == ()
    assert compute_adaptation(REASONING, tools, CHAT, "low").unavailable == ("tools with reasoning",)
    assert compute_adaptation(REASONING, tools, CHAT, "none").unavailable == ()
    assert compute_adaptation(REASONING, tools, RESPONSES, "low").unavailable == ()
    assert compute_adaptation(REASONING, fields_of('{"tools": [ ] }'), CHAT) is UNCHANGED


@pytest.mark.parametrize("effort_field", ['"reasoning_effort":"none",', '"reasoning_effort":"low",', ""])
def test_tools_are_unavailable_on_chat_completions_of_a_model_that_always_reasons(effort_field):
    always_reasoning = ParameterSupport(
        efforts={CHAT: ("low", "high")}, default_effort="low", tools_need_no_effort=True
    )
    assert compute_adaptation(always_reasoning, fields_of("{" + effort_field + '"tools":[{}]}'), CHAT).unavailable == (
        "tools with reasoning",
    )


def test_values_within_a_changed_field_are_kept_unchanged():
    body = b'{"reasoning":{"summary":"\\u00e9","x":1e400,"effort":"minimal","y":1.10},"include":["\\/","%b"]}'
    body = body.replace(b"%b", LOGPROBS.encode())
    expected = apply_to_bytes(body, compute_adaptation(REASONING, fields_of(body), RESPONSES).changes)
    assert expected == b'{"reasoning":{"summary":"\\u00e9","x":1e400,"effort":"low","y":1.10},"include":["\\/"]}'


def test_long_values_are_not_decoded():
    body = '{"temperature":' + "1" * 100_000 + ',"stop":"' + "x" * 100_000 + '","include":"' + "[" * 100_000 + '"}'
    assert [change.name for change in compute_adaptation(REASONING, fields_of(body), CHAT).changes] == [
        "temperature",
        "stop",
    ]


def test_invalid_rules_in_a_table_are_refused():
    support = parse_support({"parameters": ["f", {"name": "stop"}], "max_output_tokens": 7}, {"f": [{"name": "user"}]})
    assert support.affected_fields() == {"user", "stop"} and support.lowest_limit() == 7
    for invalid_rule in ({"name": 5}, {"name": "a", "unknown": 1}, "f", None):
        with pytest.raises(ValueError, match="not a rule"):
            parse_support(
                {"parameters": [["x"], invalid_rule][1:] if invalid_rule != "f" else ["f"]}, {"f": [invalid_rule]}
            )
    with pytest.raises(KeyError):
        parse_support({"parameters": ["nowhere"]}, {})


@given(st.text(max_size=12), st.sampled_from(EFFORTS))
def test_a_policys_model_name_contains_model_and_effort(base, effort):
    assert effort_of(f"{base}:{effort}") == (effort if base else "")
    if base:
        assert without_effort(f"{base}:{effort}") == base


# edits in bytes

BLANK = st.sampled_from(["", " ", "\n\t", "  \r\n"])
NAMES = st.sampled_from(["max_tokens", "stop", "temperature", "a", 'q"uo,te', "b\\", "é", "x:{y", "tools", "reasoning"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8) | st.sampled_from(["},{", '","']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def body_texts(draw):
    """A body in any order, with blanks, escapes and attachments."""
    body = draw(st.dictionaries(NAMES, VALUES | st.just(LONG) | st.just([{"url": LONG}, "x"]), max_size=7))
    if draw(st.booleans()):
        body["model"] = "auto"
        body = {name: body[name] for name in draw(st.permutations(list(body)))}
    ascii_only = draw(st.booleans())
    parts = [
        f"{draw(BLANK)}{json.dumps(name, ensure_ascii=ascii_only)}{draw(BLANK)}:{draw(BLANK)}"
        f"{json.dumps(value, ensure_ascii=ascii_only)}{draw(BLANK)}"
        for name, value in body.items()
    ]
    return body, (draw(BLANK) + "{" + (",".join(parts) or draw(BLANK)) + "}" + draw(BLANK)).encode()


@st.composite
def changes_of(draw, body):
    """One change for each present field, and added fields."""
    expected = []
    for name in draw(st.permutations([name for name in body if name != "model"])):
        kind = draw(st.sampled_from(["keep", "drop", "drop", "value", "rename", "both"]))
        value = draw(VALUES)
        if kind == "drop":
            expected.append(Change(name, dropped=True))
        elif kind != "keep":
            new_name = f"new {name}" if kind in ("rename", "both") else ""
            expected.append(Change(name, new_name, None if kind == "rename" else msgspec.json.encode(value)))
    put_in = sorted(draw(st.sets(st.sampled_from(["reasoning_effort", "verbosity"]))))
    return expected + [Change(name, value=b'"low"') for name in put_in]


@given(st.data())
def test_edited_bytes_parse_to_the_result_of_apply(data):
    body, raw = data.draw(body_texts())
    changes = data.draw(changes_of(body))
    streamed = "model" in body and data.draw(st.booleans())
    model = data.draw(st.sampled_from(["auto", "gpt-6-luna"])) if "model" in body else None
    result = json.loads(apply_to_bytes(raw, changes, model, streamed, data.draw(st.integers(1, 9))))
    expected = apply_changes(body, changes)
    if model is not None:
        expected["model"] = model
    if streamed:
        expected["stream_options"] = {"include_usage": True}
    assert result == expected
    dropped = {change.name for change in changes if change.dropped}
    renames = {change.name: change.new_name for change in changes if change.new_name}
    order = [renames.get(name, name) for name in body if name not in dropped]
    assert [name for name in result if name in order] == order


@given(st.data())
def test_other_bytes_stay_unchanged(data):
    body, raw = data.draw(body_texts())
    changes = data.draw(changes_of(body))
    expected = apply_to_bytes(raw, changes, pieces=data.draw(st.integers(1, 9)))
    if not changes:
        assert expected == raw
    touched = {change.name for change in changes}
    spans = bodies.locate_fields(raw, bodies.read_fields(raw))
    for name, (start, stop) in spans.items():
        if name not in touched:
            key_end = raw.rindex(b'"', 0, start)
            assert raw[key_end:stop] in expected
    assert expected.partition(b"{")[0] == raw.partition(b"{")[0]
    assert expected.rpartition(b"}")[2] == raw.rpartition(b"}")[2]


@pytest.mark.parametrize(
    ("body", "gone", "expected_body"),
    [
        (b'{"a":1,"b":2,"c":3}', "a", b'{"b":2,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', "b", b'{"a":1,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', "c", b'{"a":1,"b":2}'),
        (b'{"a":1,"b":2,"c":3}', "ab", b'{"c":3}'),
        (b'{"a":1,"b":2,"c":3}', "bc", b'{"a":1}'),
        (b'{"a":1,"b":2,"c":3}', "ac", b'{"b":2}'),
        (b'{ "a" : 1 , "b" : 2 }', "a", b'{ "b" : 2 }'),
        (b'{ "a" : 1 , "b" : 2 }', "b", b'{ "a" : 1 }'),
        (b'{ "a" : 1 , "b" : 2 }\n', "ab", b"{ }\n"),
        (b'{"a":1}', "a", b"{}"),
    ],
)
def test_a_field_is_removed_with_its_comma(body, gone, expected_body):
    assert apply_to_bytes(body, [Change(name, dropped=True) for name in gone]) == expected_body


def test_a_field_is_added_to_an_emptied_body():
    assert apply_to_bytes(b'{"a":1}', [Change("a", dropped=True), Change("b", value=b"2")]) == b'{"b":2}'
    assert apply_to_bytes(b"{}", [Change("b", value=b"2"), Change("c", value=b"3")]) == b'{"b":2,"c":3}'


def test_all_edits_work_together_on_pieces_of_any_size():
    body = (
        b'{"stop":"x","model" :"auto", "max_tokens" : 500 ,"messages":[{"role":"user","content":[{"type":"image_url",'
        b'"image_url":{"url":"%b"}}]}],"temperature":0,"stream":true}' % LONG.encode()
    )
    adaptation = compute_adaptation(REASONING, fields_of(body), CHAT, "low")
    expected = (
        b'{"reasoning_effort":"low","model" :"gpt-6-sol","stream_options":{"include_usage":true}, '
        b'"max_completion_tokens" : 100 ,"messages":[{"role":"user","content":[{"type":"image_url",'
        b'"image_url":{"url":"%b"}}]}],"stream":true}' % LONG.encode()
    )
    for pieces in (1, 2, 3, 7, 50, len(body)):
        assert apply_to_bytes(body, adaptation.changes, "gpt-6-sol", streamed=True, pieces=pieces) == expected


BEFORE = (
    b'{"x":1.10, "messages" : [ {"content":"\\u00e9 \\"role\\":\\"developer\\"", "role" : "developer" } ,'
    b'\n{"role":"user"}] }'
)
SYSTEM = ParameterSupport((ParameterRule("messages", roles={"developer": "system"}),))
USER = ParameterSupport(
    tuple(ParameterRule(name, roles={"developer": "user", "system": "user"}) for name in ("messages", "input"))
)


@pytest.mark.parametrize(
    ("support", "endpoint", "body", "expected", "description"),
    [
        (
            SYSTEM,
            CHAT,
            BEFORE,
            BEFORE.replace(b'"role" : "developer"', b'"role" : "system"'),
            "developer messages as system",
        ),
        (
            USER,
            RESPONSES,
            b'{"input":[{"role":"system","content":[{"role":"system"}]},{"type":"x"},{"role":"d\\u0065veloper"}]}',
            b'{"input":[{"role":"user","content":[{"role":"system"}]},{"type":"x"},{"role":"user"}]}',
            "developer messages as user, system messages as user",
        ),
        (SYSTEM, CHAT, b'{"messages":[{"role":"system"},{"role":"user","content":"developer"}]}', None, ""),
        (SYSTEM, CHAT, b'{"messages":[{"role":"developer"},5]}', None, ""),
        (SYSTEM, CHAT, b'{"messages":{"role":"developer"}}', None, ""),
        (SYSTEM, CHAT, b'{"messages":"developer"}', None, ""),
        (SYSTEM, CHAT, b'{"messages":null,"role":"developer"}', None, ""),
        (SYSTEM, CHAT, b'{"messages":[{"role":["developer"]},{"role":null},{}]}', None, ""),
        (SYSTEM, RESPONSES, b'{"input":[{"role":"developer"}]}', None, ""),
        (USER, RESPONSES, b'{"input":"developer"}', None, ""),
    ],
)
def test_only_the_role_of_a_message_is_changed(support, endpoint, body, expected, description):
    adaptation = compute_adaptation(support, fields_of(body), endpoint)
    for pieces in (1, 7, len(body)):
        assert apply_to_bytes(body, adaptation.changes, pieces=pieces) == (expected or body)
    assert adaptation.description == description
    assert apply_changes(json.loads(body), adaptation.changes) == json.loads(expected or body)


def test_a_message_with_two_roles_is_unchanged():
    body = b'{"messages":[{"role":"developer","role":"developer"},{"role":"developer"}]}'
    expected = apply_to_bytes(body, compute_adaptation(SYSTEM, fields_of(body), CHAT).changes)
    assert expected == b'{"messages":[{"role":"developer","role":"developer"},{"role":"system"}]}'


def test_a_hostile_list_of_messages_is_not_changed():
    many = b'{"messages":[%b{"role":"developer"}]}' % (b"{}," * MOST_MESSAGES)
    wide = b'{"messages":[{%b"role":"developer"}]}' % b"".join(b'"k%d":1,' % n for n in range(MAX_FIELDS))
    assert compute_adaptation(SYSTEM, fields_of(many), CHAT) is UNCHANGED
    assert apply_to_bytes(wide, compute_adaptation(SYSTEM, fields_of(wide), CHAT).changes) == wide


ROLES = st.sampled_from(["developer", "system", "user", "assistant", 5, None, "devel\u00f6per"])
MESSAGES = st.lists(
    st.fixed_dictionaries({}, optional={"role": ROLES, "content": VALUES | st.just([{"url": LONG}]), "name": VALUES})
)


@given(
    MESSAGES,
    BLANK,
    st.booleans(),
    st.integers(1, 9),
    st.sampled_from([(SYSTEM, CHAT), (USER, CHAT), (USER, RESPONSES)]),
)
def test_messages_with_replaced_roles_parse_to_the_result_of_apply(messages, blank, ascii_only, pieces, given_to):
    support, endpoint = given_to
    name = "messages" if endpoint == CHAT else "input"
    text = json.dumps(messages, ensure_ascii=ascii_only, separators=(blank + ",", ":" + blank))
    body = f'{{"a":1,"{name}":{text},"b":2}}'.encode()
    changes = compute_adaptation(support, fields_of(body), endpoint).changes
    result = apply_to_bytes(body, changes, pieces=pieces)
    roles = next(rule.roles for rule in support.rules if rule.name == name)
    expected = [
        {**message, "role": roles.get(message["role"], message["role"])} if "role" in message else message
        for message in messages
    ]
    assert json.loads(result) == apply_changes(json.loads(body), changes) == {"a": 1, name: expected, "b": 2}


def test_a_removed_attachment_is_removed_completely():
    body = b'{"user":{"data":"%b"},"model":"m","stop":"%b"}' % (LONG.encode(), LONG.encode())
    gone = [Change("user", dropped=True), Change("stop", dropped=True)]
    for pieces in (1, 5, 100):
        assert apply_to_bytes(body, gone, pieces=pieces) == b'{"model":"m"}'


def test_each_field_is_edited_once():
    spans = {"a": (5, 6)}
    assert [*parameter_edits(b'{"a":1}', spans, [Change("a", new_name="b", value=b"2")])] == [
        (1, 4, b'"b"'),
        (5, 6, b"2"),
    ]
