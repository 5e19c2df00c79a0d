"""The endpoints of models and of the judge, built from the options of a command."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from calibration.answers.answers import Endpoint
from calibration.commands.options import UsageError

OPENAI = "https://api.openai.com/v1"
JUDGE_MAX_OUTPUT_TOKENS = 2000
Addresses = Mapping[str, list[tuple[str, str]]]  # URL and key variable of each upstream of a model, in failover order


def parse_addresses(options: Sequence[str] | None) -> Addresses:
    """Parse the values of --endpoint.

    Raises:
        UsageError: a value is not MODEL=URL or MODEL=URL,KEY_VARIABLE.
    """
    addresses: dict[str, list[tuple[str, str]]] = {}
    for option in options or ():
        name, _, rest = option.partition("=")
        url, _, variable = rest.partition(",")
        if not name or not url.startswith(("http://", "https://")):
            raise UsageError(f"--endpoint {option!r}: expected MODEL=URL or MODEL=URL,KEY_VARIABLE")
        addresses.setdefault(name, []).append((url.rstrip("/"), variable))
    return addresses


def build_endpoint(model: str, addresses: Addresses, max_output_tokens: int, parameters: Mapping[str, Any]) -> Endpoint:
    """The endpoint of a model: its addresses, else OPENAI_BASE_URL, else OpenAI.

    Raises:
        UsageError: the endpoint is OpenAI, and its key is not set.
    """
    default = [(os.environ.get("OPENAI_BASE_URL", "").rstrip("/") or OPENAI, "")]
    first, *fallbacks = [
        _build_upstream(model, *address, max_output_tokens, parameters) for address in addresses.get(model, default)
    ]
    return replace(first, fallbacks=tuple(fallbacks))


def build_judge_endpoint(judge: str, addresses: Addresses) -> Endpoint:
    """The endpoint of the judge; as `build_endpoint`."""
    return build_endpoint(judge, addresses, JUDGE_MAX_OUTPUT_TOKENS, {"temperature": 0})


def _build_upstream(
    model: str, url: str, variable: str, max_output_tokens: int, parameters: Mapping[str, Any]
) -> Endpoint:
    variable = variable or "OPENAI_API_KEY"
    key = os.environ.get(variable, "")
    if not key and url == OPENAI:
        raise UsageError(f"{variable} is not set, and {model} is at {url}: set it, or use --endpoint {model}=URL")
    return Endpoint(url, key or "none", max_output_tokens, parameters)


def parse_parameters(text: str) -> dict[str, Any]:
    """Parse the value of --parameters.

    Raises:
        UsageError: it is not a JSON object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--parameters is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("--parameters is not a JSON object")
    return value
