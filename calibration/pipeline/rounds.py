"""The rounds of a calibration that asks until a target is certified: their sizes, their samples, when to stop. No I/O.

**Error.** A test that is repeated until it passes will pass by chance at some point. So the rounds are fixed before the
first question is asked, from the number of questions alone, and share the error that the user allows: with K rounds,
each round tests at an error of (1 - confidence) / K. The probability that any round certifies falsely is at most the
sum (Bonferroni's union bound, the simplest alpha spending function: Lan and DeMets 1983, Discrete sequential boundaries
for clinical trials). The bound holds for every stopping rule, and although every round learns again from overlapping
questions. The wider bounds of Pocock (1977) require independent increments, which cross-fitting does not have.

**Sampling.** The certificate assumes that the questions are distributed as in the file. So every round is a random
sample of the file, with each type in its share, and the results only decide whether to continue. It is not valid to ask
first where intervals are widest and to weight the answers back to the file's shares: a type without losses by chance
gets no further questions and keeps its luck, while a type with losses by chance gets questions until they average out.
In a simulation with ten types that keep exactly the target, a test at 95 % after a second round certified falsely in 3
to 4 % of 4,000 repetitions where the round had the file's shares, in 4.5 to 5 % where it followed the types' intervals
(without a smaller error in return), and in 39 % where it followed their standard deviations (`docs/decisions.md`).
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from calibration.comparison.verdict import format_percent
from calibration.learning.certificate import TARGETS, USEFUL_SAVING, FixedSequenceTest, excess_quality
from calibration.learning.intervals import lower_bound
from calibration.learning.learning import DEFAULT_TARGET, LearningResult
from calibration.learning.ranking import saved_share
from calibration.learning.replay import pick_columns
from calibration.questions.questions import Question
from router.policy.document import Policy
from router.policy.rules import Rule

MAX_ROUNDS = 5
MIN_FIRST_ROUND = 100  # questions
MIN_LOSSES = 6.0  # questions that the first round may lose and still certify; with fewer it could certify nothing


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The rounds of one calibration, fixed before the first question is asked."""

    target: float  # share of the strong model's quality to certify
    sizes: Sequence[int]  # cumulative number of questions after each round, ascending; the last is the total
    confidence: float  # of the certificate, over all rounds

    @property
    def total_questions(self) -> int:
        """The number of questions of all rounds together."""
        return self.sizes[-1]

    @property
    def confidence_per_round(self) -> float:
        """The confidence of the test of each round. The errors of the rounds sum to the error of the certificate.

        >>> round(RoundPlan(0.97, (200, 358, 640), 0.94).confidence_per_round, 9)
        0.98
        """
        return 1.0 - (1.0 - self.confidence) / len(self.sizes)


class Stop(StrEnum):
    """Why a calibration in rounds stopped."""

    CERTIFIED = "certified"
    ALL_ASKED = "all_asked"
    NO_HELP = "no_help"  # more questions are not expected to certify the target
    BUDGET = "budget"


def plan_rounds(total: int, target: float, confidence: float) -> RoundPlan:
    """At most five rounds, each with about twice the questions of the one before; a small set has one round.

    The first round has the fewest questions that can certify the target.

    >>> plan_rounds(640, 0.97, 0.95).sizes, plan_rounds(640, 0.9, 0.95).sizes, plan_rounds(10_000, 0.97, 0.95).sizes
    ((200, 358, 640), (100, 186, 345, 640), (200, 532, 1414, 3761, 10000))
    >>> plan_rounds(60, 0.97, 0.95).sizes
    (60,)
    """
    first = max(MIN_FIRST_ROUND, round(MIN_LOSSES / (1 - target)))
    doublings = round(math.log2(total / first)) if total > first else 0
    steps = min(doublings, MAX_ROUNDS - 1)
    sizes = [round(first * (total / first) ** (step / steps)) for step in range(steps)] if steps else []
    return RoundPlan(target, (*sizes, total), confidence)


def sampling_order(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions in an order whose first n are, for every n, a random sample with each type in its share.

    Types alternate by their share, from a random start. Within a type the order is pseudo-random by the question's id.
    """
    by_type: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_type[question.question_type or ""].append(question)
    turns: list[tuple[float, float, Question]] = []
    for name, of_type in by_type.items():
        start = _pseudo_random(f"{seed}/{name}")
        drawn = sorted(of_type, key=lambda question: _pseudo_random(f"{seed}/{name}/{question.id}"))
        turns += [((place + start) / len(of_type), start, question) for place, question in enumerate(drawn)]
    return [question for _, _, question in sorted(turns, key=lambda turn: turn[:2])]


def _pseudo_random(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48


def targets_with(target: float) -> tuple[float, ...]:
    """The default targets and this one, ascending."""
    return tuple(sorted({*TARGETS, target}))


def rule_of(policy: Policy, target: float) -> Rule:
    """The rule for exactly this target."""
    return next(rule for rule in policy.rules.targets if rule.target == target)


def with_confidence(policy: Policy, confidence: float) -> Policy:
    """The policy with the confidence over all rounds instead of the stricter one of its own round."""
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


def stop_reason(plan: RoundPlan, used: int, learnt: LearningResult | None) -> Stop | None:
    """Why to stop after `used` rounds; None to continue. `learnt` is None where there were too few questions."""
    if learnt is not None:
        rule = rule_of(learnt.policy, plan.target)
        if rule.certified and rule.expected_saving.estimate >= USEFUL_SAVING:
            return Stop.CERTIFIED
    if used == len(plan.sizes):
        return Stop.ALL_ASKED
    if learnt is not None and not may_certify(learnt, plan):
        return Stop.NO_HELP
    return None


def may_certify(learnt: LearningResult, plan: RoundPlan) -> bool:
    """Whether all questions could still certify the target at a useful saving.

    They could if, for some threshold, the upper bound of the excess quality is larger than the half-width that the
    interval will have with all questions (curtailment: Lan, Simon and Halperin 1982). A stop for this reason cannot
    certify anything falsely.
    """
    replay, rules, groups = learnt.replay, learnt.policy.rules, learnt.groups
    choose, costs = replay.chooser(rules, plan.target), replay.costs_usd
    shrinkage = math.sqrt(min(len(groups) / plan.total_questions, 1.0))  # of the interval, from these questions to all
    for threshold in FixedSequenceTest(rules, replay, replay, groups).grid(plan.target):
        chosen = choose(np.full(len(groups), threshold))
        if saved_share(pick_columns(costs, chosen), costs[:, -1]) < USEFUL_SAVING:
            continue
        values = excess_quality(replay.scores, chosen, plan.target)
        upper = -lower_bound(-values, groups, -1.0, plan.confidence)
        half_width = float(values.mean()) - lower_bound(values, groups, -plan.target, plan.confidence_per_round)
        if upper >= half_width * shrinkage:
            return True
    return False


def describe_plan(plan: RoundPlan) -> str:
    """The rounds, for the user before the first one."""
    sizes = [f"{size:,}" for size in plan.sizes]
    if len(sizes) == 1:
        return f"One round of {sizes[0]} questions."
    return (
        f"Up to {len(sizes)} rounds, with {', '.join(sizes[:-1])} and {sizes[-1]} questions in total. The calibration "
        f"stops when {format_percent(plan.target)} is certified or more questions would not help."
    )


def describe_rounds(plan: RoundPlan, used: int) -> str:
    """How many rounds ran, and why the certificate holds."""
    count = len(plan.sizes)
    if count == 1:
        return (
            f"The calibration had one round of {plan.total_questions:,} questions, tested at "
            f"{format_percent(plan.confidence)} confidence."
        )
    sizes = ", ".join(f"{size:,}" for size in plan.sizes)
    return (
        f"The calibration used {used} of {count} planned rounds (after {sizes} questions). Each round is tested at "
        f"{format_percent(plan.confidence_per_round)} confidence, so the certificate holds at "
        f"{format_percent(plan.confidence)} over all rounds."
    )


def describe_stop(plan: RoundPlan, used: int, stop: Stop, rule: Rule | None) -> str:
    """Why the calibration stopped, and how to continue. `describe_budget` describes the end of the budget."""
    target, asked, total = format_percent(plan.target), f"{plan.sizes[used - 1]:,}", f"{plan.total_questions:,}"
    if stop is Stop.CERTIFIED and rule is not None:
        request_it = "" if plan.target == DEFAULT_TARGET else f" Request it as auto@{plan.target:g}."
        return (
            f"Stopped after {asked} of {total} questions: {target} is certified and saves "
            f"{rule.expected_saving.estimate:.0%} of the strong model's cost.{request_it}"
        )
    if stop is Stop.NO_HELP:
        return (
            f"Stopped after {asked} of {total} questions: all {total} questions are not expected to certify {target} "
            "at a useful saving. To try a lower target, run the same command with a lower --until."
        )
    return (
        f"Stopped after all {total} questions: {target} is not certified at a saving of {USEFUL_SAVING:.0%} or more. "
        "To continue, add questions to the file and run the same command; stored answers cost nothing."
    )


def describe_budget(plan: RoundPlan, number: int, cost_usd: float, remaining_usd: float) -> str:
    """Why the budget does not cover a round, and which budget would."""
    suggested = math.ceil(15 * cost_usd) / 10  # one and a half times the expected cost, since answers may be longer
    return (
        f"the budget does not cover round {number} of {len(plan.sizes)} (up to {plan.sizes[number - 1]:,} of "
        f"{plan.total_questions:,} questions): its expected cost is ${cost_usd:.4f}, and "
        f"${max(remaining_usd, 0.0):.4f} remains. Results so far are stored; to continue, run the same command with "
        f"--budget-usd {suggested:g}"
    )
