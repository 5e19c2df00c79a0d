"""Records as the proxy writes them, generated from a number."""

from __future__ import annotations

from typing import Any

from router.journal.writer import Record

START = 1_790_000_000_000_000_000


def make_record(number: int, **fields: Any) -> Record:
    """The record of a finished request; its input has 1000 + 12 × `number` tokens."""
    defaults = {
        "trace_id": f"{number + 1:032x}",
        "span_id": f"{number + 1:016x}",
        "started_unix_ns": START + number * 10**9,
        "first_byte_unix_ns": START + number * 10**9 + 250_000_000,
        "ended_unix_ns": START + number * 10**9 + 1_500_000_000,
        "endpoint": "chat/completions",
        "asked_model": "auto",
        "model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "status": 200,
        "reason": "cheap_is_enough",
        "target": 0.97,
        "question_type": "arithmetic",
        "quality": {"gpt-4o-mini": 0.9, "gpt-4o": 0.95},
        "policy_version": "v1",
        "usage": {"input_tokens": 1000 + 12 * number, "output_tokens": 200, "cached_input_tokens": 400},
        "cost_usd": (600 + 12 * number) * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.6e-6,
        "user": "ada",
        "session": "s-1",
    }
    return Record(**{**defaults, **fields})
