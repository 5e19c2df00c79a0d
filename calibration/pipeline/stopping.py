"""A calibration that asks in rounds until a target is certified: the looks of `rounds.py`, each with all its stages."""

from __future__ import annotations

from dataclasses import dataclass, replace

from calibration.answers import tracking
from calibration.pipeline import rounds, run
from calibration.pipeline.rounds import Looks, Stop
from calibration.pipeline.run import Calibration, Ledgers, Plan, Progress
from calibration.questions import naming
from calibration.spending import BudgetError, Meter


@dataclass(frozen=True, slots=True)
class Ended:
    """What the last look found, and why there was no further one; without rounds nothing is said of that."""

    found: Calibration
    stop: Stop = Stop.ALL_ASKED
    told: str = ""  # why, and how to go on


def planned(plan: Plan, target: float) -> tuple[Plan, Looks]:
    """The plan with its questions typed and in the order in which they are asked, and its looks."""
    typed = naming.name_types(plan.questions, plan.known_types, plan.seed)
    whole = replace(plan, questions=rounds.in_order(typed, plan.seed), targets=rounds.targets_with(target))
    return whole, rounds.looks(len(typed), target, plan.confidence)


def part_of(whole: Plan, looks: Looks, look: int) -> Plan:
    """The plan of one look, counted from 1: all questions that are asked until then."""
    told = {"planned": list(looks.sizes), "used": look, "tested_at": looks.tested_at, "until": looks.target}
    return replace(
        whole,
        questions=whole.questions[: looks.sizes[look - 1]],
        tested_at=looks.tested_at,
        about={**whole.about, "looks": told},
    )


def run_until(whole: Plan, looks: Looks, ledgers: Ledgers, meter: Meter, progress: Progress) -> Ended:
    """Ask round after round, until the target is certified, all is asked, more would not help, or the budget ends.

    Raises:
        StoppedError: by outage, refusal or interruption, or by the budget before the first look.
    """
    with run.opened(whole) as runs:
        return _rounds(whole, looks, ledgers, meter, progress, runs)


def _rounds(
    whole: Plan, looks: Looks, ledgers: Ledgers, meter: Meter, progress: Progress, runs: tracking.Runs
) -> Ended:
    found: Calibration | None = None
    for look in range(1, len(looks.sizes) + 1):
        part = part_of(whole, looks, look)
        progress.stage(f"round {look}/{len(looks.sizes)}", len(part.questions), looks.total)
        try:
            _check(part, looks, look, ledgers, meter)
            found = run.stages(part, ledgers, meter, progress, runs)
        except BudgetError as reason:
            if found is None:
                raise
            why = str(reason)
            return _ended(found, looks, look - 1, Stop.BUDGET, why[:1].upper() + why[1:])
        stop = rounds.after(looks, look, found.learnt)
        if stop is not None:
            rule = rounds.rule_of(found.policy, looks.target) if found.policy else None
            return _ended(found, looks, look, stop, rounds.end_told(looks, look, stop, rule))
    raise AssertionError("the last look always stops")


def _check(part: Plan, looks: Looks, look: int, ledgers: Ledgers, meter: Meter) -> None:
    cost_usd, left_usd = sum(each.cost_usd for each in run.expected(part, ledgers)), meter.left_usd()
    if cost_usd > left_usd:
        raise BudgetError(rounds.budget_told(looks, look, cost_usd, left_usd))


def _ended(found: Calibration, looks: Looks, used: int, stop: Stop, told: str) -> Ended:
    reasons = [*found.verdict.reasons, rounds.looks_told(looks, used)]
    return Ended(replace(found, verdict=replace(found.verdict, reasons=reasons)), stop, told)
