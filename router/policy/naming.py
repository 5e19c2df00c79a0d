"""A policy's name for a model: the model's own, or `NAME:effort` where it is asked to reason so much.

`gpt-6-sol:low` and `gpt-6-sol:high` are two models of a policy: they differ in quality, in length and so in dollars.
"""

from __future__ import annotations

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # from the least to the most


def effort_of(name: str) -> str:
    """The reasoning effort that a policy's name for a model asks for; "" where it asks for none in particular.

    >>> effort_of("gpt-6-sol:low"), effort_of("gpt-6-sol"), effort_of("llama3:8b"), effort_of("ft:gpt-4o:org::id")
    ('low', '', '', '')
    """
    base, colon, effort = name.rpartition(":")
    return effort if colon and base and effort in EFFORTS else ""


def without_effort(name: str) -> str:
    """The model's own name, which its price and its upstream know.

    >>> without_effort("gpt-6-sol:low"), without_effort("llama3:8b")
    ('gpt-6-sol', 'llama3:8b')
    """
    return name.rpartition(":")[0] if effort_of(name) else name
