"""Streams of server-sent events: the output bytes and the parsed fields do not depend on how they are cut."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import msgspec

from fuzz.inputs import inputs
from fuzz.targets import Target
from router.wire.chat_stream import ChatStream
from router.wire.responses_stream import ResponsesStream

Stream = ChatStream | ResponsesStream

EXAMPLES = (
    b'data: {"id":"a","model":"m","choices":[{"index":0,"delta":{"content":"Pa\\n"}}],"usage":null,"x":"y"}\n\n'
    b'data: {"id":"a","model":"m","choices":[],"usage":{"prompt_tokens":1},"x":""}\n\ndata: [DONE]\n\n',
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}\r\n\r\ndata: [DONE]\r\n\r\n',
    b'data: {"usage":null}\n\ndata: { "usage" : null , "model" : "a" }\n\n',
    b'data: {"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f",'
    b'"arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":null}\r\rdata: [DONE]\r\r',
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"r","model":"m","usage":null}}\n\n'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"r","model":"m",'
    b'"output":[],"usage":{"input_tokens":1,"output_tokens":2}}}\n\n',
    b': ping\n\nid: 7\nretry: 10\ndata: {"error":{"message":"no"},\ndata: "model":"m","usage":null}\n\n',
    b'data: {"usage":null,"model":"a","choices":[{"text":"x","index":0}]}\n\ndata: {"type":"error","message":"no"}\n\n',
)
PIECES = (
    *(b"data: ", b"data:", b"event: x\n", b": c\n", b"data: [DONE]\n\n", b"\r\r", b"\n\r\n", b"\r\n\r", b"\r\n\n"),
    *(b'"usage":null', b',"usage":null', b'"usage":null,', b'"us\\u0061ge":null,', b'"usage":{"prompt_tokens":1},'),
    *(b'"model":"x",', b'"m\\u006fdel":"x",', b'"response":{"model":"x"},', b'"delta":{"content":7},'),
)  # fmt: skip


def _streams() -> Sequence[Callable[[], Stream]]:
    return (
        lambda: ChatStream(strip_usage=True),
        lambda: ChatStream(strip_usage=True, echo="auto"),
        lambda: ChatStream(),
        lambda: ResponsesStream(echo="auto"),
        lambda: ResponsesStream(),
    )


def _feed(stream: Stream, data: bytes, cuts: Sequence[int]) -> tuple[bytes, object]:
    """What comes out of a stream that is fed in pieces, and what was read of it."""
    passed = b"".join(stream.feed(data[start:stop]) for start, stop in pairwise((0, *cuts, len(data))))
    fields = (stream.model, stream.id, stream.usage, stream.service_tier, stream.error, stream.done, stream.is_complete)
    content = stream.content()
    return passed + stream.incomplete_event(), (fields, bytes(content) if isinstance(content, msgspec.Raw) else content)


def check(data: bytes) -> None:
    """Feed a stream whole, in two cuts, and byte by byte."""
    chance = random.Random(zlib.crc32(data))
    for make in _streams():
        whole = _feed(make(), data, ())
        for _ in range(3):
            cuts = sorted(chance.randrange(len(data) + 1) for _ in range(2))
            assert _feed(make(), data, cuts) == whole, f"cut at {cuts}"
        assert _feed(make(), data, range(1, len(data))) == whole, "byte by byte"
    for stream in (ChatStream(), ResponsesStream()):
        assert _feed(stream, data, ())[0] == data, "a stream that is not edited was changed"


@contextmanager
def open_target() -> Iterator[Target]:
    """The target."""
    yield Target(check, inputs(EXAMPLES, PIECES))
