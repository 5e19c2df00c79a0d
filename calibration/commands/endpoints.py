"""Where each model is asked, as the options of a command say."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from calibration.answers.answers import Endpoint
from calibration.commands.options import UsageError

OPENAI = "https://api.openai.com/v1"


def places_of(given: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Address and variable of the key of each upstream, in turn, by model."""
    places: dict[str, list[tuple[str, str]]] = {}
    for each in given:
        name, _, rest = each.partition("=")
        url, _, variable = rest.partition(",")
        if not name or not url.startswith(("http://", "https://")):
            raise UsageError(f"--endpoint {each!r}: expected MODEL=URL or MODEL=URL,KEY_VARIABLE")
        places.setdefault(name, []).append((url.rstrip("/"), variable))
    return places


def endpoint_of(
    model: str, places: Mapping[str, list[tuple[str, str]]], max_output_tokens: int, sent: Mapping[str, Any]
) -> Endpoint:
    default = [(os.environ.get("OPENAI_BASE_URL", "").rstrip("/") or OPENAI, "")]
    first, *others = [_endpoint(model, *place, max_output_tokens, sent) for place in places.get(model, default)]
    return replace(first, others=tuple(others))


def _endpoint(model: str, url: str, variable: str, max_output_tokens: int, sent: Mapping[str, Any]) -> Endpoint:
    key = os.environ.get(variable or "OPENAI_API_KEY", "")
    if not key and url == OPENAI:
        raise UsageError(
            f"{model} is asked at {OPENAI}, and OPENAI_API_KEY is not set (or give --endpoint {model}=URL)"
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
