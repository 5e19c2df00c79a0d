"""When a calibration that asks in rounds looks at what it has, in which order it asks, and when it stops. No I/O.

A test that is repeated until it passes passes by chance sooner or later. So the looks are planned before anything is
asked, by the number of questions alone, and share the error that the user allows: of K looks each is tested at an error
of (1 - confidence) / K. The chance that any of them certifies falsely is at most the sum (Bonferroni's union bound, the
simplest alpha spending: Lan and DeMets 1983, Discrete sequential boundaries for clinical trials). It holds whatever
ends the calibration, and although every look learns anew from overlapping questions. The wider bounds of Pocock (1977)
need increments that are independent, which those of cross-fitting are not.

The certificate rests on questions that come as those of the file do. So every round is a random sample of it, with each
type in its share, and what was seen only decides whether to go on. To ask first where intervals are widest, weighted
back to the file's shares, is not valid: a type that lost nothing by luck is asked no further and keeps its luck, while
one that lost by chance is asked until it has not. In a simulation in which ten types keep exactly the target, a test at
95 % after a second round certified falsely in 3 to 4 % of 4,000 repeats where that came in the file's shares, in 4.5 to
5 % where it followed the types' intervals, without a smaller error to show for it, and in 39 % where it followed their
standard deviations (`docs/decisions.md`).
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from calibration.comparison.verdict import percent
from calibration.learning.certificate import TARGETS, USEFUL_SAVING, Walk, losses, lower_bound
from calibration.learning.learning import DEFAULT_TARGET, Learnt
from calibration.learning.replay import picked
from calibration.questions.questions import Question
from router.policy.decision import Rule
from router.policy.document import Policy

MOST_LOOKS = 5
LEAST_QUESTIONS = 100  # of the first look
LEAST_LOSSES = 6.0  # questions' worth of quality that the first look may lose: fewer certify nothing at a look's error


@dataclass(frozen=True, slots=True)
class Looks:
    """The looks of one calibration, planned before anything is asked."""

    target: float  # share of the strong model's quality that is to be certified
    sizes: Sequence[int]  # questions asked until each look, ascending; the last is all of them
    confidence: float  # of what is certified, over all looks

    @property
    def total(self) -> int:
        """All questions."""
        return self.sizes[-1]

    @property
    def tested_at(self) -> float:
        """The confidence of each look: their errors sum to that of the whole.

        >>> round(Looks(0.97, (200, 358, 640), 0.94).tested_at, 9)
        0.98
        """
        return 1.0 - (1.0 - self.confidence) / len(self.sizes)


class Stop(StrEnum):
    """Why a calibration in rounds ended."""

    CERTIFIED = "certified"
    ALL_ASKED = "all_asked"
    NO_HELP = "no_help"  # more questions would not certify the target
    BUDGET = "budget"


def looks(total: int, target: float, confidence: float) -> Looks:
    """At most five looks, each at about twice the questions of the one before; few questions are looked at once.

    The first look is at the fewest questions that can certify the target.

    >>> looks(640, 0.97, 0.95).sizes, looks(640, 0.9, 0.95).sizes, looks(10_000, 0.97, 0.95).sizes
    ((200, 358, 640), (100, 186, 345, 640), (200, 532, 1414, 3761, 10000))
    >>> looks(60, 0.97, 0.95).sizes
    (60,)
    """
    first = max(LEAST_QUESTIONS, round(LEAST_LOSSES / (1 - target)))
    doublings = round(math.log2(total / first)) if total > first else 0
    steps = min(doublings, MOST_LOOKS - 1)
    sizes = [round(first * (total / first) ** (step / steps)) for step in range(steps)] if steps else []
    return Looks(target, (*sizes, total), confidence)


def in_order(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions so that the first n are, for every n, a random sample with each type in its share.

    Types take turns by their share, from a random start; within a type chance decides, by the id of a question.
    """
    by_type: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_type[question.question_type or ""].append(question)
    turns: list[tuple[float, float, Question]] = []
    for name, those in by_type.items():
        start = _chance(f"{seed}/{name}")
        drawn = sorted(those, key=lambda question: _chance(f"{seed}/{name}/{question.id}"))
        turns += [((place + start) / len(those), start, question) for place, question in enumerate(drawn)]
    return [question for _, _, question in sorted(turns, key=lambda turn: turn[:2])]


def _chance(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48


def targets_with(target: float) -> tuple[float, ...]:
    """All targets that are tested, this one among them."""
    return tuple(sorted({*TARGETS, target}))


def rule_of(policy: Policy, target: float) -> Rule:
    """The rule of exactly this target."""
    return next(rule for rule in policy.rules.targets if rule.target == target)


def promised(policy: Policy, confidence: float) -> Policy:
    """The policy with the confidence that it holds at over all looks, not the stricter one of its own look."""
    rules = [replace(rule, confidence=confidence) for rule in policy.rules.targets]
    answers = policy.answers
    if answers is not None:
        answers = replace(answers, targets=[replace(rule, confidence=confidence) for rule in answers.targets])
    return replace(
        policy,
        rules=replace(policy.rules, targets=tuple(rules)),
        about={**policy.about, "confidence": confidence},
        answers=answers,
    )


def after(planned: Looks, used: int, learnt: Learnt | None) -> Stop | None:
    """Whether to stop after a look, and why; `learnt` is None where too few questions were answered and judged."""
    if learnt is not None:
        rule = rule_of(learnt.policy, planned.target)
        if rule.certified and rule.expected_saving.estimate >= USEFUL_SAVING:
            return Stop.CERTIFIED
    if used == len(planned.sizes):
        return Stop.ALL_ASKED
    if learnt is not None and not may_certify(learnt, planned):
        return Stop.NO_HELP
    return None


def may_certify(learnt: Learnt, planned: Looks) -> bool:
    """Whether all questions could certify the target at a useful saving, if the truth is as good as it may still be.

    A threshold has that chance if the upper bound of the quality that it keeps is beyond what the interval of all
    questions will need (curtailment: Lan, Simon and Halperin 1982). To stop without it certifies nothing falsely.
    """
    replay, rules, groups = learnt.replay, learnt.policy.rules, learnt.groups
    choose, costs = replay.choices(rules, planned.target), replay.costs_usd
    shrunk = math.sqrt(min(len(groups) / planned.total, 1.0))  # an interval of all, as a share of the one of these
    for price in Walk(rules, replay, replay, groups).grid(planned.target):
        chosen = choose(np.full(len(groups), price))
        if 1 - picked(costs, chosen).sum() / costs[:, -1].sum() < USEFUL_SAVING:
            continue
        values = losses(replay.scores, chosen, planned.target)
        best = -lower_bound(-values, groups, -1.0, planned.confidence)
        needed = float(values.mean()) - lower_bound(values, groups, -planned.target, planned.tested_at)
        if best >= needed * shrunk:
            return True
    return False


def plan_told(planned: Looks) -> str:
    """The rounds, before the first."""
    sizes = [f"{size:,}" for size in planned.sizes]
    rounds = f"up to {len(sizes)} rounds, of {', '.join(sizes[:-1])} and {sizes[-1]}" if sizes[1:] else "one round"
    return f"Asked in {rounds} questions; stops when {percent(planned.target)} is certified or more would not help."


def looks_told(planned: Looks, used: int) -> str:
    """How many looks there were, and why what is certified holds all the same."""
    count = len(planned.sizes)
    if count == 1:
        return f"One look was planned, at all {planned.total:,} questions, tested at {percent(planned.confidence)}."
    sizes = ", ".join(f"{size:,}" for size in planned.sizes)
    return (
        f"{used} of {count} planned looks were used (after {sizes} questions). Each is tested at "
        f"{percent(planned.tested_at)} confidence, so that what is certified holds at {percent(planned.confidence)} "
        "over all of them."
    )


def end_told(planned: Looks, used: int, stop: Stop, rule: Rule | None) -> str:
    """Why it stopped, and how to go on; the budget's end is told by `budget_told`."""
    target, total = percent(planned.target), planned.total
    if stop is Stop.CERTIFIED and rule is not None:
        asking = "" if planned.target == DEFAULT_TARGET else f" Ask for it as auto@{planned.target:g}."
        return (
            f"Stopped after {planned.sizes[used - 1]:,} of {total:,} questions: {target} is certified and saves "
            f"{rule.expected_saving.estimate:.0%} of the strong model's dollars.{asking}"
        )
    if stop is Stop.NO_HELP:
        return (
            f"Stopped after {planned.sizes[used - 1]:,} of {total:,} questions: more would not help, since all of them "
            f"are not expected to certify {target} at a useful saving. A lower target goes on with the same command "
            "and another --until."
        )
    return (
        f"Stopped after all {total:,} questions: {target} is not certified at a saving of {USEFUL_SAVING:.0%} or more. "
        "To go on, add questions to the file and run the same command; answers that are kept cost nothing."
    )


def budget_told(planned: Looks, look: int, cost_usd: float, left_usd: float) -> str:
    """Why the budget does not cover the round before a look, and what would."""
    enough = math.ceil(15 * cost_usd) / 10  # half more than expected, since answers may be longer
    return (
        f"the budget does not cover round {look} of {len(planned.sizes)}, up to {planned.sizes[look - 1]:,} of "
        f"{planned.total:,} questions: it is expected to cost ${cost_usd:.4f}, and ${max(left_usd, 0.0):.4f} is left. "
        f"What there is is kept, and the same command goes on with a budget of its own: --budget-usd {enough:g}"
    )
