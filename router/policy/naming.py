"""A policy's name for a model: its own name, or `NAME:effort` with a reasoning effort.

`gpt-6-sol:low` and `gpt-6-sol:high` are two models of a policy, since they differ in quality, length and cost.
"""

from __future__ import annotations

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # ascending


def effort_of(name: str) -> str:
    """The reasoning effort in a policy's name for a model; "" if the name has none.

    >>> effort_of("gpt-6-sol:low"), effort_of("gpt-6-sol"), effort_of("llama3:8b"), effort_of("ft:gpt-4o:org::id")
    ('low', '', '', '')
    """
    base, colon, effort = name.rpartition(":")
    return effort if colon and base and effort in EFFORTS else ""


def without_effort(name: str) -> str:
    """The model's own name, as in the price table and at its upstream.

    >>> without_effort("gpt-6-sol:low"), without_effort("llama3:8b")
    ('gpt-6-sol', 'llama3:8b')
    """
    return name.rpartition(":")[0] if effort_of(name) else name
