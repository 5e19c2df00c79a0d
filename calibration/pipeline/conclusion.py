"""From collected answers and judgements to a comparison, a policy and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from calibration import workers
from calibration.answers import tracking
from calibration.comparison import tradeoffs
from calibration.comparison.verdict import decide_verdict
from calibration.learning.escalation import add_answer_rules
from calibration.learning.learning import DEFAULT_TARGET, LearningError, LearningResult, learn
from calibration.learning.prior import prior_of_run
from calibration.outcomes import Outcome, write_outcomes
from calibration.pipeline import rounds
from calibration.pipeline.calibration import Calibration
from calibration.pipeline.collection import CollectedData
from calibration.pipeline.costs import cost_per_question_usd, judge_spending
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.pipeline.progress import Progress
from calibration.pipeline.results import build_outcome, complete_questions
from calibration.policies import models_named, read_policy, write_policy
from calibration.spending import Meter, StoppedError


def conclude(
    plan: Plan, data: CollectedData, ledgers: Ledgers, meter: Meter, progress: Progress, runs: tracking.Runs
) -> Calibration:
    """Compare the models of the plan, and learn a policy for them.

    Raises:
        StoppedError: no question has an answer and a verdict of every model.
    """
    judged = complete_questions(data.questions, plan.models, data.answers, data.judgements.judgements)
    if not judged:
        raise StoppedError("no question has an answer and a verdict of every model; see the failures above")
    outcomes = [*(build_outcome(*row) for row in judged), *plan.traffic]
    write_outcomes(outcomes, plan.folder / "outcomes.jsonl.gz")
    progress.start_stage("learning", 0, 1)
    about = {**plan.about, "made_at": datetime.now(UTC).isoformat(timespec="seconds"), "judge": plan.scorers.judge}
    learnt = _learn_policy(plan, outcomes, about)
    policy = learnt.policy if learnt else None
    held_out = tradeoffs.evaluate_held_out(learnt, plan.seed) if learnt else None
    summaries = tradeoffs.summarise_models(judged, plan.models)
    compared = tradeoffs.compare_models(judged, plan.models, policy.default_target if policy else DEFAULT_TARGET)
    spending = judge_spending(plan, ledgers.judge_replies)
    question_usd = cost_per_question_usd(plan, summaries, spending)
    return Calibration(
        questions=data.questions,
        models=plan.models,
        summaries=summaries,
        tradeoffs=compared,
        policy=policy,
        held_out=held_out,
        verdict=decide_verdict(policy, held_out, summaries, compared, question_usd),
        outcomes=outcomes,
        unanswered=_failures_of(plan, data.answers.failures),
        unjudged=_failures_of(plan, data.judgements.failures),
        meter=meter,
        judge_spending=spending,
        runs=runs,
        trace_counts=data.trace_counts,
        about=about,
        learnt=learnt,
    )


def _failures_of(plan: Plan, failures: Mapping[tuple[str, str], str]) -> Mapping[tuple[str, str], str]:
    """The failures of the plan's models; the collected data may be of more models."""
    return {key: error for key, error in failures.items() if key[1] in plan.endpoints}


def _learn_policy(plan: Plan, outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> LearningResult | None:
    """Learn a policy and write it to the plan's folder; None where there are too few questions."""
    try:
        with workers.open_workers(plan.jobs, plan.ray) as pool:
            learnt = learn(
                outcomes,
                models_named(plan.models, plan.prices),
                plan.seed,
                about,
                prior_of_run(about, plan.models),
                targets=plan.targets,
                confidence=plan.test_confidence,
                promise=plan.promise,
                type_margin=plan.type_margin,
                workers=pool,
                folder=plan.folder / "learning",
            )
        learnt = add_answer_rules(learnt, plan.seed, plan.test_confidence, plan.promise, plan.type_margin)
    except LearningError:
        return None
    policy = learnt.policy if plan.round_confidence is None else rounds.with_confidence(learnt.policy, plan.confidence)
    write_policy(policy, plan.folder / "policy")
    return replace(learnt, policy=read_policy(plan.folder / "policy"))  # reading adds the version of the content
