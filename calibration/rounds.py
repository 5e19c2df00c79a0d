"""A calibration in rounds: questions are asked until a target is certified, and not all at once.

Looking at a certificate several times and stopping at the first that holds promises too much: each look is one more
chance to be wrong. So the looks are fixed before anything is asked, and each is tested at an error of its own; together
these errors are what the calibration may err (the inequality of Bonferroni; the even split is Pocock's 1977 idea of
alike looks, without his gain from their correlation).

The questions of a round are those that the share of each type asks for next, drawn at random within the type. So what
has been asked is at every look a sample of one mix, which is what a certificate is about; asking where intervals are
wide would answer for another mix.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from calibration.certificate import USEFUL_SAVING
from calibration.questions import Question
from calibration.run import Calibration, Ledgers, Plan, Progress, expected, opened, stages
from calibration.spending import BudgetError, Meter
from calibration.verdict import percent
from router.policy.document import Policy

FIRST_LOOK = 100  # questions; fewer certify nothing
MOST_LOOKS = 5
TOLD_FROM = 200  # questions from which on it can be told that more would not help
HOPELESS = 2.0  # times the questions that are left; a target that needs more is not asked for


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen after a round."""

    n: int  # questions asked so far
    confidence: float  # at which the target was tested
    saving: float | None  # share of dollars that the target saves, where it was certified


@dataclass(frozen=True, slots=True)
class Found:
    """The calibration of the last round, every look, and why it was the last."""

    calibration: Calibration
    looks: Sequence[Look]
    planned: Sequence[int]
    why: str


def schedule(questions: int) -> list[int]:
    """After how many questions the certificate is looked at, each about twice the one before.

    >>> schedule(640), schedule(90), schedule(10_000)
    ([100, 200, 400, 640], [90], [800, 1600, 3200, 6400, 10000])
    """
    doubled = [FIRST_LOOK * 2**power for power in range(30) if FIRST_LOOK * 2**power < questions]
    return [*doubled, questions][-MOST_LOOKS:]


def confidence_of_each(confidence: float, looks: int) -> float:
    """At which each of several looks is tested, so that all of them together keep `confidence`.

    >>> round(confidence_of_each(0.95, 5), 4)
    0.99
    """
    return 1 - (1 - confidence) / looks


def ordered(questions: Sequence[Question], traffic: Mapping[str, int], seed: int) -> list[Question]:
    """The questions in an order of which every beginning is a sample of one mix.

    The mix is that of `traffic`, requests by type, as far as it has types of the questions; else that of the questions.
    Types without traffic come last.
    """
    waiting: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        waiting[question.question_type or ""].append(question)
    for of_type in waiting.values():
        random.Random(f"{seed} {len(of_type)} {of_type[0].id}").shuffle(of_type)  # noqa: S311  a sample, no secret
    known = {name: count for name, count in traffic.items() if count and name in waiting}
    shares = known or {name: len(of_type) for name, of_type in waiting.items()}
    total, taken = sum(shares.values()), Counter[str]()
    order: list[Question] = []
    while len(order) < len(questions):
        open_types = [name for name in waiting if waiting[name]]
        due = max(open_types, key=lambda name: shares.get(name, 0) / total * (len(order) + 1) - taken[name])
        taken[due] += 1
        order.append(waiting[due].pop())
    return order


def run_until(
    plan: Plan, target: float, traffic: Mapping[str, int], ledgers: Ledgers, meter: Meter, progress: Progress
) -> Found:
    """Ask in rounds until `target` is certified at a useful saving, or more would not help or would cross the budget.

    Raises:
        StoppedError: as `run` does, in the first round; and whenever it is interrupted.
    """
    order = ordered(plan.questions, traffic, plan.seed)
    planned = schedule(len(order))
    each = confidence_of_each(plan.confidence, len(planned))
    about = {**plan.about, "until": target, "looks": list(planned), "confidence_of_all_looks": plan.confidence}
    looks: list[Look] = []
    found, why = None, ""
    with opened(plan) as runs:
        for n in planned:
            part = replace(plan, questions=order[:n], confidence=each, about=about)
            if found is not None and (why := _beyond_budget(part, ledgers, meter)):
                break
            try:
                found = stages(part, ledgers, meter, progress, runs)
            except BudgetError as error:
                if found is None:
                    raise
                why = str(error)
                break
            looks.append(Look(n, each, saving_at(found.policy, target)))
            if why := reason_to_stop(found.policy, target, n, len(order) - n):
                break
    assert found is not None
    return Found(found, looks, planned, why)


def _beyond_budget(plan: Plan, ledgers: Ledgers, meter: Meter) -> str:
    if meter.budget_usd is None:
        return ""
    cost, left = sum(each.cost_usd for each in expected(plan, ledgers)), meter.budget_usd - meter.spent_usd()
    if cost <= left:
        return ""
    return f"the next round is expected to cost ${cost:.2f}, and ${max(left, 0.0):.2f} of the budget is left"


def saving_at(policy: Policy | None, target: float) -> float | None:
    """The share of dollars that `target` saves, where that is certified and useful."""
    rule = None if policy is None else policy.rules.rule(target)
    if rule is None or not rule.certified or rule.expected_saving.estimate < USEFUL_SAVING:
        return None
    return rule.expected_saving.estimate


def reason_to_stop(policy: Policy | None, target: float, n: int, left: int) -> str:
    """Why no more of the `left` questions are asked after `n`, or nothing where they are."""
    saving = saving_at(policy, target)
    if saving is not None:
        return f"{percent(target)} is certified, and saves {saving:.0%}"
    if not left:
        return "all questions are asked"
    if policy is None or n < TOLD_FROM:
        return ""
    rule = next((rule for rule in policy.rules.targets if rule.target >= target - 1e-9), None)
    needed = None if rule is None else rule.more_questions_needed
    if needed is None:
        return f"more questions like these are not expected to certify {percent(target)} at a useful saving"
    if needed > HOPELESS * left:
        return f"certifying {percent(target)} is expected to take {needed:,} more questions, and {left:,} are left"
    return ""


def told(found: Found, target: float) -> str:
    """How the rounds went, for people."""
    last, all_looks = found.looks[-1], 1 - (1 - found.looks[-1].confidence) * len(found.planned)
    shown = [f"{look.n:,}: {'no' if look.saving is None else f'saves {look.saving:.0%}'}" for look in found.looks]
    return (
        f"Stopped after {last.n:,} of {found.planned[-1]:,} questions: {found.why}.\n"
        f"Looked after {', '.join(f'{n:,}' for n in found.planned)} questions at most, each time at "
        f"{last.confidence:.1%} confidence, so that all looks together keep {all_looks:.0%}. "
        f"Certified at {percent(target)} after {'; '.join(shown)}."
    )
