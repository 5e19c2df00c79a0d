"""Sampling of recorded requests for calibration: first those with user feedback, then evenly over question types.

Half of each type's share are the requests on which the policy was least certain, because their answers change the
policy most. The other half are random, so that the sample still represents the traffic.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UNCERTAIN_REASONS = ("no_evidence", "uncertain_type", "novel", "not_certified")


@dataclass(frozen=True, slots=True)
class Feedback:
    """A user's feedback on one answer."""

    score: float  # in [0, 1]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A recorded request, without its content."""

    trace_id: str
    question_type: str
    reason: str
    gap: float | None  # predicted quality of the strong model minus that of the cheap model
    feedback: Sequence[Feedback] = ()


def sample_traffic(traffic: Iterable[RecordedRequest], size: int, rng: random.Random) -> list[RecordedRequest]:
    """Sample up to `size` requests: those with feedback, then evenly over types, half of each the least certain."""
    requests = list(traffic)
    boundary = _boundary_gap(requests)
    with_feedback = [request for request in requests if request.feedback]
    if len(with_feedback) >= size:
        return rng.sample(with_feedback, size)
    by_type: dict[str, list[RecordedRequest]] = defaultdict(list)
    for request in requests:
        if not request.feedback:
            by_type[request.question_type].append(request)
    chosen = list(with_feedback)
    counts = {question_type: len(of_type) for question_type, of_type in by_type.items()}
    for question_type, share in _allocate(counts, size - len(with_feedback)).items():
        chosen += _sample_type(by_type[question_type], share, boundary, rng)
    return chosen


def _sample_type(
    requests: Sequence[RecordedRequest], share: int, boundary: float, rng: random.Random
) -> list[RecordedRequest]:
    shuffled = rng.sample(list(requests), len(requests))
    ranked = sorted(shuffled, key=lambda request: _certainty(request, boundary))
    least_certain, rest = ranked[: (share + 1) // 2], ranked[(share + 1) // 2 :]
    return least_certain + rng.sample(rest, share - len(least_certain))


def _certainty(request: RecordedRequest, boundary: float) -> float:
    """The distance of a request's gap from the decision boundary; 0 if the policy had no evidence."""
    if request.reason in UNCERTAIN_REASONS or request.gap is None:
        return 0.0
    return abs(request.gap - boundary)


def _boundary_gap(traffic: Sequence[RecordedRequest]) -> float:
    """The gap at which decisions change from cheap to strong.

    It is the midpoint of the 95 % quantile of cheap decisions and the 5 % quantile of strong decisions.
    """
    cheap = sorted(r.gap for r in traffic if r.reason == "cheap_is_enough" and r.gap is not None)
    strong = sorted(r.gap for r in traffic if r.reason == "strong_is_better" and r.gap is not None)
    if not cheap or not strong:
        return cheap[-1] if cheap else strong[0] if strong else 0.0
    return (cheap[int(0.95 * (len(cheap) - 1))] + strong[int(0.05 * (len(strong) - 1))]) / 2


def _allocate(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """Split `size` evenly over the types; a type gets at most its count.

    >>> _allocate({"a": 100, "b": 3, "c": 50}, 23)
    {'b': 3, 'c': 10, 'a': 10}
    """
    shares: dict[str, int] = {}
    remaining = size
    ordered = sorted(counts.items(), key=lambda item: item[1])
    for position, (question_type, count) in enumerate(ordered):
        shares[question_type] = min(count, remaining // (len(ordered) - position))
        remaining -= shares[question_type]
    return shares
