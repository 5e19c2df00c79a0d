"""Streams of the Responses API, read while they are forwarded. No I/O."""

from __future__ import annotations

from io import StringIO
from typing import Any

import msgspec

from router.wire.bodies import encode_json
from router.wire.event_edits import replace_model
from router.wire.sse import MAX_KEPT_BYTES, EventSplitter, error_event, event_data
from router.wire.stream_progress import StreamProgress
from router.wire.text import DECODE_ERRORS, NULL, decode


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

_SPECIAL_EVENTS = frozenset(
    {"response.refusal.delta", "response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
)
_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed")


class ResponsesStream:
    """A stream of typed events. The last event contains the whole response. See `planning.plan.Stream`."""

    def __init__(self, *, echo: str | None = None) -> None:
        """`echo` is the model name that the client receives; None for the upstream's."""
        self._splitter = EventSplitter()
        self._echo = None if echo is None else encode_json(echo)
        self._text = StringIO()
        self._remaining_bytes = MAX_KEPT_BYTES
        self._response: msgspec.Raw | None = None
        self._events = 0
        self._is_special = False
        self.model = ""
        self.id = ""
        self.usage: dict[str, Any] | None = None
        self.service_tier = ""
        self.error = ""
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """Read the next bytes of the upstream's stream; return the bytes for the client."""
        events = self._splitter.feed(chunk)
        for event in events:
            self._read(event)
        if self._echo is not None:
            events = [replace_model(event, self._echo, within="response") for event in events]
        return b"".join(events)

    def incomplete_event(self) -> bytes:
        """The bytes after the last complete event."""
        return self._splitter.incomplete_event

    @property
    def buffered_bytes(self) -> int:
        """Size of the incomplete event, in bytes."""
        return self._splitter.buffered_bytes

    def cut_event(self, message: str) -> bytes:
        """The error event that the client receives if the upstream's stream is interrupted."""
        error = {"type": "error", "code": "upstream_cut", "message": message, "param": None}
        return b"event: error\n" + error_event(encode_json({**error, "sequence_number": self._events}))

    @property
    def is_complete(self) -> bool:
        """Whether the upstream sent the end of the stream."""
        return self.done

    def content(self) -> Any:
        """The whole response; before it arrives, an object with the text so far."""
        return self._response if self._response is not None else {"id": self.id, "output_text": self._text.getvalue()}

    def progress(self) -> StreamProgress:
        """What the stream contains so far. A text that is too long to keep counts as MAX_KEPT_BYTES characters."""
        characters = self._text.tell() if self._remaining_bytes > 0 else MAX_KEPT_BYTES
        return StreamProgress(1, characters, self._is_special)

    def _read(self, event: bytes) -> None:
        data = event_data(event)
        if not data:
            return
        self._events += 1
        try:
            parsed = decode(_event, data)
        except DECODE_ERRORS:
            return  # an unknown format is forwarded unread
        if parsed.type == "response.output_text.delta":
            self._add_text(parsed.delta)
        elif parsed.type in _SPECIAL_EVENTS:
            self._is_special = True
        elif parsed.type == "error":
            message = bytes(parsed.message)
            self.error = "error" if message == b"null" else message.decode(errors="replace").strip('"')
            self.done = True
        elif bytes(memoryview(parsed.response)[:1]) == b"{":
            self._read_metadata(parsed.response)
        if parsed.type in _LAST_EVENTS:
            self._response = parsed.response if len(data) <= MAX_KEPT_BYTES else None
            self.error = "response.failed" if parsed.type == "response.failed" else ""
            self.done = True

    def _add_text(self, delta: msgspec.Raw) -> None:
        try:
            text = decode(_string, bytes(delta))
        except DECODE_ERRORS:
            return  # omitted from the record, forwarded to the client
        self._remaining_bytes -= len(text)
        if self._remaining_bytes > 0:
            self._text.write(text)

    def _read_metadata(self, raw: msgspec.Raw) -> None:
        try:
            response = decode(_response, bytes(raw))
        except DECODE_ERRORS:
            return
        self.id, self.model = response.id or self.id, response.model or self.model
        self.usage = response.usage or self.usage
        self.service_tier = response.service_tier or self.service_tier
