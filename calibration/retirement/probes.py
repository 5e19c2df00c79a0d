"""Probes: one request of every shape to each new model, to find the parameters that it rejects.

The shape of a request is everything except its text: parameter names and values, tools, a JSON schema, an image, a
stream. A probe does not contain recorded text. It asks for a one-word answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from calibration import network
from calibration.answers.answers import Endpoint
from calibration.answers.errors import describe_error
from calibration.answers.request_adapter import RequestAdapter
from calibration.ledger import Ledger
from calibration.spending import Meter, max_cost_usd, price_of
from router.policy.prices import PriceBook
from router.policy.usage import Usage

MAX_SHAPES = 40  # from recorded traffic
MAX_ATTEMPTS = 8  # per probe; each changes what the last one was rejected for
OUTPUT_TOKENS = 256
ONE_PIXEL_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_QUESTION = "Answer with the word yes."
_IGNORED = frozenset({"model", "messages", "user", "metadata", "session_id", "safety_identifier", "prompt_cache_key"})
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
    """The shape of a request."""

    name: str
    body: Mapping[str, Any]  # a chat body without its model
    requests: int = 0  # recorded requests of this shape; 0 for the standard shapes


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of probing one model with one shape."""

    shape: str
    model: str
    answered: bool
    changed: str  # description of the changes that made the model answer; "" without changes
    refused: str  # the model's last error; "" without an error
    requests: int = 0


def standard_shapes() -> list[Shape]:
    """One shape for each parameter that models are known to treat differently."""
    return [Shape(name, _build_body(dict(parameters))) for name, parameters in STANDARD.items()]


def extract_shapes(bodies: Iterable[Mapping[str, Any]]) -> list[Shape]:
    """The different shapes of recorded chat bodies, the most frequent first, at most `MAX_SHAPES`."""
    counts: dict[str, tuple[dict[str, Any], int]] = {}
    for body in bodies:
        parameters = {name: value for name, value in body.items() if name not in _IGNORED}
        messages = json.dumps(body.get("messages"), default=str)
        if '"image_url"' in messages:
            parameters["image"] = True
        if '"developer"' in messages:
            parameters["developer"] = True
        key = json.dumps(parameters, sort_keys=True, default=str)
        counts[key] = (parameters, counts.get(key, (parameters, 0))[1] + 1)
    ranked = sorted(counts.values(), key=lambda counted: -counted[1])[:MAX_SHAPES]
    return [Shape(_describe(parameters), _build_body(dict(parameters)), count) for parameters, count in ranked]


def _describe(parameters: Mapping[str, Any]) -> str:
    words = []
    for name, value in parameters.items():
        if name == "response_format" and isinstance(value, Mapping):
            words.append(str(value.get("type", name)).replace("_", " "))
        elif name in ("tools", "image", "developer", "stop", "logit_bias", "stream_options"):
            words.append(f"{len(value)} tools" if isinstance(value, list) and name == "tools" else name)
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 20):
            words.append(name if value is True else f"{name} {value}")
        else:
            words.append(name)
    return ", ".join(words) or "plain"


def _build_body(parameters: dict[str, Any]) -> dict[str, Any]:
    image, developer = parameters.pop("image", False), parameters.pop("developer", False)
    content: Any = _QUESTION + (" Write JSON." if "response_format" in parameters else "")
    if image:
        content = [{"type": "text", "text": content}, {"type": "image_url", "image_url": {"url": ONE_PIXEL_PNG}}]
    messages = [{"role": "user", "content": content}]
    if developer:
        messages.insert(0, {"role": "developer", "content": "Be brief."})
    for name in ("max_tokens", "max_completion_tokens"):
        if name in parameters:
            parameters[name] = OUTPUT_TOKENS
    if "max_tokens" not in parameters and "max_completion_tokens" not in parameters:
        parameters["max_completion_tokens"] = OUTPUT_TOKENS
    return {"messages": messages, **parameters}


def expected_probes_usd(shapes: Sequence[Shape], models: Sequence[str], prices: PriceBook) -> float:
    """The expected cost of all probes in dollars, at a tenth of the maximum answer length."""
    output_tokens = OUTPUT_TOKENS // 10
    return sum(max_cost_usd(price_of(prices, model), shape.body, output_tokens) for shape in shapes for model in models)


def probe(
    shapes: Sequence[Shape],
    endpoints: Mapping[str, Endpoint],
    adapting: RequestAdapter,
    meter: Meter,
    ledger: Ledger,
    step: Callable[[], None] = lambda: None,
) -> list[ProbeResult]:
    """Probe every model with every shape, adapted as the proxy adapts requests; stored results are reused.

    Raises:
        BudgetError: the next probe could exceed the budget.
    """
    results = []
    for model, endpoint in endpoints.items():
        with network.openai_client(endpoint.base_url, endpoint.api_key, max_retries=2, timeout=60.0) as client:
            for shape in shapes:
                probed = json.dumps([endpoint.base_url, model, shape.body], sort_keys=True, ensure_ascii=False)
                key = hashlib.sha256(probed.encode()).hexdigest()
                row = ledger.get(key)
                if row is None:
                    row = _probe(client, model, shape, adapting, meter)
                    ledger.add(key, row)
                outcome = (row["answered"], row["changed"], row["refused"])
                results.append(ProbeResult(shape.name, model, *outcome, shape.requests))
                step()
    return results


def _probe(client: openai.OpenAI, model: str, shape: Shape, adapting: RequestAdapter, meter: Meter) -> dict[str, Any]:
    body = {"model": model, **shape.body}
    refused = ""
    for _ in range(MAX_ATTEMPTS):
        sent = adapting.adapt(body)
        reserved_usd = max_cost_usd(price_of(meter.prices, model), sent, OUTPUT_TOKENS)
        meter.wait_to_reserve(reserved_usd)
        usage: Usage | None = None
        try:
            usage = _send(client, sent)
        except openai.APIStatusError as error:
            refused = describe_error(error)
            if adapting.learn_from_error(model, error):
                continue
            return {"answered": False, "changed": "", "refused": refused}
        except openai.APIError as error:
            return {"answered": False, "changed": "", "refused": describe_error(error)}
        finally:
            meter.settle(reserved_usd, "probes", model, usage)
        return {"answered": True, "changed": adapting.describe_changes(body), "refused": refused}
    return {"answered": False, "changed": "", "refused": refused}


def _send(client: openai.OpenAI, body: Mapping[str, Any]) -> Usage:
    """Send one body, streamed or not, and return its usage."""
    if not body.get("stream"):
        response: dict[str, Any] = client.post("/chat/completions", cast_to=dict, body=dict(body))
        return Usage.from_openai(response.get("usage") or {})
    usage = Usage()
    for chunk in client.chat.completions.create(**{**body, "stream": True}):
        reported = getattr(chunk, "usage", None)
        if reported is not None:
            usage = Usage.from_openai(reported.model_dump())
    return usage
