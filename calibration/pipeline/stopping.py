"""A calibration in rounds: it runs all stages in each round of `rounds.py`, until there is a reason to stop."""

from __future__ import annotations

from dataclasses import dataclass, replace

from calibration.answers import tracking
from calibration.pipeline import rounds, run
from calibration.pipeline.calibration import Calibration
from calibration.pipeline.costs import expected_costs
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.pipeline.progress import Progress
from calibration.pipeline.rounds import RoundPlan, Stop
from calibration.questions import naming
from calibration.spending import BudgetError, Meter


@dataclass(frozen=True, slots=True)
class RoundsResult:
    """The calibration of the last round, and why there was no further round."""

    calibration: Calibration
    stop: Stop = Stop.ALL_ASKED
    explanation: str = ""  # why it stopped, and how to continue; "" for a calibration without rounds


def plan_with_rounds(plan: Plan, target: float) -> tuple[Plan, RoundPlan]:
    """The plan with its questions classified and in sampling order, and the rounds that certify the target."""
    questions = naming.name_types(plan.questions, plan.type_policy, plan.seed)
    ordered = rounds.sampling_order(questions, plan.seed)
    whole = replace(plan, questions=ordered, targets=rounds.targets_with(target))
    return whole, rounds.plan_rounds(len(questions), target, plan.confidence)


def plan_of_round(whole: Plan, round_plan: RoundPlan, number: int) -> Plan:
    """The plan of one round, counted from 1. It has the questions of this round and of all earlier rounds."""
    metadata = {
        "planned": list(round_plan.sizes),
        "used": number,
        "tested_at": round_plan.confidence_per_round,
        "until": round_plan.target,
    }
    return replace(
        whole,
        questions=whole.questions[: round_plan.sizes[number - 1]],
        round_confidence=round_plan.confidence_per_round,
        about={**whole.about, "looks": metadata},
    )


def run_until(whole: Plan, round_plan: RoundPlan, ledgers: Ledgers, meter: Meter, progress: Progress) -> RoundsResult:
    """Run rounds until the target is certified, all questions are asked, more would not help, or the budget ends.

    Raises:
        StoppedError: by outage, refusal or interruption, or by the budget during the first round.
    """
    with run.open_runs(whole) as runs:
        return _run_rounds(whole, round_plan, ledgers, meter, progress, runs)


def _run_rounds(
    whole: Plan, round_plan: RoundPlan, ledgers: Ledgers, meter: Meter, progress: Progress, runs: tracking.Runs
) -> RoundsResult:
    calibration: Calibration | None = None
    count = len(round_plan.sizes)
    for number in range(1, count + 1):
        plan = plan_of_round(whole, round_plan, number)
        progress.start_stage(f"round {number}/{count}", len(plan.questions), round_plan.total_questions)
        try:
            _check_budget(plan, round_plan, number, ledgers, meter)
            calibration = run.run_stages(plan, ledgers, meter, progress, runs)
        except BudgetError as error:
            if calibration is None:
                raise
            text = str(error)
            return _finish(calibration, round_plan, number - 1, Stop.BUDGET, text[:1].upper() + text[1:])
        stop = rounds.stop_reason(round_plan, number, calibration.learnt)
        if stop is not None:
            rule = rounds.rule_of(calibration.policy, round_plan.target) if calibration.policy else None
            explanation = rounds.describe_stop(round_plan, number, stop, rule)
            return _finish(calibration, round_plan, number, stop, explanation)
    raise AssertionError("the last round always stops")


def _check_budget(plan: Plan, round_plan: RoundPlan, number: int, ledgers: Ledgers, meter: Meter) -> None:
    """Raise `BudgetError` where the round is expected to cost more than what remains of the budget."""
    cost_usd, remaining_usd = sum(cost.cost_usd for cost in expected_costs(plan, ledgers)), meter.left_usd()
    if cost_usd > remaining_usd:
        raise BudgetError(rounds.describe_budget(round_plan, number, cost_usd, remaining_usd))


def _finish(calibration: Calibration, round_plan: RoundPlan, used: int, stop: Stop, explanation: str) -> RoundsResult:
    """The result of the rounds; the verdict gets the number of rounds as a further reason."""
    reasons = [*calibration.verdict.reasons, rounds.describe_rounds(round_plan, used)]
    verdict = replace(calibration.verdict, reasons=reasons)
    return RoundsResult(replace(calibration, verdict=verdict), stop, explanation)
