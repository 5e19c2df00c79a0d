"""A stream of chat completions, read while it passes: who answered, what was said, what it cost, its end. No I/O."""

from __future__ import annotations

from io import StringIO
from typing import Any

import msgspec

from router.errors import envelope
from router.wire.bodies import encoded
from router.wire.event_edits import renamed, without_usage
from router.wire.heard import Heard
from router.wire.sse import MAX_KEPT_BYTES, Splitter, data_of, error_event
from router.wire.text import NULL, UNREADABLE, read


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = NULL
    function_call: msgspec.Raw = NULL  # as tool calls were before there were several
    audio: msgspec.Raw = NULL


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None  # legacy completions
    finish_reason: str | None = None


class _Large(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    error: msgspec.Raw = NULL


class _Chunk(_Large, gc=False):
    choices: list[_Choice] | None = None


MAX_READ_BYTES = 2**20  # of an event; of a larger one only the usage is read
MAX_ERROR_BYTES = 2000
PIECE_BYTES = 64  # that a piece takes beside its text
MAX_CHOICES = 128  # as OpenAI has it

_chunk = msgspec.json.Decoder(_Chunk)
_large = msgspec.json.Decoder(_Large)


class ChatStream:
    """A stream of chat completions or legacy ones, read while it passes: model, usage, what was said, how it ended."""

    def __init__(self, *, strip_usage: bool = False, echo: str | None = None) -> None:
        self._strip = strip_usage
        self._echo = None if echo is None else encoded(echo)  # the name to answer with
        self._splitter = Splitter()
        self._said: dict[int, dict[str, Any]] = {}
        self.model = ""
        self.id = ""
        self.usage: dict[str, Any] | None = None
        self.service_tier = ""
        self.error = ""
        self._room = MAX_KEPT_BYTES
        self.done = self._finished = False  # done: the stream has said that it is over

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the upstream's stream; return those the client gets."""
        return b"".join([self._read(event) for event in self._splitter.feed(chunk)])

    def rest(self) -> bytes:
        """What is left of the stream when it ends inside an event."""
        return self._splitter.rest

    @property
    def waiting_bytes(self) -> int:
        """How much is held of an event whose end has not come."""
        return self._splitter.waiting_bytes

    def cut(self, message: str) -> bytes:
        """What the client is told where the stream breaks off, in the place of an event whose end did not come."""
        return error_event(envelope(message, "upstream_error", None, "upstream_cut"))

    @property
    def ended(self) -> bool:
        """Whether the stream came to its own end. Upstreams that send no [DONE] end with a finish reason."""
        return self.done or self._finished

    def content(self) -> Any:
        """What was said, in the form of an answer that is not streamed; None where it is too much to be kept."""
        if self._room < 0:
            return None
        choices = []
        for index in sorted(self._said):
            said = self._said[index]
            message: dict[str, Any] = {"role": "assistant", "content": said["content"].getvalue() or None}
            if said["refusal"]:
                message["refusal"] = "".join(said["refusal"])
            if said["tool_calls"]:
                message["tool_calls"] = _joined_calls(said["tool_calls"])
            if said["function_call"]:
                message["function_call"] = _joined_function(said["function_call"])
            if said["has_audio"]:
                message["audio"] = {}  # which is not kept
            choices.append({"index": index, "message": message, "finish_reason": said["finish_reason"]})
        return {"id": self.id, "model": self.model, "choices": choices, "usage": self.usage}

    def heard(self) -> Heard:
        """What it said so far. A text that is too long to be kept has all characters that are asked for."""
        if self._room < 0:
            return Heard(MAX_CHOICES, MAX_KEPT_BYTES, False)
        said = self._said.values()
        shortest = min((one["content"].tell() for one in said), default=0)
        special = any(one["refusal"] or one["tool_calls"] or one["function_call"] for one in said)
        return Heard(len(said), shortest, special)

    def _read(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return event
        if data == b"[DONE]":
            self.done = True
            return event
        try:
            chunk = read(_chunk, data) if len(data) <= MAX_READ_BYTES else self._large(data)
        except UNREADABLE:
            chunk = _Chunk()  # not what we know: passed on, and nothing is read of it
        if chunk.model:
            self.model, self.id = chunk.model, chunk.id or self.id
        if bytes(chunk.error) != b"null":
            self.error = bytes(chunk.error)[:MAX_ERROR_BYTES].decode(errors="replace")
            self.done = True
        for choice in chunk.choices or ():
            self._hear(choice)
        self.service_tier = chunk.service_tier or self.service_tier
        if chunk.usage is not None:
            self.usage = chunk.usage
            if self._strip and not chunk.choices:
                return b""
        elif self._strip and b'"usage"' in data:
            event = without_usage(event, data)
        return event if self._echo is None else renamed(event, self._echo)

    def _large(self, data: bytes) -> _Chunk:
        self._room = -1  # what it says is not kept
        seen = read(_large, data)
        return _Chunk(seen.id, seen.model, seen.usage, seen.service_tier, seen.error, [_Choice()])

    def _hear(self, choice: _Choice) -> None:
        if choice.finish_reason is not None:
            self._finished = True
        said = self._said.get(choice.index)
        if said is None:
            if len(self._said) >= MAX_CHOICES:
                self._room = -1
            if self._room < 0:
                return
            said = {"content": StringIO(), "refusal": [], "tool_calls": [], "function_call": [], "finish_reason": None}
            said["has_audio"] = False
            self._said[choice.index] = said
        self._keep(said, choice)

    def _keep(self, said: dict[str, Any], choice: _Choice) -> None:
        if self._room < 0:
            return
        delta = choice.delta
        if delta is not None:
            if delta.content:
                said["content"].write(delta.content)
                self._room -= len(delta.content)
            if delta.refusal:
                said["refusal"].append(delta.refusal)
                self._room -= len(delta.refusal) + PIECE_BYTES
            if bytes(delta.tool_calls) != b"null":
                said["tool_calls"].append(bytes(delta.tool_calls))
                self._room -= len(said["tool_calls"][-1]) + PIECE_BYTES
            if bytes(delta.function_call) != b"null":
                said["function_call"].append(bytes(delta.function_call))
                self._room -= len(said["function_call"][-1]) + PIECE_BYTES
            if bytes(delta.audio) != b"null":
                said["has_audio"] = True
        if choice.text:
            said["content"].write(choice.text)
            self._room -= len(choice.text)
        if choice.finish_reason is not None:
            said["finish_reason"] = choice.finish_reason
        if self._room < 0:
            self._said.clear()


class _Fragment(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


_fragments = msgspec.json.Decoder(list[_Fragment])
_function = msgspec.json.Decoder(dict[str, Any])


def _joined_calls(pieces: list[bytes]) -> list[dict[str, Any]]:
    """Tool calls put together from their fragments."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        try:
            fragments = _fragments.decode(piece)
        except UNREADABLE:
            continue  # a form we do not know is kept out of the record, never out of the stream
        for fragment in fragments:
            kind = "function" if fragment.custom is None else "custom"
            call = calls.setdefault(fragment.index, {"id": None, "type": kind, kind: {}})
            call["id"] = fragment.id or call["id"]
            _join(call[call["type"]], fragment.function or fragment.custom or {})
    return [calls[index] for index in sorted(calls)]


def _joined_function(pieces: list[bytes]) -> dict[str, str]:
    """A function call of the older form, put together from its fragments."""
    call: dict[str, str] = {}
    for piece in pieces:
        try:
            _join(call, _function.decode(piece))
        except UNREADABLE:
            continue
    return call


def _join(call: dict[str, str], fragment: dict[str, Any]) -> None:
    for name, value in fragment.items():
        text = value if isinstance(value, str) else "" if value is None else encoded(value).decode()
        call[name] = call.get(name, "") + text
