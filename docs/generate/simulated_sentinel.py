"""Simulated findings of the sentinel, for the picture of the page."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from calibration.sentinel.kept_quality import (
    Observation,
    estimate_kept_quality,
    log_evidence_threshold,
    truncate_at_drift,
)
from router.policy.document import Policy
from router.policy.sentinel import Checkpoint, Sentinel, Signal, State, TypeStatus

TARGET, FLOOR = 0.97, 0.94


class Simulated(NamedTuple):
    """The traffic of a question type."""

    right: float  # probability that the strong model's answer is right
    by_cheap: float  # share of requests that the cheap model answers
    requests: int
    changes_at: int | None = None  # the request from which on the cheap model is worse


TYPES = {
    "math/grade-school": Simulated(0.95, 0.9, 900),
    "code/execution-tracing": Simulated(0.89, 0.7, 700),
    "medical/mmlu": Simulated(0.88, 0.5, 500),
    "factual/short-answer": Simulated(0.95, 0.5, 300),
    "medical/pubmed-abstract": Simulated(0.81, 1.0, 700, changes_at=250),
    "tool-use/simple": Simulated(0.92, 0.3, 420),
}
SIGNALS = ("mix", "novelty", "errors", "refusals", "longer math/grade-school gpt-4o-mini")


def simulate_sentinel(policy: Policy, seed: int = 12) -> Sentinel:
    """Findings about `policy`, in which one type has drifted."""
    rng = np.random.default_rng(seed)
    threshold = log_evidence_threshold(len(policy.predictor.types))
    return Sentinel(
        policy=policy.version,
        target=TARGET,
        made_unix=time.time() - 900,
        types={name: _status(traffic, threshold, rng) for name, traffic in TYPES.items()},
        signals=[Signal(name, 3500, 0.02, 0.2, 0.0) for name in SIGNALS],
    )


def _status(traffic: Simulated, threshold: float, rng: np.random.Generator) -> TypeStatus:
    observations, drifted = truncate_at_drift(_observations(traffic, rng), FLOOR, threshold)
    history = []
    for n in np.unique(np.linspace(12, len(observations), 32).astype(int)):
        kept = estimate_kept_quality(observations[:n], FLOOR, threshold)
        pairs = sum(observation.by_cheap for observation in observations[:n])
        history.append(Checkpoint(pairs, *kept.band, max(kept.log_evidence / threshold, 0.0)))
    state: State = "drifted" if drifted else "ok"
    latest = history[-1]
    return TypeStatus(
        state=state,
        requests=len(observations),
        pairs=latest.pairs,
        kept=(latest.low, latest.estimate, latest.high),
        floor=FLOOR,
        trusted=TARGET,
        evidence=latest.evidence,
        since_request=kept.change_point,
        history=history,
    )


def _observations(traffic: Simulated, rng: np.random.Generator) -> list[Observation]:
    """Sampled requests: both models agree on nine of ten, and on fewer from the change on."""
    observations = []
    for number in range(traffic.requests):
        strong = rng.random() < traffic.right
        cheap = strong if rng.random() < 0.9 else rng.random() < traffic.right
        if traffic.changes_at is not None and number > traffic.changes_at and rng.random() < 0.22:
            cheap = False
        observations.append(Observation(bool(rng.random() < traffic.by_cheap), float(cheap), float(strong)))
    return observations
