"""Tokens of a request, as the upstream counted them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request as the upstream billed them. Each detail is a subset of its total."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    cache_write_tokens: int = 0  # of the input, what was written to the cache

    @classmethod
    def from_openai(cls, usage: Mapping[str, Any]) -> Usage:
        """Read the `usage` object of chat completions, completions, embeddings or responses; what is absent is 0."""
        read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        written = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
        return cls(
            input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
            output_tokens=_count(usage, "completion_tokens", "output_tokens"),
            cached_input_tokens=_count(read, "cached_tokens"),
            reasoning_tokens=_count(written, "reasoning_tokens"),
            audio_input_tokens=_count(read, "audio_tokens"),
            audio_output_tokens=_count(written, "audio_tokens"),
            image_input_tokens=_count(read, "image_tokens"),
            cache_write_tokens=_count(read, "cache_write_tokens", "cache_creation_tokens"),
        )

    @staticmethod
    def is_told(usage: Mapping[str, Any]) -> bool:
        """Whether a `usage` object of OpenAI's form tells what was billed: totals, all of them numbers of tokens."""
        told = False
        for name in _TOTALS:
            value = usage.get(name)
            if value is not None:
                if _tokens(value) is None:
                    return False
                told = True
        return told

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


_TOTALS = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
_MOST_TOKENS = 2**53  # what is larger is no count, and no table holds it


def _count(values: Any, *names: str) -> int:
    if isinstance(values, dict):
        for name in names:
            value = values.get(name)
            if value is not None and (count := _tokens(value)) is not None:
                return count
    return 0


def _tokens(value: Any) -> int | None:
    """A number of tokens; None where it is none. Some servers write 12.0."""
    if value.__class__ is int:
        return value if 0 <= value < _MOST_TOKENS else None
    if isinstance(value, float) and value.is_integer():
        return _tokens(int(value))
    return None
