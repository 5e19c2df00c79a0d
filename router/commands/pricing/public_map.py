"""Read the token prices of LiteLLM's public price map.

The map is an object by model name; its prices are US dollars per token. The key of a price names its kind, length and
tier: `input_cost_per_token_above_272k_tokens_flex` is the price of input on the flex tier above 272,000 tokens.
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

NO_MODEL = "sample_spec"  # an entry that documents the format
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
_TIERS = {"batches": "batch"}  # LiteLLM's name -> ours; other tiers have the same name
_PRICE = re.compile(rf"({'|'.join(_KINDS)})(?:_above_(\d{{1,9}})k_tokens)?(?:_([a-z]+))?")
_LIKE_A_PRICE = re.compile(r"(?:(?!cost)[a-z0-9_])*+cost[a-z0-9_]*+")
_LONGEST_INTEGER = 18  # digits; longer integers are read as floats and rejected as prices


class MapError(ValueError):
    """The file is not a price map; the message gives the reason."""


class InvalidPrice(NamedTuple):
    """A value that is not a price."""

    key: str  # "": the whole row
    value: str  # shortened and escaped for printing
    rate: Rate | None = None  # which price the key names


@dataclass(frozen=True, slots=True)
class Row:
    """The map's entry for one model."""

    rates: Mapping[Rate, float] = field(default_factory=dict)  # US dollars per million tokens
    invalid: tuple[InvalidPrice, ...] = ()
    others: tuple[str, ...] = ()  # price keys that the price table does not support
    shutdown: str = ""  # a day such as 2027-01-14, or another value escaped for printing


class PublicMap:
    """The rows of a price map by model name."""

    def __init__(self, rows: Mapping[str, Any]) -> None:
        self._rows = rows

    @classmethod
    def parse(cls, content: bytes) -> PublicMap:
        """Parse the content of a file.

        Raises:
            MapError: the content is not JSON, or not an object of models.
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
        """Look up a model by its exact name, then as `openai/NAME`. None: not in the map."""
        base = without_effort(model)
        for name in (model, base, f"{PREFIX}{base}"):
            if name in self._rows and name != NO_MODEL:
                return _row(self._rows[name])
        return None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def _row(values: Any) -> Row:
    if not isinstance(values, dict):
        return Row(invalid=(InvalidPrice("", _shown(values)),))
    rates: dict[Rate, float] = {}
    invalid = []
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
            invalid.append(InvalidPrice(key, _shown(value), rate))
        else:
            rates[rate] = usd
    return Row(rates, tuple(invalid), tuple(others), _day(values.get("deprecation_date")))


def _day(value: Any) -> str:
    if value is None or value == "":
        return ""
    try:
        return str(date.fromisoformat(value))
    except (TypeError, ValueError):
        return _shown(value)


def _usd_per_million(value: Any) -> float | None:
    """Convert a price per token to a price per million tokens; None if it is not a price."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    usd = value * 1e6
    return usd if 0 <= usd < math.inf else None


def _shown(value: Any) -> str:
    """Escape control characters of a value and shorten it, for printing."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
