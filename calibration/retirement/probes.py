"""Requests of every shape that users send, once to each model that is to take over: what it refuses, what mends that.

A shape is what a request asks of a model beside its words: the names and values of its parameters, tools, a schema, an
image, a stream. The words themselves are not sent; each probe asks for one word.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from calibration import network
from calibration.answers.answers import Endpoint, describe_error
from calibration.answers.request_adapter import RequestAdapter
from calibration.ledger import Ledger
from calibration.spending import Meter, max_cost_usd, price_of
from router.policy.prices import PriceBook
from router.policy.usage import Usage

MOST_SHAPES = 40
MOST_LESSONS = 8
OUTPUT_TOKENS = 256
PIXEL = (  # an image of one pixel
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_QUESTION = "Answer with the word yes."
_UNSENT = frozenset({"model", "messages", "user", "metadata", "session_id", "safety_identifier", "prompt_cache_key"})
_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
_SCHEMA = {
    "type": "object",
    "properties": {"word": {"type": "string"}},
    "required": ["word"],
    "additionalProperties": False,
}
STANDARD: Mapping[str, Mapping[str, Any]] = {
    "max_tokens": {"max_tokens": OUTPUT_TOKENS},
    "temperature 0": {"temperature": 0},
    "top_p": {"top_p": 0.9},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    "stop": {"stop": ["\n\n"]},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "stream": {"stream": True, "stream_options": {"include_usage": True}},
    "tools": {"tools": [_TOOL]},
    "tools, not in parallel": {"tools": [_TOOL], "parallel_tool_calls": False},
    "JSON object": {"response_format": {"type": "json_object"}},
    "JSON schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "word", "strict": True, "schema": _SCHEMA}}
    },
    "image": {"image": True},
    "developer message": {"developer": True},
    "reasoning effort low": {"reasoning_effort": "low"},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What requests of one kind ask for."""

    name: str
    body: Mapping[str, Any]  # a chat body without its model
    requests: int = 0  # of the traffic that was looked at; 0 for the standard shapes


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of one shape on one model."""

    shape: str
    model: str
    answered: bool
    changed: str  # what was changed so that it was answered, in words; "" where nothing was
    refused: str  # what the model said to it as it was, or to the last form of it
    requests: int = 0


def standard_shapes() -> list[Shape]:
    """One shape for each thing that models are known to differ in."""
    return [Shape(name, _body(dict(asked))) for name, asked in STANDARD.items()]


def shapes_of(bodies: Iterable[Mapping[str, Any]]) -> list[Shape]:
    """The shapes of recorded chat bodies, the most frequent first, each once."""
    found: dict[str, tuple[dict[str, Any], int]] = {}
    for body in bodies:
        asked = {name: value for name, value in body.items() if name not in _UNSENT}
        text = json.dumps(body.get("messages"), default=str)
        if '"image_url"' in text:
            asked["image"] = True
        if '"developer"' in text:
            asked["developer"] = True
        key = json.dumps(asked, sort_keys=True, default=str)
        found[key] = (asked, found.get(key, (asked, 0))[1] + 1)
    ranked = sorted(found.values(), key=lambda each: -each[1])[:MOST_SHAPES]
    return [Shape(_name(asked), _body(dict(asked)), count) for asked, count in ranked]


def _name(asked: Mapping[str, Any]) -> str:
    words = []
    for name, value in asked.items():
        if name == "response_format" and isinstance(value, Mapping):
            words.append(str(value.get("type", name)).replace("_", " "))
        elif name in ("tools", "image", "developer", "stop", "logit_bias", "stream_options"):
            words.append(f"{len(value)} tools" if isinstance(value, list) and name == "tools" else name)
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 20):
            words.append(name if value is True else f"{name} {value}")
        else:
            words.append(name)
    return ", ".join(words) or "plain"


def _body(asked: dict[str, Any]) -> dict[str, Any]:
    image, developer = asked.pop("image", False), asked.pop("developer", False)
    content: Any = _QUESTION + (" Write JSON." if "response_format" in asked else "")
    if image:
        content = [{"type": "text", "text": content}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    messages = [{"role": "user", "content": content}]
    if developer:
        messages.insert(0, {"role": "developer", "content": "Be brief."})
    for name in ("max_tokens", "max_completion_tokens"):
        if name in asked:
            asked[name] = OUTPUT_TOKENS
    if "max_tokens" not in asked and "max_completion_tokens" not in asked:
        asked["max_completion_tokens"] = OUTPUT_TOKENS
    return {"messages": messages, **asked}


def probes_usd(shapes: Sequence[Shape], models: Sequence[str], prices: PriceBook) -> float:
    """What the probes are expected to cost, in dollars: a tenth of the longest answer each."""
    written = OUTPUT_TOKENS // 10
    return sum(max_cost_usd(price_of(prices, model), shape.body, written) for shape in shapes for model in models)


def probe(
    shapes: Sequence[Shape],
    endpoints: Mapping[str, Endpoint],
    adapting: RequestAdapter,
    meter: Meter,
    ledger: Ledger,
    step: Callable[[], None] = lambda: None,
) -> list[Probed]:
    """Send every shape to every model, in the form in which the proxy would; what was sent once is not sent again.

    Raises:
        BudgetError: the next probe could cross the budget.
    """
    found = []
    for model, endpoint in endpoints.items():
        with network.openai_client(endpoint.base_url, endpoint.api_key, max_retries=2, timeout=60.0) as client:
            for shape in shapes:
                asked = json.dumps([endpoint.base_url, model, shape.body], sort_keys=True, ensure_ascii=False)
                key = hashlib.sha256(asked.encode()).hexdigest()
                row = ledger.get(key)
                if row is None:
                    row = _probe(client, model, shape, adapting, meter)
                    ledger.add(key, row)
                found.append(Probed(shape.name, model, row["answered"], row["changed"], row["refused"], shape.requests))
                step()
    return found


def _probe(client: openai.OpenAI, model: str, shape: Shape, adapting: RequestAdapter, meter: Meter) -> dict[str, Any]:
    body = {"model": model, **shape.body}
    refused = ""
    for _ in range(MOST_LESSONS):
        sent = adapting.adapt(body)
        most = max_cost_usd(price_of(meter.prices, model), sent, OUTPUT_TOKENS)
        meter.wait_to_reserve(most)
        usage: Usage | None = None
        try:
            usage = _sent(client, sent)
        except openai.APIStatusError as error:
            refused = describe_error(error)
            if adapting.learn_from_error(model, error):
                continue
            return {"answered": False, "changed": "", "refused": refused}
        except openai.APIError as error:
            return {"answered": False, "changed": "", "refused": describe_error(error)}
        finally:
            meter.settle(most, "probes", model, usage)
        return {"answered": True, "changed": adapting.describe_changes(body), "refused": refused}
    return {"answered": False, "changed": "", "refused": refused}


def _sent(client: openai.OpenAI, body: Mapping[str, Any]) -> Usage:
    """Send one body, whole or as a stream; the usage that it tells."""
    if not body.get("stream"):
        answered: dict[str, Any] = client.post("/chat/completions", cast_to=dict, body=dict(body))
        return Usage.from_openai(answered.get("usage") or {})
    usage = Usage()
    for chunk in client.chat.completions.create(**{**body, "stream": True}):
        told = getattr(chunk, "usage", None)
        if told is not None:
            usage = Usage.from_openai(told.model_dump())
    return usage
