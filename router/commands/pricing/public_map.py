"""LiteLLM's public price map, read as far as it has prices of tokens.

The map is an object by model name; its prices are US dollars per token. The name of a key says what a price is for:
`input_cost_per_token_above_272k_tokens_flex` is that of input on the flex tier beyond 272,000 tokens.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

from router.commands.pricing.rates import STANDARD, Kind, Rate
from router.policy.naming import without_effort

NO_MODEL = "sample_spec"  # the map's explanation of its own form
PREFIX = "openai/"
_KINDS = {
    "input_cost_per_token": Kind.INPUT,
    "cache_read_input_token_cost": Kind.CACHED_INPUT,
    "cache_creation_input_token_cost": Kind.CACHE_WRITE,
    "input_cost_per_audio_token": Kind.AUDIO_INPUT,
    "input_cost_per_image_token": Kind.IMAGE_INPUT,
    "output_cost_per_token": Kind.OUTPUT,
    "output_cost_per_reasoning_token": Kind.REASONING,
    "output_cost_per_audio_token": Kind.AUDIO_OUTPUT,
}
_TIERS = {"batches": "batch"}  # other tiers have the same name here
_PRICE = re.compile(rf"({'|'.join(_KINDS)})(?:_above_(\d{{1,9}})k_tokens)?(?:_([a-z]+))?")
_LIKE_A_PRICE = re.compile(r"(?:(?!cost)[a-z0-9_])*+cost[a-z0-9_]*+")
_LONGEST_INTEGER = 18  # digits; what is longer is read as a float, and refused as a price


class MapError(ValueError):
    """The file is no price map; says why."""


class Odd(NamedTuple):
    """A value that is no price."""

    key: str  # "": the whole row
    value: str  # as it may be printed
    rate: Rate | None = None  # what the price would be for


@dataclass(frozen=True, slots=True)
class Row:
    """What the map says of one model."""

    rates: Mapping[Rate, float] = field(default_factory=dict)  # US dollars per million tokens
    odd: tuple[Odd, ...] = ()
    others: tuple[str, ...] = ()  # keys of prices for which our table has no place
    shutdown: str = ""  # the day, as 2027-01-14; what is no day as it may be printed


class PublicMap:
    """The rows of a price map by model name."""

    def __init__(self, rows: Mapping[str, Any]) -> None:
        self._rows = rows

    @classmethod
    def parse(cls, content: bytes) -> PublicMap:
        """Read the file's content.

        Raises:
            MapError: it is not JSON, or not an object of models.
        """
        try:
            rows = json.loads(content, parse_int=_integer)
        except UnicodeDecodeError as error:
            raise MapError("is not text in UTF-8") from error
        except json.JSONDecodeError as error:
            raise MapError(f"is not JSON: {error.msg} in line {error.lineno}") from error
        except RecursionError as error:
            raise MapError("nests too deeply") from error
        if not isinstance(rows, dict):
            raise MapError("is not an object of models")
        if not any(isinstance(row, dict) for name, row in rows.items() if name != NO_MODEL):
            raise MapError("has no model")
        return cls(rows)

    def row(self, model: str) -> Row | None:
        """The row of a model: under its exact name, else under `openai/NAME`; None where there is none."""
        base = without_effort(model)
        for name in (model, base, f"{PREFIX}{base}"):
            if name in self._rows and name != NO_MODEL:
                return _row(self._rows[name])
        return None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def _row(values: Any) -> Row:
    if not isinstance(values, dict):
        return Row(odd=(Odd("", _shown(values)),))
    rates: dict[Rate, float] = {}
    odd = []
    others = []
    for key, value in values.items():
        if value is None:
            continue
        name = _PRICE.fullmatch(key)
        if name is None:
            if _LIKE_A_PRICE.fullmatch(key):
                others.append(key)
            continue
        kind, thousands, tier = name.groups()
        rate = Rate(_KINDS[kind], _TIERS.get(tier, tier or STANDARD), int(thousands or 0) * 1000)
        usd = _usd_per_million(value)
        if usd is None:
            odd.append(Odd(key, _shown(value), rate))
        else:
            rates[rate] = usd
    return Row(rates, tuple(odd), tuple(others), _day(values.get("deprecation_date")))


def _day(value: Any) -> str:
    if value is None or value == "":
        return ""
    try:
        return str(date.fromisoformat(value))
    except (TypeError, ValueError):
        return _shown(value)


def _usd_per_million(value: Any) -> float | None:
    """A price per token as one per million; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    usd = value * 1e6
    return usd if 0 <= usd < math.inf else None


def _shown(value: Any) -> str:
    """A value as it may be printed: short, and without control characters."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
