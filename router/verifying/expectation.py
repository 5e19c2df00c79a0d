"""The requirements of a request on its answer: JSON, a schema, tool calls, a length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from router.policy.decision import Decision
from router.policy.features import Features
from router.policy.logprobs import Logprobs, Token
from router.policy.parameters import LIMITS
from router.wire.bodies import Fields
from router.wire.text import DECODE_ERRORS, NULL

MOST_TOOL_BYTES = 2**20  # of all tools; larger requests are not verified
LEGACY_TOKENS = 16  # the API's default limit of a legacy completion
# the tools without side effects: a second answer runs its tools a second time
_SAFE_TOOLS = frozenset({"function", "custom", "web_search", "web_search_preview", "file_search"})

_STATEFUL = ("background", "conversation", "prompt")
_OFF = (b"null", b"false")


@dataclass(frozen=True, slots=True)
class Expectation:
    """The requirements on an answer, and the `features` and `decision` that the request was routed by."""

    endpoint: str
    json: str = ""  # "object" or "schema" if the answer must be JSON
    schema: bytes | None = None  # that the JSON must conform to
    tools: Mapping[str, bytes | None] = field(default_factory=dict)  # the schema of each function's arguments
    custom_tools: frozenset[str] = frozenset()
    must_call: bool = False
    most_tokens: int | None = None  # the client's limit, for each choice
    choices: int = 1
    has_stops: bool = False  # the client set stop words
    features: Features | None = None
    decision: Decision | None = None
    holds: Callable[[str, Logprobs | None], bool] | None = None  # the check by content; None: not requested
    tokens: Callable[[int], Sequence[Token]] | None = None  # of a choice, with their log probabilities


class _Format(msgspec.Struct, gc=False):
    type: str = ""
    json_schema: dict[str, msgspec.Raw] | None = None  # of chat
    schema: msgspec.Raw = NULL  # of a response


class _Text(msgspec.Struct, gc=False):
    format: _Format | None = None


class _Named(msgspec.Struct, gc=False):
    name: str = ""
    parameters: msgspec.Raw = NULL


class _Tool(msgspec.Struct, gc=False):
    type: str = "function"
    name: str = ""  # of a response's
    parameters: msgspec.Raw = NULL
    function: _Named | None = None  # of chat's
    custom: _Named | None = None


def read_expectation(
    endpoint: str,
    fields: Fields,
    features: Features | None = None,
    decision: Decision | None = None,
    holds: Callable[[str, Logprobs | None], bool] | None = None,
) -> Expectation | None:
    """Parse the requirements of a request; None if it cannot be read or must not be answered twice.

    A background response has no answer yet. In a stored conversation a second answer would be added to it. A stored
    prompt may offer tools, and a tool that the upstream runs may have side effects.
    """
    if endpoint == "responses" and any(bytes(fields.get(name, b"null")) not in _OFF for name in _STATEFUL):
        return None
    try:
        offered = _offered(fields)
        wanted = None if offered is None else _format(fields, endpoint)
        chosen = _value(fields, "tool_choice")
    except DECODE_ERRORS:
        return None
    if offered is None or wanted is None:
        return None
    tools, custom = offered
    tools, custom, must_call = _chosen(chosen, tools, custom)
    limits = [limit for name in LIMITS if isinstance(limit := _value(fields, name), int)]
    if not limits and endpoint == "completions":
        limits = [LEGACY_TOKENS]
    several = _value(fields, "n")
    return Expectation(
        endpoint,
        *wanted,
        tools,
        custom,
        must_call,
        max(limits, default=None),
        several if isinstance(several, int) else 1,
        bool(_value(fields, "stop")),
        features,
        decision,
        holds,
    )


def _value(fields: Fields, name: str) -> Any:
    raw = fields.get(name)
    return None if raw is None else msgspec.json.decode(raw)


def _format(fields: Fields, endpoint: str) -> tuple[str, bytes | None]:
    if endpoint == "responses":
        raw = fields.get("text")
        text = None if raw is None else msgspec.json.decode(raw, type=_Text | None)
        wanted = None if text is None else text.format
    else:
        raw = fields.get("response_format")
        wanted = None if raw is None else msgspec.json.decode(raw, type=_Format | None)
    if wanted is None or wanted.type not in ("json_object", "json_schema"):
        return "", None
    if wanted.type == "json_object":
        return "object", None
    schema = (wanted.json_schema or {}).get("schema", NULL) if endpoint != "responses" else wanted.schema
    return "schema", _schema(schema)


def _schema(raw: msgspec.Raw) -> bytes | None:
    schema = bytes(raw)
    return None if schema == b"null" else schema


def _offered(fields: Fields) -> tuple[dict[str, bytes | None], frozenset[str]] | None:
    """The offered functions with their schemas, and the custom tools; None if a tool may have side effects."""
    raw, legacy = fields.get("tools", NULL), fields.get("functions", NULL)
    if len(memoryview(raw)) + len(memoryview(legacy)) > MOST_TOOL_BYTES:
        return None
    tools, custom = {}, set()
    for tool in msgspec.json.decode(raw, type=list[_Tool] | None) or ():
        if tool.type not in _SAFE_TOOLS:
            return None
        named = tool.function or tool.custom
        name, parameters = (named.name, named.parameters) if named else (tool.name, tool.parameters)
        if tool.type == "function":
            tools[name] = _schema(parameters)
        elif tool.type == "custom":
            custom.add(name)
    for function in msgspec.json.decode(legacy, type=list[_Named] | None) or ():
        tools[function.name] = _schema(function.parameters)
    return tools, frozenset(custom)


def _chosen(
    choice: Any, tools: dict[str, bytes | None], custom: frozenset[str]
) -> tuple[dict[str, bytes | None], frozenset[str], bool]:
    """The tools that `tool_choice` allows, and whether a call is required."""
    if choice == "none":
        return {}, frozenset(), False
    if choice == "required":
        return tools, custom, True
    if not isinstance(choice, dict):
        return tools, custom, False
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = choice.get("allowed_tools")
        mode = (allowed if isinstance(allowed, dict) else choice).get("mode")
        return tools, custom, mode == "required"
    if kind not in ("function", "custom"):
        return tools, custom, False
    named = choice.get(kind)
    name = (named if isinstance(named, dict) else choice).get("name")
    return {own: tools[own] for own in tools if own == name}, custom & {name}, True
