"""What the sentinel found of a policy: a small file that calibration writes and every worker follows. No I/O.

A type that is shown to keep less than its floor is drifted: the guard of `decision.py` sends it to the strong model.
Whatever was found is of one version of the policy and says nothing of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

import msgspec

from router.policy.document import Policy

FILE = "sentinel.json"
EXPERIMENT = "router-sentinel"  # in MLflow, for routers on other machines
FORMAT = 1
State = Literal["ok", "drifted", "better"]
Share = Annotated[float, msgspec.Meta(ge=0, le=2)]  # of the strong model's quality; the cheap one may have more


class SentinelError(ValueError):
    """The file does not fit its form; says what is wrong."""


class Look(msgspec.Struct, array_like=True, frozen=True):
    """What was known of a type after so many judged pairs."""

    pairs: int
    low: Share
    estimate: Share
    high: Share
    evidence: float  # against the floor, as a share of what shows a drift


class Watched(msgspec.Struct, frozen=True):
    """One type of question: what it keeps of the strong model's quality, with a band that may be looked at any time."""

    state: State
    requests: int  # that were sampled, whichever model answered
    pairs: int  # of them, answers of the cheap model that were judged beside the strong model's
    kept: tuple[Share, Share, Share]  # low, estimate, high
    floor: Share  # that is to be kept
    trusted: Share  # that the calibration saw, or promises
    evidence: float  # that less than the floor is kept: drifted from 1 on
    since_request: int = 0  # of those sampled, from which on the band counts; 0 is the first
    history: list[Look] = []


class Signal(msgspec.Struct, frozen=True):
    """Something that is seen without a judge, against what the calibration saw."""

    name: str  # mix, novelty, errors, refusals; longer and shorter answers with their type
    n: int
    value: float
    limit: float
    evidence: float  # that the limit is passed: shown from 1 on


class Sentinel(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    format: int = FORMAT
    policy: str  # its version
    target: Share
    made_unix: float
    spent_usd: float = 0.0  # today
    usd_a_day: float = 0.0
    types: Mapping[str, Watched] = {}
    signals: list[Signal] = []

    @property
    def drifted(self) -> frozenset[str]:
        """The types that are shown to keep less than their floor."""
        return frozenset(name for name, watched in self.types.items() if watched.state == "drifted")

    @property
    def better(self) -> list[str]:
        """The types that are shown to keep more than they were trusted with."""
        return sorted(name for name, watched in self.types.items() if watched.state == "better")

    @property
    def shown(self) -> list[Signal]:
        """What is shown to have changed without a judge."""
        return [signal for signal in self.signals if signal.evidence >= 1]


def parse(content: bytes) -> Sentinel:
    """Read the file.

    Raises:
        SentinelError: it does not fit its form, or is of another format.
    """
    try:
        found = msgspec.json.decode(content, type=Sentinel)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SentinelError(f"does not parse: {error}") from error
    if found.format != FORMAT:
        raise SentinelError(f"has format {found.format}; this version reads format {FORMAT}")
    return found


def dump(sentinel: Sentinel) -> bytes:
    """The file's content; `parse` reads it back."""
    return msgspec.json.encode(sentinel) + b"\n"


def guarded(policy: Policy, sentinel: Sentinel | None) -> Policy:
    """The policy with the types that drifted under it; none where what was found is of another version."""
    drifted = sentinel.drifted if sentinel is not None and sentinel.policy == policy.version else frozenset()
    if drifted == policy.rules.drifted:
        return policy
    return replace(policy, rules=replace(policy.rules, drifted=drifted))
