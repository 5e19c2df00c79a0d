"""What a target is, and which there are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Target:
    """What is fuzzed."""

    check: Callable[[bytes], None]  # raises on a fault
    inputs: SearchStrategy[bytes]


Opening = Callable[[], AbstractContextManager[Target]]


def openings() -> dict[str, Opening]:
    """How each target is opened, by name; what it needs is there for as long as it is open."""
    from fuzz.bodies import opened as bodies
    from fuzz.clients import opened as clients
    from fuzz.events import opened as events
    from fuzz.policies import opened as policies
    from fuzz.tables import opened as tables
    from fuzz.upstreams import opened as upstreams

    return {
        "clients": clients,
        "upstreams": upstreams,
        "events": events,
        "bodies": bodies,
        "policies": policies,
        "tables": tables,
    }
