"""Server-sent events: bytes in, bytes out. A stream is read while it passes, and may be cut anywhere. No I/O."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from router.errors import envelope
from router.wire import spans

_BOUNDARY = re.compile(rb"\r?\n\r?\n|\r\r")
_LINE = re.compile(rb"\r\n|\n|\r")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
MAX_EVENT_BYTES = 32 * 2**20  # an event that is longer is passed on unread


class Splitter:
    """Cuts a stream into whole events, each with the blank line that ends it."""

    def __init__(self) -> None:
        self.rest = b""  # the beginning of an event whose end has not come

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are complete with `chunk`."""
        data = self.rest + chunk if self.rest else chunk
        search_from = max(len(self.rest) - 3, 0)
        events, at = [], 0
        for boundary in _BOUNDARY.finditer(data, search_from):
            events.append(data[at : boundary.end()])
            at = boundary.end()
        self.rest = data[at:] if at else data
        return events


def data_of(event: bytes) -> bytes:
    """The data of an event; empty for a comment."""
    if event.startswith(b"data: ") and event.find(b"\n", 6, -2) < 0:
        return event[6:].rstrip(b"\r\n")
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines)


def error_event(message: str, code: str) -> bytes:
    """An error inside a stream, as OpenAI writes it."""
    return b"data: " + envelope(message, "upstream_error", None, code) + b"\n\n"


KEEP_ALIVE = b": keep-alive\n\n"


_NOTHING = msgspec.Raw(b"null")  # also for null itself; `Raw | None` reads nothing but null


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = _NOTHING


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None  # legacy completions
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    id: str = ""
    model: str = ""
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: msgspec.Raw = _NOTHING


_chunk = msgspec.json.Decoder(_Chunk)


class ChatStream:
    """A stream of chat completions or legacy ones, read while it passes: model, usage, what was said, how it ended."""

    def __init__(self, *, strip_usage: bool) -> None:
        self._strip = strip_usage
        self._splitter = Splitter()
        self._said: dict[int, dict[str, Any]] = {}
        self.model = ""
        self.id = ""
        self.usage: dict[str, Any] | None = None
        self.error = ""
        self.done = self._finished = False  # done: the stream has said that it is over

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the upstream's stream; return those the client gets."""
        events = self._splitter.feed(chunk)
        if not self._strip:
            for event in events:
                self._read(event)
            return chunk
        return b"".join([self._read(event) for event in events])

    def rest(self) -> bytes:
        """What is left of the stream when it ends inside an event."""
        return self._splitter.rest if self._strip else b""

    @property
    def ended(self) -> bool:
        """Whether the stream came to its own end. Upstreams that send no [DONE] end with a finish reason."""
        return self.done or self._finished

    def content(self) -> Any:
        """What was said, in the form of an answer that is not streamed."""
        choices = []
        for index in sorted(self._said):
            said = self._said[index]
            message: dict[str, Any] = {"role": "assistant", "content": "".join(said["content"]) or None}
            if said["refusal"]:
                message["refusal"] = "".join(said["refusal"])
            if said["tool_calls"]:
                message["tool_calls"] = _joined_calls(said["tool_calls"])
            choices.append({"index": index, "message": message, "finish_reason": said["finish_reason"]})
        return {"id": self.id, "model": self.model, "choices": choices, "usage": self.usage}

    def _read(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return event
        if data == b"[DONE]":
            self.done = True
            return event
        try:
            chunk = _chunk.decode(data)
        except (msgspec.DecodeError, RecursionError):
            return event  # not what we know: passed on unread
        if chunk.model:
            self.model, self.id = chunk.model, chunk.id
        if bytes(chunk.error) != b"null":
            self.error = bytes(chunk.error).decode(errors="replace")
            self.done = True
        for choice in chunk.choices or ():
            self._hear(choice)
        if chunk.usage is not None:
            self.usage = chunk.usage
            if self._strip and not chunk.choices:
                return b""
        elif self._strip and b'"usage"' in data:
            return _without_usage(event, data)
        return event

    def _hear(self, choice: _Choice) -> None:
        said = self._said.get(choice.index)
        if said is None:
            said = {"content": [], "refusal": [], "tool_calls": [], "finish_reason": None}
            self._said[choice.index] = said
        delta = choice.delta
        if delta is not None:
            if delta.content:
                said["content"].append(delta.content)
            if delta.refusal:
                said["refusal"].append(delta.refusal)
            if bytes(delta.tool_calls) != b"null":
                said["tool_calls"].append(bytes(delta.tool_calls))
        if choice.text:
            said["content"].append(choice.text)
        if choice.finish_reason is not None:
            said["finish_reason"] = choice.finish_reason
            self._finished = True


def _without_usage(event: bytes, data: bytes) -> bytes:
    """The event without the `"usage":null` that asking for usage adds to it."""
    at = event.find(data)
    fields = _fields.decode(data)
    if at < 0 or bytes(fields.get("usage", b"")) != b"null":
        return event
    _, stop = spans(data, fields)["usage"]
    start = data.rindex(b'"usage"', 0, stop)
    before = data[:start].rstrip()
    if before.endswith(b","):
        start = len(before) - 1
    else:  # the first of the fields: the comma behind it goes
        comma = re.compile(rb"\s*,\s*").match(data, stop)
        stop = comma.end() if comma else stop
    return event[:at] + data[:start] + data[stop:] + event[at + len(data) :]


class _Fragment(msgspec.Struct, gc=False):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: dict[str, Any] | None = None


_fragments = msgspec.json.Decoder(list[_Fragment])


def _joined_calls(pieces: list[bytes]) -> list[dict[str, Any]]:
    """Tool calls put together from their fragments."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        try:
            fragments = _fragments.decode(piece)
        except msgspec.DecodeError:
            continue  # a form we do not know is kept out of the record, never out of the stream
        for fragment in fragments:
            call = calls.setdefault(fragment.index, {"id": None, "type": "function", "function": {}})
            call["id"] = fragment.id or call["id"]
            for name, value in (fragment.function or {}).items():
                call["function"][name] = call["function"].get(name, "") + (value or "")
    return [calls[index] for index in sorted(calls)]
