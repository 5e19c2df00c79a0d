"""Applies the table of `refusals.json` to a request. No I/O beyond reading the table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "refusals.json").read_text())
SNAPSHOTS: dict[str, str] = TABLE["snapshots"]
MODELS: dict[str, dict[str, Any]] = TABLE["models"] | {
    alias: TABLE["models"][name] for alias, name in SNAPSHOTS.items()
}
ROWS: dict[str, dict[str, Any]] = {row["name"]: row for row in TABLE["refusals"]}
CHAT, RESPONSES = "chat/completions", "responses"
TEXTS = ("content", "text", "arguments", "output")  # the fields whose characters are counted


@dataclass(frozen=True)
class Refusal:
    """A refused request: the row that refuses it, and the JSON body of the error."""

    row: str
    model: str
    status: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Match:
    """The match of a row: the refused value, its positions in lists, and the numbers of the message."""

    value: Any = None
    places: tuple[int, ...] = ()
    numbers: Mapping[str, int] | None = None


def refusal(
    endpoint: str, body: dict[str, Any], retired: frozenset[str] = frozenset(), limits: Mapping[str, int] | None = None
) -> Refusal | None:
    """The first row of the table that refuses the request. `limits` replaces the most input tokens of a model."""
    model = body.get("model", "")
    for row in ROWS.values():
        if row["endpoint"] in (endpoint, "both") and {model, SNAPSHOTS.get(model), "*"} & set(row["models"]):
            match = _match(row["when"], endpoint, body, retired, limits or {})
            if match is not None:
                return _build_refusal(row, model, match)
    return None


def effort(endpoint: str, body: dict[str, Any]) -> tuple[str | None, bool]:
    """The effective reasoning effort, and whether the request sets it. None: the model does not reason."""
    value = body.get("reasoning_effort") if endpoint == CHAT else (body.get("reasoning") or {}).get("effort")
    return value or MODELS[body["model"]]["default_effort"], bool(value)


def tokens(endpoint: str, body: dict[str, Any]) -> tuple[int, int]:
    """The tokens of the texts and of the tools; a token is four characters."""
    texts = [body.get("messages")] if endpoint == CHAT else [body.get("instructions"), body.get("input")]
    tools = body.get("tools")
    return sum(map(_characters, texts)) // 4, len(json.dumps(tools)) // 4 if tools else 0


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(map(_characters, value))
    if isinstance(value, dict):
        count = sum(_characters(value[name]) for name in TEXTS if name in value)
        return count + sum(_characters(call.get("function")) for call in value.get("tool_calls") or ())
    return 0


def _match(
    when: dict[str, Any], endpoint: str, body: dict[str, Any], retired: frozenset[str], limits: Mapping[str, int]
) -> Match | None:
    model = body.get("model", "")
    if "model" in when:
        return Match() if model in retired or model not in MODELS else None
    if "effort" in when:
        current_effort, sent = effort(endpoint, body)
        if current_effort == "none" or (when["effort"] == "sent and not none" and not sent):
            return None
    if "tokens" in when:
        limit = limits.get(model, MODELS[model]["max_input_tokens"])
        return _too_long(when["tokens"], limit, *tokens(endpoint, body), _completion_tokens(body))
    return next(
        (
            candidate
            for candidate in _values(body, when["field"].split("."))
            if _is_refused_value(when, model, candidate)
        ),
        None,
    )


def _completion_tokens(body: dict[str, Any]) -> int:
    return body.get("max_completion_tokens") or body.get("max_tokens") or 0


def _too_long(kind: str, limit: int, texts: int, tools: int, completion: int) -> Match | None:
    total = texts + tools
    exceeded = {
        "messages": total > limit,
        "messages and functions": bool(tools) and total > limit,
        "messages and completion": total + completion > limit,
    }
    numbers = {"limit": limit, "tokens": total, "message_tokens": texts, "function_tokens": tools}
    numbers |= {"completion_tokens": completion, "requested_tokens": total + completion}
    return Match(numbers=numbers) if exceeded[kind] else None


def _values(value: Any, path: list[str], places: tuple[int, ...] = ()) -> Iterator[Match]:
    """The values at a path like `messages[].role`."""
    if not path:
        yield Match(value, places)
        return
    name, is_list = path[0].removesuffix("[]"), path[0].endswith("[]")
    if not isinstance(value, dict) or name not in value:
        return
    if not is_list:
        yield from _values(value[name], path[1:], places)
    elif isinstance(value[name], list):
        for place, item in enumerate(value[name]):
            yield from _values(item, path[1:], (*places, place))


def _is_refused_value(when: dict[str, Any], model: str, match: Match) -> bool:
    value = match.value
    if "among" in when:
        return any(value == value_listed and type(value) is type(value_listed) for value_listed in when["among"])
    if value is None:
        return False
    if "not_among" in when:
        return value not in when["not_among"]
    if "above" in when:
        return isinstance(value, int) and value > MODELS[model][when["above"]]
    if "below" in when:
        return isinstance(value, int) and value < when["below"]
    return True


def _build_refusal(row: dict[str, Any], model: str, match: Match) -> Refusal:
    when = row["when"]
    limit = MODELS[model][when["above"]] if "above" in when else 0
    placeholders = {
        "model": model,
        "value": _quote(match.value),
        "allowed": _format_list(when.get("not_among", [])),
        "limit": limit,
    }
    placeholders |= match.numbers or {}
    texts = {name: row[name] and row[name].format(*match.places, **placeholders) for name in ("message", "param")}
    error = {"message": texts["message"], "type": row["type"], "param": texts["param"], "code": row["code"]}
    body = {"object": "error", **error} if row.get("bare") else {"error": error}
    return Refusal(row["name"], model, row["status"], body)


def _quote(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)


def _format_list(values: list[Any]) -> str:
    """A list in OpenAI's format: 'a', 'b', and 'c'."""
    quoted = [_quote(value) for value in values]
    return quoted[0] if len(quoted) == 1 else ", ".join([*quoted[:-1], f"and {quoted[-1]}"]) if quoted else ""
