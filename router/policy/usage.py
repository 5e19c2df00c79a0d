"""Tokens of a request, as counted by the upstream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one request as billed by the upstream. Each detail is a subset of its total."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    cache_write_tokens: int = 0  # input tokens that were written to the cache

    @classmethod
    def from_openai(cls, usage: Mapping[str, Any]) -> Usage:
        """Read the `usage` object of chat completions, completions, embeddings or responses. Absent counts are 0."""
        input_details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        output_details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
        return cls(
            input_tokens=_count(usage, "prompt_tokens", "input_tokens"),
            output_tokens=_count(usage, "completion_tokens", "output_tokens"),
            cached_input_tokens=_count(input_details, "cached_tokens"),
            reasoning_tokens=_count(output_details, "reasoning_tokens"),
            audio_input_tokens=_count(input_details, "audio_tokens"),
            audio_output_tokens=_count(output_details, "audio_tokens"),
            image_input_tokens=_count(input_details, "image_tokens"),
            cache_write_tokens=_count(input_details, "cache_write_tokens", "cache_creation_tokens"),
        )

    @staticmethod
    def has_totals(usage: Mapping[str, Any]) -> bool:
        """Whether an OpenAI `usage` object has a total, and all its totals are numbers of tokens."""
        found = False
        for name in _TOTALS:
            value = usage.get(name)
            if value is not None:
                if _tokens(value) is None:
                    return False
                found = True
        return found

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


_TOTALS = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens")
_MAX_TOKENS = 2**53  # larger numbers are invalid


def _count(values: Any, *names: str) -> int:
    if isinstance(values, dict):
        for name in names:
            value = values.get(name)
            if value is not None and (count := _tokens(value)) is not None:
                return count
    return 0


def _tokens(value: Any) -> int | None:
    """A number of tokens; None if the value is invalid. Some servers send 12.0."""
    if value.__class__ is int:
        return value if 0 <= value < _MAX_TOKENS else None
    if isinstance(value, float) and value.is_integer():
        return _tokens(int(value))
    return None
