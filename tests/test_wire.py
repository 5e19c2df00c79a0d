"""Request bodies edited in place, and streams cut at every byte."""

import json

import msgspec
import pytest
from fake_openai import chat_events
from hypothesis import given
from hypothesis import strategies as st

from router.errors import BadRequestError
from router.wire import bodies
from router.wire.chat_stream import ChatStream
from router.wire.skeleton import SkeletonBuilder
from router.wire.sse import EventSplitter, event_data

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(texts, values, max_size=6),
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
    st.sampled_from(["", " ", "\n\t "]),
)
def test_locate_fields_finds_every_value(fields, indent, ascii_only, around):
    body = (around + json.dumps(fields, indent=indent, ensure_ascii=ascii_only) + around).encode()
    parsed = bodies.read_fields(body)
    for name, (start, stop) in bodies.locate_fields(body, parsed).items():
        assert json.loads(body[start:stop]) == fields[name]


@given(st.dictionaries(texts, values, min_size=1, max_size=5), st.data())
def test_duplicate_keys_are_always_detected(fields, data):
    again = data.draw(st.sampled_from(sorted(fields)))
    pairs = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
    position = data.draw(st.integers(0, len(pairs)))
    pairs.insert(position, f"{json.dumps(again)}: {json.dumps(data.draw(values))}")
    body = ("{" + ", ".join(pairs) + "}").encode()
    with pytest.raises(BadRequestError) as error:
        bodies.locate_fields(body, bodies.read_fields(body))
    assert error.value.param is not None


@given(st.dictionaries(texts, values, max_size=4), values)
def test_an_edit_changes_only_its_span(fields, value):
    body = json.dumps({**fields, "model": "auto"}, indent=1).encode()
    span = bodies.locate_fields(body, bodies.read_fields(body))["model"]
    changed = b"".join(bodies.apply_edits((body,), [bodies.Edit(*span, json.dumps(value).encode())]))
    assert json.loads(changed) == {**fields, "model": value}
    assert changed.startswith(body[: span[0]]) and changed.endswith(body[span[1] :])


STREAM = b"".join(chat_events("gpt-4o", ('say "usage":null', ',"usage":null,', "é\n\n", "."), usage=True))
CLEAN = b"".join(chat_events("gpt-4o", ('say "usage":null', ',"usage":null,', "é\n\n", "."), usage=False))


def test_a_stream_cut_at_any_byte_is_forwarded_unchanged():
    for cut in range(len(STREAM) + 1):
        stream = ChatStream(strip_usage=True)
        passed = stream.feed(STREAM[:cut]) + stream.feed(STREAM[cut:]) + stream.incomplete_event()
        assert passed == CLEAN
        assert stream.usage["prompt_tokens"] == 12
        assert stream.done and stream.is_complete


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans(), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_a_stream_in_any_pieces_is_parsed_the_same(cuts, strip, newline):
    whole, clean = STREAM.replace(b"\n", newline), CLEAN.replace(b"\n", newline)
    stream = ChatStream(strip_usage=strip)
    position, passed = 0, b""
    for cut in [*sorted(cuts), len(whole)]:
        passed += stream.feed(whole[position:cut])
        position = max(position, cut)
    assert passed + stream.incomplete_event() == (clean if strip else whole)
    content = stream.content()["choices"][0]
    assert content["message"]["content"] == 'say "usage":null,"usage":null,é\n\n.'
    assert content["finish_reason"] == "stop"


def test_each_event_is_forwarded_as_soon_as_it_is_complete():
    stream = ChatStream(strip_usage=True)
    for event in chat_events("gpt-4o"):
        assert stream.feed(event[:-1]) == b""
        assert stream.feed(event[-1:]) == event


def test_comments_and_unknown_events_are_forwarded_unchanged():
    stream = ChatStream(strip_usage=True)
    for event in (b": ping\n\n", b"event: x\ndata: not json\n\n", b"data: [1,2]\n\n", b"id: 7\nretry: 1\n\n"):
        assert stream.feed(event) == event
    assert not stream.is_complete


def test_null_usage_is_removed_at_any_position():
    for event, clean in [
        (b'data: {"usage":null,"choices":[]}\n\n', b'data: {"choices":[]}\n\n'),
        (b'data: {"usage" : null , "choices":[]}\n\n', b'data: {"choices":[]}\n\n'),
        (b'data: {"choices":[] , "usage": null }\n\n', b'data: {"choices":[]  }\n\n'),
        (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
        (b'data: {"a":{"usage":null},"choices":[]}\n\n', b'data: {"a":{"usage":null},"choices":[]}\n\n'),
    ]:
        assert ChatStream(strip_usage=True).feed(event) == clean


def test_data_lines_of_one_event_are_joined():
    assert event_data(b"data: a\ndata:b\r\nevent: x\n\n") == b"a\nb"


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n", b"\n\n", b"data: x"]), max_size=30), st.integers(0, 60))
def test_no_byte_between_events_is_lost(pieces, cut):
    whole = b"".join(pieces)
    splitter = EventSplitter()
    events = splitter.feed(whole[:cut]) + splitter.feed(whole[cut:])
    assert b"".join(events) + splitter.incomplete_event == whole


def test_tool_calls_are_assembled_from_fragments():
    stream = ChatStream(strip_usage=False)
    deltas = [
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    for delta in deltas:
        chunk = {"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta}]}
        stream.feed(b"data: " + msgspec.json.encode(chunk) + b"\n\n")
    (call,) = stream.content()["choices"][0]["message"]["tool_calls"]
    assert call == {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=5), st.lists(st.integers(0, 40), max_size=4))
def test_edits_do_not_depend_on_the_pieces_of_a_body(body, cuts, places):
    cuts = sorted(min(cut, len(body)) for cut in cuts)
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    spots = sorted(min(edit_position, len(body)) for edit_position in places)
    edits = [bodies.Edit(a, b, b"<%d>" % a) for a, b in zip(spots[::2], spots[1::2], strict=False)]
    expected, position = b"", 0
    for start, stop, text in edits:
        expected += body[position:start] + text
        position = stop
    assert b"".join(bodies.apply_edits(pieces, edits)) == expected + body[position:]


@given(
    st.lists(st.sampled_from(["a", '"', "\\", "data:", "b64,", "A" * 700, "\n", "é"]), max_size=30).map("".join),
    st.lists(st.integers(20, 900), min_size=1, max_size=8),
)
def test_skeleton_positions_map_to_the_body(text, sizes):
    url = "data:image/png;base64," + "A" * 1500
    body = json.dumps({"x": text, "a": [{"url": url}, text, {"data": "B" * 1100}], "model": "auto"}).encode()
    stripping, position, turn = SkeletonBuilder(), 0, 0
    while position < len(body):
        size = sizes[turn % len(sizes)]
        stripping.feed(body[position : position + size])
        position, turn = position + size, turn + 1
    skeleton = stripping.finish()
    assert len(skeleton.text) <= len(body) - 2600
    fields = bodies.read_fields(skeleton.text)
    for name, (start, stop) in bodies.locate_fields(skeleton.text, fields).items():
        assert json.loads(body[skeleton.in_body(start) : skeleton.in_body(stop)]) == json.loads(body)[name]
