"""A model's answer in one form for all APIs: chat completions, legacy completions and Responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from router.wire.text import DECODE_ERRORS, NULL, decode


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call in the answer."""

    name: str
    arguments: str  # JSON of a function; free text of a custom tool
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice of an answer."""

    text: str = ""
    refusal: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: str = ""  # stop, length, content_filter, tool_calls, ...; "" if the answer has none
    has_more: bool = False  # more than text and calls: audio, an image, or a call of a tool that the upstream runs


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with all its choices."""

    choices: tuple[Choice, ...]
    output_tokens: int | None = None  # of all choices together; None if the upstream reports none
    failed: bool = False  # an error instead of an answer


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None
    input: Any = None  # of a custom tool


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None
    custom: _Function | None = None


class _Message(msgspec.Struct, gc=False):
    content: Any = None  # a text; some servers send a list of parts
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    audio: msgspec.Raw = NULL


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    text: str | None = None  # of a legacy completion
    finish_reason: str | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: msgspec.Raw = NULL


class _Item(msgspec.Struct, gc=False):
    type: str = ""
    content: Any = None
    name: str | None = None
    arguments: Any = None
    input: Any = None


class _Details(msgspec.Struct, gc=False):
    reason: str | None = None


class _Response(msgspec.Struct, gc=False):
    output: list[_Item] | None = None
    status: str | None = None
    incomplete_details: _Details | None = None
    usage: dict[str, Any] | None = None


_completion = msgspec.json.Decoder(_Completion)
_response = msgspec.json.Decoder(_Response)
_FINISHES = {"completed": "stop", "max_output_tokens": "length"}  # status of a response -> finish reason of chat


def read_answer(endpoint: str, body: bytes) -> Answer | None:
    """Parse the answer of an endpoint; None if its format is unknown.

    >>> read_answer("completions", b'{"choices":[{"text":"Paris","finish_reason":"stop"}]}')
    Answer(choices=(Choice(text='Paris', refusal='', calls=(), finish='stop', has_more=False),), output_tokens=None, \
failed=False)
    """
    try:
        return _read_response(body) if endpoint == "responses" else _read_completion(body)
    except DECODE_ERRORS:
        return None


def _read_completion(body: bytes) -> Answer | None:
    seen = decode(_completion, body)
    if seen.choices is None:
        return Answer((), failed=True) if bytes(seen.error) != b"null" else None
    return Answer(tuple(map(_choice, seen.choices)), _count(seen.usage, "completion_tokens"))


def _choice(seen: _Choice) -> Choice:
    finish = seen.finish_reason or ""
    message = seen.message
    if message is None:
        return Choice(seen.text or "", finish=finish)
    text, parts = _text_of(message.content)
    calls = [_tool_call(call.custom or call.function, custom=bool(call.custom)) for call in message.tool_calls or ()]
    if message.function_call is not None:
        calls.append(_tool_call(message.function_call))
    has_more = parts or bytes(message.audio) != b"null"
    return Choice(text, message.refusal or "", tuple(calls), finish, has_more)


def _text_of(content: Any) -> tuple[str, bool]:
    """The text of a message, and whether it has parts that are not text."""
    if not isinstance(content, list):
        return (content, False) if isinstance(content, str) else ("", content is not None)
    parts = [part for part in content if isinstance(part, dict)]
    text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return text, any("text" not in part and part.get("type") != "thinking" for part in parts)


def _tool_call(seen: _Function | None, *, custom: bool = False) -> ToolCall:
    if seen is None:
        return ToolCall("", "")
    given = seen.input if custom else seen.arguments
    arguments = given if isinstance(given, str) else "" if given is None else msgspec.json.encode(given).decode()
    return ToolCall(seen.name or "", arguments, custom)


_KNOWN_ITEMS = ("reasoning", "message", "function_call", "custom_tool_call")  # other items set `has_more`


def _read_response(body: bytes) -> Answer | None:
    seen = decode(_response, body)
    if seen.output is None or seen.status in ("queued", "in_progress", "cancelled"):
        return None
    texts, refusals, calls = [], [], []
    for item in seen.output:
        if item.type == "message":
            parts = [part for part in item.content if isinstance(part, dict)] if isinstance(item.content, list) else []
            texts.append("".join(part["text"] for part in parts if isinstance(part.get("text"), str)))
            refusals += [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
        elif item.type in ("function_call", "custom_tool_call"):
            seen_call = _Function(item.name, item.arguments, item.input)
            calls.append(_tool_call(seen_call, custom=item.type == "custom_tool_call"))
    finish = seen.status or ""
    if finish == "incomplete":
        finish = (seen.incomplete_details.reason if seen.incomplete_details else None) or finish
    has_more = any(item.type not in _KNOWN_ITEMS for item in seen.output)
    text = next((text for text in reversed(texts) if text), "")  # the messages before the last one are comments
    choice = Choice(text, "".join(refusals), tuple(calls), _FINISHES.get(finish, finish), has_more)
    return Answer((choice,), _count(seen.usage, "output_tokens"), seen.status == "failed")


def _count(usage: dict[str, Any] | None, name: str) -> int | None:
    count = None if usage is None else usage.get(name)
    return count if isinstance(count, int) and not isinstance(count, bool) else None
