"""Unusual answers of upstreams: they are forwarded unchanged, and the request is recorded."""

import json
import logging

import httpx2
import pytest
from fake_openai import Reply, chat_events, completion, stream_reply
from hypothesis import given
from hypothesis import strategies as st
from synthetic_records import make_record

from router.journal.segments import Cursor
from router.journal.writer import Journal
from router.wire.chat_stream import ChatStream
from router.wire.responses_stream import ResponsesStream

ASKED = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
ANSWER = json.dumps(completion("gpt-4o")).encode()
COST = 12 * 2.5e-6 - 4 * 1.25e-6 + 3 * 10e-6


def ask(router, body: bytes = ASKED) -> httpx2.Response:
    return httpx2.post(router.url + "/chat/completions", content=body, timeout=30)


def exported(router):
    """The only request, as the exporter reads it."""
    router.records()
    entries = Cursor(router.home / "journal", "reader").batch(10)
    assert entries is not None and len(entries[1]) == 1
    return entries[1][0]


@pytest.mark.parametrize(
    ("answer", "cost"),
    [
        (ANSWER.replace(b"Paris.", b"cut \\ud83d"), COST),
        (ANSWER.replace(b"Paris.", b"no UTF-8 \xff\xfe"), COST),
        (ANSWER.replace(b'"created": 1', b'"created": 1e999'), COST),
        (ANSWER.replace(b'"created": 1', b'"created": ' + b"1" * 5000), COST),
        (ANSWER.replace(b'"prompt_tokens": 12', b'"prompt_tokens": 12.0'), COST),
        (ANSWER.replace(b'"model": "gpt-4o"', b'"model": null'), COST),
        (ANSWER.replace(b'"prompt_tokens": 12', b'"prompt_tokens": ' + b"9" * 400), None),
        (ANSWER.replace(b'"prompt_tokens": 12', b'"prompt_tokens": ' + b"9" * 20), None),
        (ANSWER.replace(b'"prompt_tokens": 12', b'"prompt_tokens": -12'), None),
        (ANSWER.replace(b'"prompt_tokens": 12', b'"prompt_tokens": "many"'), None),
        (ANSWER.replace(b"Paris.", b"\x00\n"), None),
        (ANSWER[:-1] + b',"deep":' + b"[" * 5000 + b"]" * 5000 + b"}", None),
        (b"[1]", None),
        (b"", None),
    ],
)
def test_an_answer_is_returned_unchanged_and_its_usage_recorded(router, openai_server, answer, cost):
    openai_server.enqueue(Reply(pieces=[answer]))
    response = ask(router)
    assert (response.status_code, response.content) == (200, answer)
    record = exported(router)
    assert (record.status, record.outcome, record.model) == (200, "answered", "gpt-4o")
    assert record.cost_usd == (None if cost is None else pytest.approx(cost))


EVENTS = chat_events("gpt-4o", usage=True)
PAR = b'{"content":"Par"}'


def with_event(old: bytes, new: bytes, index: int = 1) -> list[bytes]:
    assert old in EVENTS[index]
    return [*EVENTS[:index], EVENTS[index].replace(old, new), *EVENTS[index + 1 :]]


@pytest.mark.parametrize("asks_usage", [True, False])
@pytest.mark.parametrize(
    ("sent_events", "cost"),
    [
        (with_event(PAR, b'{"tool_calls":[{"index":0,"function":{"name":"f","arguments":{"a":1}}}]}'), COST),
        (with_event(PAR, b'{"tool_calls":[{"index":null,"function":{"name":5}}]}'), COST),
        (with_event(PAR, b'{"content":5}'), COST),
        (with_event(PAR, b'{"content":"\\ud83d"}'), COST),
        (with_event(PAR, b'{"content":"\xff"}'), COST),
        (with_event(b'"index":0', b'"index":"a"'), COST),
        (with_event(b'"model":"gpt-4o"', b'"model":null'), COST),
        (with_event(b'"prompt_tokens":12', b'"prompt_tokens":' + b"9" * 400, index=-2 % len(EVENTS)), None),
    ],
)
def test_a_stream_is_returned_unchanged_and_its_usage_recorded(router, openai_server, sent_events, cost, asks_usage):
    openai_server.enqueue(stream_reply(*sent_events))
    options = b',"stream":true' + b',"stream_options":{"include_usage":true}' * asks_usage
    response = ask(router, ASKED[:-1] + options + b"}")
    expected_content = b"".join([*sent_events[:-2], sent_events[-1]]).replace(b',"usage":null', b"")
    assert response.content == (b"".join(sent_events) if asks_usage else expected_content)
    record = exported(router)
    assert (record.status, record.outcome, record.error) == (200, "answered", "")
    assert record.cost_usd == (None if cost is None else pytest.approx(cost))


def test_a_duplicate_key_breaks_no_stream(router, openai_server):
    sent_events = with_event(b'"usage":null', b'"usage":null,"usage":null')
    openai_server.enqueue(stream_reply(*sent_events))
    assert sent_events[1] in ask(router, ASKED[:-1] + b',"stream":true}').content
    assert exported(router).cost_usd == pytest.approx(COST)


@pytest.mark.parametrize("broken", [b"\\ud83d", b"\xff", b'","deep":' + b"[" * 500 + b"]" * 500 + b',"x":"'])
def test_a_response_with_broken_text_is_complete_and_recorded(router, openai_server, broken):
    usage = {"input_tokens": 4, "output_tokens": 2}
    whole = json.dumps({"id": "resp_1", "model": "gpt-4o", "output_text": "cut", "usage": usage}).encode()
    sent_content = b'event: response.completed\ndata: {"type":"response.completed","response":%b}\n\n' % whole
    sent_content = sent_content.replace(b"cut", b"cut" + broken)
    openai_server.enqueue(stream_reply(sent_content))
    body = {"model": "gpt-4o", "input": "hi", "stream": True}
    assert httpx2.post(router.url + "/responses", json=body, timeout=30).content == sent_content
    record = exported(router)
    assert (record.outcome, record.cost_usd) == ("answered", pytest.approx(4 * 2.5e-6 + 2 * 10e-6))


@pytest.mark.parametrize("field", [b'"seed":1e999', b'"seed":' + b"1" * 5000, b'"metadata":{"a":"\\ud83d"}'])
def test_no_field_of_a_request_prevents_its_record(router, openai_server, field):
    openai_server.enqueue(Reply(pieces=[ANSWER]))
    assert ask(router, ASKED[:-1] + b"," + field + b"}").status_code == 200
    assert exported(router).cost_usd == pytest.approx(COST)


def test_an_unreadable_line_of_an_older_journal_is_skipped(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(make_record(number, response={"text": "here"}))
    journal.close()
    segment = next(tmp_path.glob("*.jsonl"))
    first, second, third = segment.read_bytes().splitlines()
    segment.write_bytes(b"\n".join((first, second.replace(b"here", b"\xff"), b'{"kind":"request"\xff', third, b"")))
    entries = Cursor(tmp_path, "reader").batch(10)
    assert [(entry.trace_id, entry.response) for entry in entries[1]] == [
        (make_record(0).trace_id, {"text": "here"}),
        (make_record(1).trace_id, None),
        (make_record(2).trace_id, {"text": "here"}),
    ]
    assert "dropped the unreadable content" in caplog.text and "skipped an unreadable line" in caplog.text


SIGNS = tuple(bytes([sign]) for sign in b'{}[],:"')
NAMES = (b'"usage":', b'"model":', b'"choices":', b'"delta":{"content":7}', b'"error":1', b"data: ", b"[DONE]")
BROKEN = (b"\\", b"\\ud83d", b"\\u0000", b"\xff", b"\x00", b"\n", b"\r\n", b"null", b"1e999", b"-1")
pieces = st.sampled_from([*SIGNS, *NAMES, *BROKEN])


@given(
    st.lists(st.tuples(st.integers(0, len(EVENTS) - 1), st.integers(0, 300), pieces, st.integers(0, 4)), max_size=5),
    st.integers(1, 400),
)
def test_reading_a_stream_never_changes_it(changes, size):
    sent_content = list(EVENTS)
    for number, position, piece, skip in changes:
        position = position % max(len(sent_content[number]), 1)
        sent_content[number] = sent_content[number][:position] + piece + sent_content[number][position + skip :]
    whole = b"".join(sent_content)

    def read_in_chunks(stream) -> bytes:
        passed = b"".join(stream.feed(whole[index : index + size]) for index in range(0, len(whole), size))
        stream.content()
        return passed + stream.incomplete_event()

    assert read_in_chunks(ChatStream()) == read_in_chunks(ResponsesStream()) == whole
    for editing in (ChatStream(strip_usage=True), ChatStream(strip_usage=True, echo="a"), ResponsesStream(echo="a")):
        assert read_in_chunks(editing)
