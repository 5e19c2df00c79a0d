"""The sentinel's report on a policy: a small file that calibration writes and every worker reads. No I/O.

A question type that keeps less quality than its floor has drifted, and a guard (`guards.py`) sends it to the strong
model. A report is about one version of the policy.
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
Share = Annotated[float, msgspec.Meta(ge=0, le=2)]  # of the strong model's quality; above 1 the cheap model is better


class SentinelError(ValueError):
    """The file is invalid. The message says why."""


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """The quality that a type kept after a number of judged pairs."""

    pairs: int
    low: Share
    estimate: Share
    high: Share
    evidence: float  # that less than the floor is kept; from 1 on, a drift is shown


class TypeStatus(msgspec.Struct, frozen=True):
    """The quality that a question type keeps of the strong model's, with an anytime-valid confidence interval."""

    state: State
    requests: int  # sampled, whichever model answered
    pairs: int  # of them, answers of the cheap model that were judged against the strong model's
    kept: tuple[Share, Share, Share]  # low, estimate, high
    floor: Share  # the least share to keep
    trusted: Share  # the share that the calibration measured or promises
    evidence: float  # that less than the floor is kept; from 1 on, the type has drifted
    since_request: int = 0  # index of the first sampled request that counts
    history: list[Checkpoint] = []


class Signal(msgspec.Struct, frozen=True):
    """A statistic that needs no judge, compared with the calibration."""

    name: str  # mix, novelty, errors, refusals; longer or shorter answers, with their type
    n: int
    value: float
    limit: float
    evidence: float  # that the limit is exceeded; from 1 on, that is shown


class Sentinel(msgspec.Struct, frozen=True, kw_only=True):
    """The report, as in the file."""

    format: int = FORMAT
    policy: str  # version
    target: Share
    made_unix: float
    spent_usd: float = 0.0  # today
    usd_a_day: float = 0.0
    types: Mapping[str, TypeStatus] = {}
    signals: list[Signal] = []

    @property
    def drifted(self) -> frozenset[str]:
        """The types that keep less than their floor."""
        return frozenset(name for name, status in self.types.items() if status.state == "drifted")

    @property
    def better(self) -> list[str]:
        """The types that keep more than the calibration measured or promises."""
        return sorted(name for name, status in self.types.items() if status.state == "better")

    @property
    def significant_signals(self) -> list[Signal]:
        """The signals that exceed their limits."""
        return [signal for signal in self.signals if signal.evidence >= 1]


def parse(content: bytes) -> Sentinel:
    """Read the content of the file.

    Raises:
        SentinelError: it is invalid, or has another format.
    """
    try:
        report = msgspec.json.decode(content, type=Sentinel)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SentinelError(f"does not parse: {error}") from error
    if report.format != FORMAT:
        raise SentinelError(f"has format {report.format}; this version reads format {FORMAT}")
    return report


def dump(sentinel: Sentinel) -> bytes:
    """The content of the file, as `parse` reads it."""
    return msgspec.json.encode(sentinel) + b"\n"


def apply_drift(policy: Policy, sentinel: Sentinel | None) -> Policy:
    """The policy with the drifted types of its report; without any if the report is about another version."""
    drifted = sentinel.drifted if sentinel is not None and sentinel.policy == policy.version else frozenset()
    if drifted == policy.rules.drifted:
        return policy
    return replace(policy, rules=replace(policy.rules, drifted=drifted))
