"""Reads the features of a request that a decision is based on.

Calibration encodes its questions as chat bodies and reads them with the same function as the proxy. Only the fields
that the decision needs are decoded; images and audio are counted, never decoded. Texts are truncated, so that a request
of a megabyte costs no more time than a short one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

MAX_TURNS = 16  # the newest user turns that are read
MAX_TURN_CHARACTERS = 4_000  # of each turn: half from its start, half from its end
MAX_SYSTEM_CHARACTERS = 2_000
MAX_TOOLS = 128  # OpenAI's own limit
MAX_TOOL_CHARACTERS = 400  # of the description of a tool, and of the names of its parameters
_MAX_TOOL_NAME_CHARACTERS = 64
MAX_MESSAGES = 2_000  # half first, half last, that are read; of those between them only the length counts
CHARACTERS_PER_TOKEN = 4.0  # o200k_base on English prose; only budgets and expected costs depend on it
TOKENS_PER_MESSAGE = 4


class RequestError(ValueError):
    """The request cannot be read. `param` names the invalid field, as in OpenAI's errors."""

    def __init__(self, message: str, param: str | None) -> None:
        super().__init__(message)
        self.param = param


class Features(msgspec.Struct, frozen=True, gc=False):
    """What a decision is based on. Texts are truncated; counts are of the whole request."""

    turns: tuple[str, ...]  # texts of the user, newest last, at most MAX_TURNS
    characters_before: tuple[int, ...] = (0,)  # of all text before each turn, including tools
    turn_count: int = 1  # all user turns
    system: str = ""  # system and developer messages
    tools: tuple[str, ...] = ()  # the name, description and parameters of each offered tool
    tool_characters: int = 0
    images: tuple[str, ...] = ()  # the `detail` of each image: low, high or auto
    audio_parts: int = 0
    file_parts: int = 0
    messages: int = 1
    characters: int = 0  # of all text in the request, without tools
    max_output_tokens: int | None = None
    unsuitable_models: Mapping[str, str] | None = None  # models that the request cannot be adapted to, with the reason

    @property
    def has_attachments(self) -> bool:
        """Whether the request has content other than text."""
        return bool(self.images or self.audio_parts or self.file_parts)

    @property
    def input_tokens(self) -> int:
        """Estimated tokens of the request's text, without images (see `CHARACTERS_PER_TOKEN`)."""
        text = (self.characters + self.tool_characters) / CHARACTERS_PER_TOKEN
        return math.ceil(text) + TOKENS_PER_MESSAGE * self.messages


_ABSENT = msgspec.Raw(b"")


class _Message(msgspec.Struct, gc=False):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")
    tool_calls: msgspec.Raw = _ABSENT
    arguments: msgspec.Raw = _ABSENT  # of a function call among the items of a response's input
    output: msgspec.Raw = _ABSENT


class _ImageUrl(msgspec.Struct, gc=False):
    detail: str = "auto"


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    image_url: msgspec.Raw = msgspec.Raw(b"null")


class _Properties(msgspec.Struct, gc=False):
    properties: dict[str, msgspec.Raw] = {}


class _Function(msgspec.Struct, gc=False):
    name: str = ""
    description: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b"null")


class _Tool(_Function, gc=False):
    """A tool of chat completions has a `function`; a tool of responses is that function itself."""

    function: _Function = msgspec.field(default_factory=_Function)


_body = msgspec.json.Decoder(dict[str, msgspec.Raw])
_messages = msgspec.json.Decoder(list[_Message])
_parts = msgspec.json.Decoder(list[_Part])
_string = msgspec.json.Decoder(str)
_image_url = msgspec.json.Decoder(_ImageUrl)
_tools = msgspec.json.Decoder(list[_Tool])
_properties = msgspec.json.Decoder(_Properties)
_encoder = msgspec.json.Encoder()


def read_chat(fields: Mapping[str, msgspec.Raw]) -> Features:
    """Read the body of a chat completion from its undecoded top-level fields.

    Raises:
        RequestError: `messages` is missing, empty, or not a list of messages.
    """
    raw = fields.get("messages")
    if raw is None:
        raise RequestError("Missing required parameter: 'messages'.", "messages")
    try:
        messages = _messages.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(f"Invalid type for 'messages': {_reason(error)}.", "messages") from error
    if not messages:
        raise RequestError(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            "messages",
        )
    tools = fields.get("tools")
    reader = _FeatureReader(0 if tools is None else len(memoryview(tools)))
    skipped = range(MAX_MESSAGES // 2, len(messages) - MAX_MESSAGES // 2)
    for position, message in enumerate(messages):
        try:
            if position in skipped:
                reader.characters += len(memoryview(message.content))
            else:
                reader.add(message)
        except (msgspec.DecodeError, RecursionError) as error:
            param = f"messages[{position}].content"
            raise RequestError(f"Invalid type for '{param}': {_reason(error)}.", param) from error
    return reader.features(fields, len(messages))


def read_question(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> Features:
    """Read a question of a calibration as the proxy would: from its chat body.

    Raises:
        RequestError: the question cannot be encoded as a chat body.
    """
    return read_body(encode_question(messages, tools))


def encode_question(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None) -> bytes:
    """The chat body of a question of a calibration.

    Raises:
        RequestError: the question cannot be encoded as a chat body.
    """
    try:
        body: dict[str, Any] = {"messages": list(messages)}
        if tools:
            body["tools"] = list(tools)
        return _encoder.encode(body)
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        raise RequestError(f"'messages' or 'tools' cannot be sent: {error}.", "messages") from error


def read_body(body: bytes) -> Features:
    """Read the result of `encode_question`."""
    return read_chat(_body.decode(body))


class _FeatureReader:
    """Collects the features of the messages of one request."""

    def __init__(self, tool_characters: int) -> None:
        self.turns: list[str] = []
        self.before: list[int] = []
        self.system: list[str] = []
        self.images: list[str] = []
        self.audio_parts = 0
        self.file_parts = 0
        self.characters = 0
        self.tool_characters = tool_characters

    def add(self, message: _Message) -> None:
        text = self._text(message.content)
        if message.role == "user":
            self.turns.append(_truncated(text, MAX_TURN_CHARACTERS))
            self.before.append(self.characters + self.tool_characters)
        elif message.role in ("system", "developer"):
            self.system.append(_truncated(text, MAX_SYSTEM_CHARACTERS))
        self.characters += len(text)
        for raw in (message.tool_calls, message.arguments, message.output):
            if raw is not _ABSENT:
                self.characters += len(memoryview(raw))

    def _text(self, content: msgspec.Raw) -> str:
        kind = bytes(memoryview(content)[:1])
        if kind == b'"':
            return _string.decode(content)
        if kind != b"[":
            return "" if bytes(content) == b"null" else _string.decode(content)
        texts = []
        for part in _parts.decode(content):
            if part.type in ("image_url", "input_image"):
                self.images.append(_detail(part.image_url))
            elif part.type == "input_audio":
                self.audio_parts += 1
            elif part.type in ("file", "input_file"):
                self.file_parts += 1
            if part.text:
                texts.append(part.text)
        return "\n".join(texts)

    def features(self, fields: Mapping[str, msgspec.Raw], messages: int) -> Features:
        return Features(
            turns=tuple(self.turns[-MAX_TURNS:]),
            characters_before=tuple(self.before[-MAX_TURNS:]),
            turn_count=len(self.turns),
            system=_truncated("\n".join(self.system), MAX_SYSTEM_CHARACTERS),
            tools=_offered_tools(fields.get("tools")),
            tool_characters=self.tool_characters,
            images=tuple(self.images),
            audio_parts=self.audio_parts,
            file_parts=self.file_parts,
            messages=messages,
            characters=self.characters,
            max_output_tokens=_output_limit(fields),
        )


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") if isinstance(error, msgspec.DecodeError) else "nested too deeply"


def _truncated(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}\n{text[-limit // 2 :]}"


def _detail(raw: msgspec.Raw) -> str:
    try:
        return _image_url.decode(raw).detail
    except msgspec.DecodeError:
        return "auto"


def _offered_tools(raw: msgspec.Raw | None) -> tuple[str, ...]:
    if raw is None:
        return ()
    try:
        return tuple(map(_tool_text, _tools.decode(raw)[:MAX_TOOLS]))
    except (msgspec.DecodeError, RecursionError):
        return ()  # the upstream reports what is wrong with a tool


def _tool_text(tool: _Tool) -> str:
    function = tool.function if tool.function.name else tool
    try:
        parameters = " ".join(_properties.decode(function.parameters).properties)
    except (msgspec.DecodeError, RecursionError):
        parameters = ""
    name, description = function.name[:_MAX_TOOL_NAME_CHARACTERS], function.description[:MAX_TOOL_CHARACTERS]
    return f"{name} {description} {parameters[:MAX_TOOL_CHARACTERS]}"


def _output_limit(fields: Mapping[str, msgspec.Raw]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        raw = fields.get(name)
        if raw is not None and bytes(memoryview(raw)[:12]).isdigit():
            return int(bytes(memoryview(raw)[:12]))
    return None
