"""The steps of a retirement: probe, ask and judge the new models, compare them with the old ones, learn a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from calibration.answers import tracking
from calibration.answers.answers import stored_answers
from calibration.answers.request_adapter import RequestAdapter
from calibration.comparison.tradeoffs import ALL
from calibration.judging.judgements import COMPLETENESS, Scorers
from calibration.learning.learning import LearningError, cross_fit_replay
from calibration.learning.prior import prior_of_run, transfer_evidence
from calibration.ledger import Ledger
from calibration.locations import home
from calibration.outcomes import InputError, Outcome
from calibration.pipeline.calibration import Calibration
from calibration.pipeline.collection import collect
from calibration.pipeline.conclusion import conclude
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.pipeline.progress import Progress
from calibration.pipeline.results import build_outcome, complete_questions
from calibration.pipeline.run import open_runs
from calibration.policies import load_catalogue, models_named, read_policy
from calibration.registry import registration
from calibration.retirement.comparison import (
    OLD_ROUTED,
    Choices,
    StrategyResult,
    choices_on,
    compare_strategies,
    replay_choices,
)
from calibration.retirement.probes import Shape, probe
from calibration.retirement.report import RetirementReport
from calibration.retirement.shutdown_dates import Shutdown
from calibration.spending import Meter
from calibration.traffic.mix import count_unrouted_requests
from calibration.traffic.recorded_answers import RECORDED, RecordedAnswer, store_recorded_answers
from router.policy.distribution import SHIPPED
from router.policy.document import Policy, PolicyError
from router.policy.prices import PriceBook
from router.policy.transfer import TransferError

UNROUTED_PERIOD = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class OldPolicy:
    """The policy that routes between the old models."""

    policy: Policy
    version: registration.Version | None  # in the registry; None for the shipped policy


@dataclass(frozen=True, slots=True)
class Task:
    """The input of a retirement. "Old" are the retiring models."""

    plan: Plan  # of the old and the new models
    old_policy: OldPolicy
    old: Sequence[str]  # from cheap to strong
    new: Sequence[str]  # from cheap to strong
    shapes: Sequence[Shape]
    shutdowns: Sequence[Shutdown]
    today: date
    traffic: Sequence[RecordedAnswer] = ()


def load_old_policy() -> OldPolicy:
    """The champion, or the shipped policy if there is no champion.

    Raises:
        RegistryError: the champion cannot be read.
    """
    champion = registration.load_champion()
    return OldPolicy(champion.policy if champion else read_policy(SHIPPED), champion)


def transferred_prior(
    old_policy: OldPolicy, old: Sequence[str], new: Sequence[str], prices: PriceBook
) -> Mapping[str, Any]:
    """The prior of the new policy: the old policy's evidence by type. Empty unless both route between two models."""
    if [model.name for model in old_policy.policy.rules.models] != list(old) or len(new) != 2:
        return {}
    try:
        return {"prior_evidence": transfer_evidence(old_policy.policy, models_named(new, prices))}
    except TransferError:
        return {}


def restrict_to_answered(task: Task, answers: Ledger) -> tuple[Task, int]:
    """Restrict the questions to those that every old model has answered; also return how many are left out.

    Raises:
        InputError: no question has a stored answer of every old model.
    """
    plan = task.plan
    stored = stored_answers(plan.questions, {name: plan.endpoints[name] for name in task.old}, answers).answers
    answered = [question for question in plan.questions if all((question.id, model) in stored for model in task.old)]
    if not answered:
        raise InputError(
            plan.about["questions_from"],
            None,
            f"no question has a stored answer of {' and '.join(task.old)}; ask them with --ask-old before the shutdown",
        )
    return replace(task, plan=replace(plan, questions=answered)), len(plan.questions) - len(answered)


def run_retirement(
    task: Task, ledgers: Ledgers, probe_ledger: Ledger, meter: Meter, progress: Progress
) -> tuple[RetirementReport, Calibration]:
    """Probe, ask, judge, compare and learn.

    Raises:
        StoppedError: budget, outage, refusal or interruption; finished answers and verdicts are stored.
    """
    plan, old, new = task.plan, task.old, task.new
    rejudged = _count_rejudged(task, ledgers)
    new_plan = replace(plan, endpoints={name: plan.endpoints[name] for name in new})
    with open_runs(plan) as runs:
        progress.start_stage("probing", 0, len(task.shapes) * len(new))
        probes = probe(
            task.shapes, new_plan.endpoints, RequestAdapter(load_catalogue()), meter, probe_ledger, progress.advance
        )
        gathered = collect(plan, ledgers, meter, progress, runs)
        new_runs = replace(runs, models={name: runs.models[name] for name in new})
        calibration = conclude(new_plan, gathered, ledgers, meter, progress, new_runs)
    traffic_results = _compare_on_traffic(task, calibration, ledgers, meter, progress) if task.traffic else ()
    tracking.close_children(runs, [name for name in runs.models if name not in new])
    judged = complete_questions(
        gathered.questions, list(plan.endpoints), gathered.answers, gathered.judgements.judgements
    )
    outcomes = [build_outcome(q, {m: a[m] for m in old}, {m: j[m] for m in old}) for q, a, j in judged]
    old_choices, in_sample = _choose_by_old_policy(task.old_policy, old, outcomes)
    new_choices = _choose_by_new_policy(calibration, [question.id for question, _, _ in judged])
    return RetirementReport(
        today=task.today,
        old=old,
        new=new,
        shutdowns=task.shutdowns,
        judge=plan.judge_model,
        rejudged=rejudged,
        results=compare_strategies(judged, old_choices, new_choices, plan.prices),
        traffic_results=traffic_results,
        probes=probes,
        targets=(old_choices.target, new_choices.target if new_choices else None),
        unrouted_requests=_count_unrouted(old),
        in_sample=in_sample,
        policy_version=calibration.policy.version if calibration.policy else "",
        spent_usd=meter.spent_usd(),
    ), calibration


def _compare_on_traffic(
    task: Task, calibration: Calibration, ledgers: Ledgers, meter: Meter, progress: Progress
) -> Sequence[StrategyResult]:
    """Compare the recorded answers of the traffic with those of the new models and of the new policy."""
    plan, new = task.plan, task.new
    endpoint = plan.endpoints[new[-1]]
    store_recorded_answers(task.traffic, endpoint, ledgers.answers)
    folder = plan.folder / "traffic"
    folder.mkdir(exist_ok=True)
    traffic_plan = replace(
        plan,
        questions=[recorded.question for recorded in task.traffic],
        endpoints={RECORDED: endpoint, **{name: plan.endpoints[name] for name in new}},
        scorers=Scorers([COMPLETENESS], plan.scorers.judge),
        folder=folder,
    )
    with open_runs(traffic_plan) as runs:
        gathered = collect(traffic_plan, ledgers, meter, progress, runs)
    tracking.close_runs(runs)
    judged = complete_questions(
        gathered.questions, list(traffic_plan.endpoints), gathered.answers, gathered.judgements.judgements
    )
    if not judged:
        return ()
    recorded_choices = Choices([RECORDED], np.zeros(len(judged), dtype=np.int64), None)
    outcomes = [build_outcome(q, {m: a[m] for m in new}, {m: j[m] for m in new}) for q, a, j in judged]
    new_choices = choices_on(calibration.policy, outcomes) if calibration.policy else None
    results = compare_strategies(judged, recorded_choices, new_choices, plan.prices)
    return [result for result in results if result.question_type == ALL and result.name != OLD_ROUTED]


def _count_rejudged(task: Task, ledgers: Ledgers) -> int:
    """The number of stored answers of old models that only other judges have judged so far."""
    if not len(ledgers.judgements):
        return 0
    plan = task.plan
    stored = stored_answers(plan.questions, {name: plan.endpoints[name] for name in task.old}, ledgers.answers).answers
    by_id = {question.id: question for question in plan.questions if question.check is None}
    return sum(
        ledgers.judgements.get(plan.scorers.key(by_id[question_id], answer)) is None
        for (question_id, _), answer in stored.items()
        if question_id in by_id
    )


def _choose_by_old_policy(
    old_policy: OldPolicy, old: Sequence[str], outcomes: Sequence[Outcome]
) -> tuple[Choices, bool]:
    """The choices of the old policy, and whether they are in-sample: the policy was learnt from these questions.

    A policy that was learnt from some of the questions is replayed with cross-fitting. The choices are in-sample only
    if that fails. If the old models are not the models of the policy, every question goes to the strong model.
    """
    policy, version = old_policy.policy, old_policy.version
    models = policy.rules.models
    if [model.name for model in models] != list(old):
        return Choices(old, np.full(len(outcomes), len(old) - 1), None), False
    if version is None or not {o.id for o in version.outcomes} & {o.id for o in outcomes}:
        return choices_on(policy, outcomes), False
    try:
        background = prior_of_run(policy.about, [model.name for model in models])
        replay, _ = cross_fit_replay(outcomes, models, version.seed, background)
    except (LearningError, PolicyError, ValueError):
        return choices_on(policy, outcomes), True
    return replay_choices(policy, replay), False


def _choose_by_new_policy(calibration: Calibration, question_ids: Sequence[str]) -> Choices | None:
    """The choices of the new policy, cross-fitted; None if no policy was learnt."""
    if calibration.learnt is None:
        return None
    policy, replay = calibration.learnt.policy, calibration.learnt.replay
    choices = replay_choices(policy, replay)
    rows = {outcome.id: row for row, outcome in enumerate(replay.outcomes)}
    return replace(choices, columns=choices.columns[[rows[question_id] for question_id in question_ids]])


def _count_unrouted(old: Sequence[str]) -> Mapping[str, int]:
    """Recent requests that named an old model directly, by model; empty without usage tables."""
    try:
        return count_unrouted_requests(datetime.now(UTC) - UNROUTED_PERIOD, home(), old)
    except InputError:
        return {}
