"""Which of the traffic becomes questions: all that users gave feedback on, then evenly over types, the unsure first.

Within a type, half is drawn from where the policy was least sure, since there a few answers move it most, and half from
all, so that what is learnt stays true of the whole.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

UNSURE_REASONS = ("no_evidence", "uncertain_type", "novel", "not_certified")


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a user thought of one answer."""

    score: float  # in [0, 1]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the traffic, without what was said."""

    trace_id: str
    question_type: str
    reason: str
    gap: float | None  # what the strong model was expected to add
    opinions: Sequence[Opinion] = ()


def sample(traffic: Iterable[Asked], size: int, chance: random.Random) -> list[Asked]:
    """Up to `size` of them: those with feedback, then evenly over types, half of each the least sure."""
    everything = list(traffic)
    border = _border(everything)
    told = [asked for asked in everything if asked.opinions]
    if len(told) >= size:
        return chance.sample(told, size)
    by_type: dict[str, list[Asked]] = defaultdict(list)
    for asked in everything:
        if not asked.opinions:
            by_type[asked.question_type].append(asked)
    chosen = list(told)
    for kind, share in _shares({kind: len(each) for kind, each in by_type.items()}, size - len(told)).items():
        chosen += _of_type(by_type[kind], share, border, chance)
    return chosen


def _of_type(asked: Sequence[Asked], share: int, border: float, chance: random.Random) -> list[Asked]:
    mixed = chance.sample(list(asked), len(asked))
    ranked = sorted(mixed, key=lambda each: _sureness(each, border))
    unsure, rest = ranked[: (share + 1) // 2], ranked[(share + 1) // 2 :]
    return unsure + chance.sample(rest, share - len(unsure))


def _sureness(asked: Asked, border: float) -> float:
    if asked.reason in UNSURE_REASONS or asked.gap is None:
        return 0.0
    return abs(asked.gap - border)


def _border(traffic: Sequence[Asked]) -> float:
    """The gap at which decisions turn from cheap to strong: halfway between the typical ones of either side."""
    cheap = sorted(asked.gap for asked in traffic if asked.reason == "cheap_is_enough" and asked.gap is not None)
    strong = sorted(asked.gap for asked in traffic if asked.reason == "strong_is_better" and asked.gap is not None)
    if not cheap or not strong:
        return cheap[-1] if cheap else strong[0] if strong else 0.0
    return (cheap[int(0.95 * (len(cheap) - 1))] + strong[int(0.05 * (len(strong) - 1))]) / 2


def _shares(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """How many of each type: the same of all, but no more than there are.

    >>> _shares({"a": 100, "b": 3, "c": 50}, 23)
    {'b': 3, 'c': 10, 'a': 10}
    """
    shares: dict[str, int] = {}
    left = size
    ordered = sorted(counts.items(), key=lambda item: item[1])
    for position, (kind, count) in enumerate(ordered):
        shares[kind] = min(count, left // (len(ordered) - position))
        left -= shares[kind]
    return shares
