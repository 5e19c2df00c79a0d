"""Answers, traces and judgements of a calibration. What is stored is not requested again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibration.answers import batch, tracking
from calibration.answers.answers import AnswerCollector, AnswerSet, stored_answers
from calibration.interruption import interruptible
from calibration.judging import assessments, judgements
from calibration.judging.judgements import JudgementSet
from calibration.judging.relay import JudgeRelay
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.pipeline.progress import Progress
from calibration.questions import naming
from calibration.questions.questions import Question
from calibration.spending import Meter, StoppedError
from calibration.workers import Processes


@dataclass(frozen=True, slots=True)
class CollectedData:
    """Questions with their types, answers and judgements, and the number of traces in MLflow's store."""

    questions: Sequence[Question]
    answers: AnswerSet
    judgements: JudgementSet
    trace_counts: Mapping[str, int]  # by model


def collect(plan: Plan, ledgers: Ledgers, meter: Meter, progress: Progress, runs: tracking.Runs) -> CollectedData:
    """Collect the answers, write their traces to MLflow, and judge them.

    Raises:
        StoppedError: by budget, outage, refusal or interruption. The ledgers keep what was received before.
    """
    answers = _collect_answers(plan, ledgers, meter, progress)
    questions = naming.name_types(plan.questions, plan.type_policy, plan.seed)
    by_id = {question.id: question for question in questions}
    trace_counts = _write_traces(plan, answers, by_id, runs, progress)
    pairs = [(by_id[question], answer) for (question, _), answer in answers.answers.items()]
    stored = judgements.stored_judgements(pairs, plan.scorers, ledgers.judgements).judgements
    progress.start_stage("judging", len(stored), len(pairs))
    with JudgeRelay(plan.judge, meter, ledgers.judge_replies) as relay, interruptible(relay.stop):
        processes = Processes(plan.jobs) if plan.jobs > 1 else None
        judged = judgements.judge(pairs, plan.scorers, ledgers.judgements, relay, runs, progress.advance, processes)
    progress.start_stage("assessing", 0, 1)
    assessments.write_assessments(pairs, judged, plan.scorers)
    progress.advance()
    return CollectedData(questions, answers, judged, trace_counts)


def _collect_answers(plan: Plan, ledgers: Ledgers, meter: Meter, progress: Progress) -> AnswerSet:
    stored = stored_answers(plan.questions, plan.endpoints, ledgers.answers)
    total = len(plan.questions) * len(plan.models)
    progress.start_stage("asking", len(stored.answers), total)
    if len(stored.answers) == total:
        return stored
    if plan.batch:
        return batch.collect_batch(
            plan.questions, plan.endpoints, meter, ledgers.answers, plan.folder, progress.advance
        )
    collector = AnswerCollector(plan.endpoints, meter, ledgers.answers, plan.concurrency, progress.advance)
    return asyncio.run(_collect_until_interrupted(collector, plan.questions))


async def _collect_until_interrupted(collector: AnswerCollector, questions: Sequence[Question]) -> AnswerSet:
    loop = asyncio.get_running_loop()
    with interruptible(lambda reason: loop.call_soon_threadsafe(collector.stop, reason)):
        return await collector.collect(questions)


def _write_traces(
    plan: Plan, collected: AnswerSet, questions: Mapping[str, Question], runs: tracking.Runs, progress: Progress
) -> dict[str, int]:
    """Write a trace of every answer, and return the number of traces in the store by model.

    Raises:
        StoppedError: the store's traces or tokens differ from those of the answers.
    """
    progress.start_stage("tracing", 0, len(plan.models))
    counts = {}
    for model in plan.models:
        answers = [answer for (_, m), answer in collected.answers.items() if m == model]
        tracking.log_answers(runs, model, answers, questions, plan.prices)
        count, usage = tracking.usage_in_store(runs, model, answers)
        tokens = sum(a.usage.input_tokens for a in answers), sum(a.usage.output_tokens for a in answers)
        if count != len(answers) or (usage.input_tokens, usage.output_tokens) != tokens:
            raise StoppedError(
                f"MLflow's store has {count} of {len(answers)} traces of {model}, or other token counts than the "
                "answers; run the same command again"
            )
        counts[model] = count
        progress.advance()
    return counts
