"""A stream of the Responses API is read while it passes. No I/O."""

from __future__ import annotations

from io import StringIO
from typing import Any

import msgspec

from router.wire.bodies import encoded
from router.wire.event_edits import renamed
from router.wire.heard import Heard
from router.wire.sse import MAX_KEPT_BYTES, Splitter, data_of, error_event
from router.wire.text import NULL, UNREADABLE, read


class _Response(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    service_tier: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    delta: msgspec.Raw = NULL
    response: msgspec.Raw = NULL
    message: msgspec.Raw = NULL


_event = msgspec.json.Decoder(_Event)
_response = msgspec.json.Decoder(_Response)
_string = msgspec.json.Decoder(str)

_SPECIAL = frozenset(
    {"response.refusal.delta", "response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
)


class ResponsesStream:
    """A stream of the Responses API: typed events, of which the last holds the whole response."""

    def __init__(self, *, echo: str | None = None) -> None:
        self._splitter = Splitter()
        self._echo = None if echo is None else encoded(echo)
        self._text = StringIO()
        self._room = MAX_KEPT_BYTES
        self._whole: msgspec.Raw | None = None
        self._events = 0
        self._is_special = False
        self.model = ""
        self.id = ""
        self.usage: dict[str, Any] | None = None
        self.service_tier = ""
        self.error = ""
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the upstream's stream; return those the client gets."""
        events = self._splitter.feed(chunk)
        for event in events:
            self._read(event)
        if self._echo is not None:
            events = [renamed(event, self._echo, within="response") for event in events]
        return b"".join(events)

    def rest(self) -> bytes:
        """What is left of the stream when it ends inside an event."""
        return self._splitter.rest

    @property
    def waiting_bytes(self) -> int:
        """How much is held of an event whose end has not come."""
        return self._splitter.waiting_bytes

    def cut(self, message: str) -> bytes:
        """What the client is told where the stream breaks off, in the place of an event whose end did not come."""
        error = {"type": "error", "code": "upstream_cut", "message": message, "param": None}
        return b"event: error\n" + error_event(encoded({**error, "sequence_number": self._events}))

    @property
    def ended(self) -> bool:
        """Whether the stream came to its own end."""
        return self.done

    def content(self) -> Any:
        """What was said: the whole response, or as much of its text as came."""
        return self._whole if self._whole is not None else {"id": self.id, "output_text": self._text.getvalue()}

    def heard(self) -> Heard:
        """What it said so far. A text that is too long to be kept has all characters that are asked for."""
        return Heard(1, self._text.tell() if self._room > 0 else MAX_KEPT_BYTES, self._is_special)

    def _read(self, event: bytes) -> None:
        data = data_of(event)
        if not data:
            return
        self._events += 1
        try:
            said = read(_event, data)
        except UNREADABLE:
            return  # not what we know: passed on unread
        if said.type == "response.output_text.delta":
            self._hear(said.delta)
        elif said.type in _SPECIAL:
            self._is_special = True
        elif said.type == "error":
            told = bytes(said.message)
            self.error = "error" if told == b"null" else told.decode(errors="replace").strip('"')
            self.done = True
        elif bytes(memoryview(said.response)[:1]) == b"{":
            self._know(said.response)
        if said.type in ("response.completed", "response.incomplete", "response.failed"):
            self._whole = said.response if len(data) <= MAX_KEPT_BYTES else None
            self.error = "response.failed" if said.type == "response.failed" else ""
            self.done = True

    def _hear(self, delta: msgspec.Raw) -> None:
        try:
            text = read(_string, bytes(delta))
        except UNREADABLE:
            return  # kept out of the record, never out of the stream
        self._room -= len(text)
        if self._room > 0:
            self._text.write(text)

    def _know(self, raw: msgspec.Raw) -> None:
        try:
            response = read(_response, bytes(raw))
        except UNREADABLE:
            return
        self.id, self.model = response.id or self.id, response.model or self.model
        self.usage = response.usage or self.usage
        self.service_tier = response.service_tier or self.service_tier
