"""Streams of chat completions and legacy completions, read while they are forwarded. No I/O."""

from __future__ import annotations

from io import StringIO
from typing import Any

import msgspec

from router.errors import error_body
from router.wire.bodies import encode_json
from router.wire.event_edits import remove_null_usage, replace_model
from router.wire.sse import MAX_KEPT_BYTES, EventSplitter, error_event, event_data
from router.wire.stream_progress import StreamProgress
from router.wire.text import DECODE_ERRORS, NULL, decode


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = NULL
    function_call: msgspec.Raw = NULL  # deprecated form of a tool call
    audio: msgspec.Raw = NULL


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None  # legacy completions
    finish_reason: str | None = None


class _Metadata(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    error: msgspec.Raw = NULL


class _Chunk(_Metadata, gc=False):
    choices: list[_Choice] | None = None


MAX_READ_BYTES = 2**20  # of an event; only the metadata of a larger one is read
MAX_ERROR_BYTES = 2000
PIECE_OVERHEAD_BYTES = 64  # memory that a kept piece needs in addition to its text
MAX_CHOICES = 128  # the limit of OpenAI's API

_chunk = msgspec.json.Decoder(_Chunk)
_metadata = msgspec.json.Decoder(_Metadata)


class ChatStream:
    """A stream of chat completions or legacy completions. See `planning.plan.Stream`."""

    def __init__(self, *, strip_usage: bool = False, echo: str | None = None) -> None:
        """`strip_usage` removes usage that the client did not request.

        `echo` is the model name that the client receives; None for the upstream's.
        """
        self._strip_usage = strip_usage
        self._echo = None if echo is None else encode_json(echo)
        self._splitter = EventSplitter()
        self._choices: dict[int, dict[str, Any]] = {}
        self.model = ""
        self.id = ""
        self.usage: dict[str, Any] | None = None
        self.service_tier = ""
        self.error = ""
        self._remaining_bytes = MAX_KEPT_BYTES  # negative once the content is too large to keep
        self.done = self._has_finish_reason = False

    def feed(self, chunk: bytes) -> bytes:
        """Read the next bytes of the upstream's stream; return the bytes for the client."""
        return b"".join([self._read(event) for event in self._splitter.feed(chunk)])

    def incomplete_event(self) -> bytes:
        """The bytes after the last complete event."""
        return self._splitter.incomplete_event

    @property
    def buffered_bytes(self) -> int:
        """Size of the incomplete event, in bytes."""
        return self._splitter.buffered_bytes

    def cut_event(self, message: str) -> bytes:
        """The error event that the client receives if the upstream's stream is interrupted."""
        return error_event(error_body(message, "upstream_error", None, "upstream_cut"))

    @property
    def is_complete(self) -> bool:
        """Whether the upstream sent the end of the stream: [DONE], an error or a finish reason."""
        return self.done or self._has_finish_reason

    def content(self) -> Any:
        """The answer in the format of a response that is not streamed; None if it is too large to keep."""
        if self._remaining_bytes < 0:
            return None
        choices = []
        for index in sorted(self._choices):
            kept = self._choices[index]
            message: dict[str, Any] = {"role": "assistant", "content": kept["content"].getvalue() or None}
            if kept["refusal"]:
                message["refusal"] = "".join(kept["refusal"])
            if kept["tool_calls"]:
                message["tool_calls"] = _join_calls(kept["tool_calls"])
            if kept["function_call"]:
                message["function_call"] = _join_function(kept["function_call"])
            if kept["has_audio"]:
                message["audio"] = {}  # audio data is not kept
            choices.append({"index": index, "message": message, "finish_reason": kept["finish_reason"]})
        return {"id": self.id, "model": self.model, "choices": choices, "usage": self.usage}

    def progress(self) -> StreamProgress:
        """What the stream contains so far. A text that is too long to keep counts as MAX_KEPT_BYTES characters."""
        if self._remaining_bytes < 0:
            return StreamProgress(MAX_CHOICES, MAX_KEPT_BYTES, False)
        choices = self._choices.values()
        shortest = min((kept["content"].tell() for kept in choices), default=0)
        special = any(kept["refusal"] or kept["tool_calls"] or kept["function_call"] for kept in choices)
        return StreamProgress(len(choices), shortest, special)

    def _read(self, event: bytes) -> bytes:
        data = event_data(event)
        if not data:
            return event
        if data == b"[DONE]":
            self.done = True
            return event
        try:
            chunk = decode(_chunk, data) if len(data) <= MAX_READ_BYTES else self._read_large(data)
        except DECODE_ERRORS:
            chunk = _Chunk()  # an unknown format is forwarded unread
        if chunk.model:
            self.model, self.id = chunk.model, chunk.id or self.id
        if bytes(chunk.error) != b"null":
            self.error = bytes(chunk.error)[:MAX_ERROR_BYTES].decode(errors="replace")
            self.done = True
        for choice in chunk.choices or ():
            self._add_choice(choice)
        self.service_tier = chunk.service_tier or self.service_tier
        if chunk.usage is not None:
            self.usage = chunk.usage
            if self._strip_usage and not chunk.choices:
                return b""
        elif self._strip_usage and b'"usage"' in data:
            event = remove_null_usage(event, data)
        return event if self._echo is None else replace_model(event, self._echo)

    def _read_large(self, data: bytes) -> _Chunk:
        self._remaining_bytes = -1
        metadata = decode(_metadata, data)
        return _Chunk(metadata.id, metadata.model, metadata.usage, metadata.service_tier, metadata.error, [_Choice()])

    def _add_choice(self, choice: _Choice) -> None:
        if choice.finish_reason is not None:
            self._has_finish_reason = True
        kept = self._choices.get(choice.index)
        if kept is None:
            if len(self._choices) >= MAX_CHOICES:
                self._remaining_bytes = -1
            if self._remaining_bytes < 0:
                return
            kept = {"content": StringIO(), "refusal": [], "tool_calls": [], "function_call": [], "finish_reason": None}
            kept["has_audio"] = False
            self._choices[choice.index] = kept
        self._keep(kept, choice)

    def _keep(self, kept: dict[str, Any], choice: _Choice) -> None:
        if self._remaining_bytes < 0:
            return
        delta = choice.delta
        if delta is not None:
            if delta.content:
                kept["content"].write(delta.content)
                self._remaining_bytes -= len(delta.content)
            if delta.refusal:
                kept["refusal"].append(delta.refusal)
                self._remaining_bytes -= len(delta.refusal) + PIECE_OVERHEAD_BYTES
            if bytes(delta.tool_calls) != b"null":
                kept["tool_calls"].append(bytes(delta.tool_calls))
                self._remaining_bytes -= len(kept["tool_calls"][-1]) + PIECE_OVERHEAD_BYTES
            if bytes(delta.function_call) != b"null":
                kept["function_call"].append(bytes(delta.function_call))
                self._remaining_bytes -= len(kept["function_call"][-1]) + PIECE_OVERHEAD_BYTES
            if bytes(delta.audio) != b"null":
                kept["has_audio"] = True
        if choice.text:
            kept["content"].write(choice.text)
            self._remaining_bytes -= len(choice.text)
        if choice.finish_reason is not None:
            kept["finish_reason"] = choice.finish_reason
        if self._remaining_bytes < 0:
            self._choices.clear()


class _Fragment(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


_fragments = msgspec.json.Decoder(list[_Fragment])
_function = msgspec.json.Decoder(dict[str, Any])


def _join_calls(pieces: list[bytes]) -> list[dict[str, Any]]:
    """Complete tool calls, assembled from their fragments."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        try:
            fragments = _fragments.decode(piece)
        except DECODE_ERRORS:
            continue  # an unknown format is omitted from the record, and forwarded to the client
        for fragment in fragments:
            kind = "function" if fragment.custom is None else "custom"
            call = calls.setdefault(fragment.index, {"id": None, "type": kind, kind: {}})
            call["id"] = fragment.id or call["id"]
            _join(call[call["type"]], fragment.function or fragment.custom or {})
    return [calls[index] for index in sorted(calls)]


def _join_function(pieces: list[bytes]) -> dict[str, str]:
    """A complete function call of the deprecated form, assembled from its fragments."""
    call: dict[str, str] = {}
    for piece in pieces:
        try:
            _join(call, _function.decode(piece))
        except DECODE_ERRORS:
            continue
    return call


def _join(call: dict[str, str], fragment: dict[str, Any]) -> None:
    for name, value in fragment.items():
        text = value if isinstance(value, str) else "" if value is None else encode_json(value).decode()
        call[name] = call.get(name, "") + text
