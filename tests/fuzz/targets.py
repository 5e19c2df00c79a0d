"""The targets of fuzzing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Target:
    """A check of bytes, and the inputs for it."""

    check: Callable[[bytes], None]  # raises on a fault
    inputs: SearchStrategy[bytes]


Opening = Callable[[], AbstractContextManager[Target]]


def openings() -> dict[str, Opening]:
    """The context manager of each target by name, which provides its servers and folders."""
    from fuzz.bodies import open_target as bodies
    from fuzz.clients import open_target as clients
    from fuzz.events import open_target as events
    from fuzz.policies import open_target as policies
    from fuzz.tables import open_target as tables
    from fuzz.upstreams import open_target as upstreams

    return {
        "clients": clients,
        "upstreams": upstreams,
        "events": events,
        "bodies": bodies,
        "policies": policies,
        "tables": tables,
    }
