"""The upstreams of models, from the options of a command."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from calibration.answers.answers import Endpoint
from calibration.commands.options import UsageError

OPENAI = "https://api.openai.com/v1"


def places_of(values: list[str]) -> dict[str, list[tuple[str, str]]]:
    """The address and the key variable of each upstream, by model.

    Raises:
        UsageError: a value has the wrong form.
    """
    places: dict[str, list[tuple[str, str]]] = {}
    for value in values:
        name, _, rest = value.partition("=")
        url, _, variable = rest.partition(",")
        if not name or not url.startswith(("http://", "https://")):
            raise UsageError(f"--endpoint {value!r}: expected MODEL=URL or MODEL=URL,KEY_VARIABLE")
        places.setdefault(name, []).append((url.rstrip("/"), variable))
    return places


def endpoint_of(
    model: str, places: Mapping[str, list[tuple[str, str]]], max_output_tokens: int, sent: Mapping[str, Any]
) -> Endpoint:
    default = [(os.environ.get("OPENAI_BASE_URL", "").rstrip("/") or OPENAI, "")]
    first, *fallbacks = [_endpoint(model, *place, max_output_tokens, sent) for place in places.get(model, default)]
    return replace(first, fallbacks=tuple(fallbacks))


def _endpoint(model: str, url: str, variable: str, max_output_tokens: int, sent: Mapping[str, Any]) -> Endpoint:
    key = os.environ.get(variable or "OPENAI_API_KEY", "")
    if not key and url == OPENAI:
        raise UsageError(
            f"OPENAI_API_KEY is not set, and {model} has no other upstream; set it or add --endpoint {model}=URL"
        )
    return Endpoint(url, key or "none", max_output_tokens, sent)


def parameters_of(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--parameters is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("--parameters is not an object")
    return value
