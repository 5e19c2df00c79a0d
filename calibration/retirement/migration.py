"""A retirement from stored answers to a challenger: only the models that follow are asked."""

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
from calibration.retirement.comparison import OLD_ROUTED, Chosen, Way, chosen_by, chosen_on, ways
from calibration.retirement.probes import Shape, probe
from calibration.retirement.report import Found
from calibration.retirement.shutdown_dates import Leaving
from calibration.spending import Meter
from calibration.traffic.answered import ANSWERED, Sampled, keep
from calibration.traffic.mix import named_since
from router.policy.distribution import SHIPPED
from router.policy.document import CHAMPION, Policy, PolicyError
from router.policy.prices import PriceBook
from router.policy.transfer import TransferError

LOOKED_BACK = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class OldPolicy:
    """The policy that routes between the models that leave."""

    policy: Policy
    version: registration.Version | None  # in the registry; None for the one that is shipped


@dataclass(frozen=True, slots=True)
class Task:
    """What a retirement is to compare and learn."""

    plan: Plan  # of the new models and the old ones
    before: OldPolicy
    old: Sequence[str]  # cheap to strong
    new: Sequence[str]
    shapes: Sequence[Shape]
    gone: Sequence[Leaving]
    today: date
    traffic: Sequence[Sampled] = ()


def old_policy() -> OldPolicy:
    """The champion, else the policy that is shipped.

    Raises:
        RegistryError: the champion cannot be read.
    """
    number = registration.number_of(CHAMPION)
    if number is None:
        return OldPolicy(read_policy(SHIPPED), None)
    version = registration.load(number)
    return OldPolicy(version.policy, version)


def prior_of(before: OldPolicy, old: Sequence[str], new: Sequence[str], prices: PriceBook) -> Mapping[str, Any]:
    """What the new policy starts from: what the old one knows by type, where both are of two models."""
    if [model.name for model in before.policy.rules.models] != list(old) or len(new) != 2:
        return {}
    try:
        return {"prior_evidence": transfer_evidence(before.policy, models_named(new, prices))}
    except TransferError:
        return {}


def answered(plan: Plan, old: Sequence[str], answers: Ledger) -> tuple[Plan, int]:
    """The plan with the questions that every old model has answered, and how many are left out."""
    there = stored_answers(plan.questions, {name: plan.endpoints[name] for name in old}, answers).answers
    asked = [question for question in plan.questions if all((question.id, model) in there for model in old)]
    if not asked:
        raise InputError(
            plan.about["questions_from"],
            None,
            f"no question has an answer of {' and '.join(old)} that is kept; --ask-old asks them while they are there",
        )
    return replace(plan, questions=asked), len(plan.questions) - len(asked)


def run(task: Task, ledgers: Ledgers, probes: Ledger, meter: Meter, progress: Progress) -> tuple[Found, Calibration]:
    """Probe, ask, judge, compare, learn.

    Raises:
        StoppedError: by budget, outage, refusal or interruption; what there is is kept.
    """
    plan, old, new = task.plan, task.old, task.new
    rejudged = _judged_by_another(task, ledgers)
    of_new = replace(plan, endpoints={name: plan.endpoints[name] for name in new})
    with open_runs(plan) as runs:
        progress.start_stage("probing", 0, len(task.shapes) * len(new))
        probed = probe(task.shapes, of_new.endpoints, RequestAdapter(load_catalogue()), meter, probes, progress.advance)
        gathered = collect(plan, ledgers, meter, progress, runs)
        its_runs = replace(runs, models={name: runs.models[name] for name in new})
        made = conclude(of_new, gathered, ledgers, meter, progress, its_runs)
    on_traffic = _on_traffic(task, made, ledgers, meter, progress) if task.traffic else ()
    tracking.close_children(runs, [name for name in runs.models if name not in new])
    judged = complete_questions(
        gathered.questions, list(plan.endpoints), gathered.answers, gathered.judgements.judgements
    )
    outcomes = [build_outcome(q, {m: a[m] for m in old}, {m: j[m] for m in old}) for q, a, j in judged]
    chosen, in_sample = _old_choices(task.before, old, outcomes)
    its = _new_choices(made, [question.id for question, _, _ in judged])
    return Found(
        today=task.today,
        old=old,
        new=new,
        leaving=task.gone,
        judge=plan.judge_model,
        rejudged=rejudged,
        ways=ways(judged, chosen, its, plan.prices),
        on_traffic=on_traffic,
        probed=probed,
        targets=(chosen.target, its.target if its else None),
        named=_named(old),
        in_sample=in_sample,
        policy_version=made.policy.version if made.policy else "",
        spent_usd=meter.spent_usd(),
    ), made


def _on_traffic(task: Task, made: Calibration, ledgers: Ledgers, meter: Meter, progress: Progress) -> Sequence[Way]:
    """What requests of the traffic were answered, beside what the new models and the new policy make of them."""
    plan, new = task.plan, task.new
    endpoint = plan.endpoints[new[-1]]
    keep(task.traffic, endpoint, ledgers.answers)
    folder = plan.folder / "traffic"
    folder.mkdir(exist_ok=True)
    asked = replace(
        plan,
        questions=[each.question for each in task.traffic],
        endpoints={ANSWERED: endpoint, **{name: plan.endpoints[name] for name in new}},
        scorers=Scorers([COMPLETENESS], plan.scorers.judge),
        folder=folder,
    )
    with open_runs(asked) as runs:
        found = collect(asked, ledgers, meter, progress, runs)
    tracking.close_runs(runs)
    judged = complete_questions(found.questions, list(asked.endpoints), found.answers, found.judgements.judgements)
    if not judged:
        return ()
    before = Chosen([ANSWERED], np.zeros(len(judged), dtype=np.int64), None)
    outcomes = [build_outcome(q, {m: a[m] for m in new}, {m: j[m] for m in new}) for q, a, j in judged]
    after = chosen_on(made.policy, outcomes) if made.policy else None
    compared = ways(judged, before, after, plan.prices)
    return [way for way in compared if way.question_type == ALL and way.name != OLD_ROUTED]


def _judged_by_another(task: Task, ledgers: Ledgers) -> int:
    """How many kept answers of the old models have verdicts, but none of this judge."""
    plan = task.plan
    there = stored_answers(plan.questions, {name: plan.endpoints[name] for name in task.old}, ledgers.answers).answers
    by_id = {question.id: question for question in plan.questions if question.check is None}
    return (
        sum(
            ledgers.judgements.get(plan.scorers.key(by_id[question], answer)) is None
            for (question, _), answer in there.items()
            if question in by_id
        )
        if len(ledgers.judgements)
        else 0
    )


def _old_choices(before: OldPolicy, old: Sequence[str], outcomes: Sequence[Outcome]) -> tuple[Chosen, bool]:
    """What the old policy decides, and whether it had learnt from these questions and is flattered by them.

    A policy that learnt from some of them is replayed as it would have been learnt without each.
    """
    policy, version = before.policy, before.version
    models = policy.rules.models
    if [model.name for model in models] != list(old):  # other models than the policy's leave: none is routed between
        return Chosen(old, np.full(len(outcomes), len(old) - 1), None), False
    if version is None or not {o.id for o in version.outcomes} & {o.id for o in outcomes}:
        return chosen_on(policy, outcomes), False
    try:
        background = prior_of_run(policy.about, [model.name for model in models])
        replay, _ = cross_fit_replay(outcomes, models, version.seed, background)
    except (LearningError, PolicyError, ValueError):
        return chosen_on(policy, outcomes), True
    return chosen_by(policy, replay), False


def _new_choices(made: Calibration, ids: Sequence[str]) -> Chosen | None:
    """What the new policy decides on the questions of these ids; None where none was learnt."""
    if made.learnt is None:
        return None
    policy, replay = made.learnt.policy, made.learnt.replay  # each question is predicted by what was learnt without it
    chosen = chosen_by(policy, replay)
    at = {outcome.id: row for row, outcome in enumerate(replay.outcomes)}
    return replace(chosen, columns=chosen.columns[[at[each] for each in ids]])


def _named(old: Sequence[str]) -> Mapping[str, int]:
    """How many requests of late named the old models themselves; none where no traffic is recorded."""
    try:
        return named_since(datetime.now(UTC) - LOOKED_BACK, home(), old)
    except InputError:
        return {}
