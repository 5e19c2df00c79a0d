"""Parses JSON that a model wrote, strictly as RFC 8259 defines it, within bounds of depth."""

from __future__ import annotations

import json
from typing import Any

from router.wire.nesting import exceeds_depth

MAX_LEVELS = 64
MOST_DIGITS = 4000  # Python refuses to convert longer integers


class UndecidedError(Exception):
    """The check cannot decide within its bounds of size, depth or time."""


def parse_json(text: str) -> Any:
    """Parse one JSON value.

    Raises:
        ValueError: the text is not JSON.
        UndecidedError: it is nested too deeply.

    >>> parse_json('{"a": [1, "\\\\ud83d"]}')["a"][0]
    1
    >>> parse_json("NaN")
    Traceback (most recent call last):
    ValueError: NaN
    """
    _check_depth(text)
    return json.loads(text, parse_constant=_no_constant, parse_int=_number)


def parse_json_values(text: str) -> list[Any]:
    """Parse consecutive JSON values, as in examples and JSON Lines.

    Raises:
        ValueError, UndecidedError: as `parse_json`.

    >>> parse_json_values('{"a": 1}\\n{"a": 2}')
    [{'a': 1}, {'a': 2}]
    """
    _check_depth(text)
    decoder = json.JSONDecoder(parse_constant=_no_constant, parse_int=_number)
    values, rest = [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    return values


def _check_depth(text: str) -> None:
    if exceeds_depth(text.encode("utf-8", "surrogatepass"), MAX_LEVELS):
        raise UndecidedError


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)
