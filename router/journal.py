"""Finished requests, durable before the last byte is sent: one line of JSON a record, appended in one write."""

from __future__ import annotations

from typing import Any

import msgspec


class Record(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One finished request: answered, failed or abandoned."""

    trace_id: str  # 32 hex digits; MLflow's is "tr-" + this
    span_id: str  # 16 hex digits
    parent_span_id: str = ""  # from the caller's traceparent
    started_unix_ns: int
    first_byte_unix_ns: int | None = None
    ended_unix_ns: int
    endpoint: str  # "chat/completions", ...
    asked_model: str
    model: str = ""  # as sent upstream; "" where nothing was sent
    response_model: str = ""  # as the upstream named it
    stream: bool = False
    status: int  # what the client got; 499 where it left before
    outcome: str = "answered"  # answered, failed, abandoned, cut
    error: str = ""
    attempts: int = 1  # calls upstream, retries and fallbacks included
    client_retries: int = 0  # x-stainless-retry-count
    request_id: str = ""  # the upstream's x-request-id
    simulated: bool = False
    # the decision; empty where the request passed through
    reason: str = ""
    target: float | None = None
    question_type: str = ""
    quality: dict[str, float] = {}
    expected_cost_usd: dict[str, float] = {}
    gap: float | None = None
    novelty: float | None = None
    policy_version: str = ""
    # what was billed
    usage: dict[str, int] | None = None  # the fields of router.policy.prices.Usage; None where the upstream told none
    cost_usd: float | None = None  # None where usage or price is unknown
    wasted: list[dict[str, Any]] = []  # usage of earlier attempts that were billed: {"model", "usage", "cost_usd"}
    # who asked
    key_id: str = ""  # a digest of the client's key, never the key
    user: str = ""
    session: str = ""
    # what was said, as configured (whole, lengths only, redacted, or none)
    request: Any = None
    response: Any = None
