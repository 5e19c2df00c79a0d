"""Pairs of answers: the strong model answers sampled requests, and the judge scores its answer and the recorded one."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from calibration.answers import batch, tracking
from calibration.answers.answers import Answer, AnswerCollector, AnswerSet, build_body, stored_answers
from calibration.interruption import interruptible
from calibration.judging import judgements
from calibration.judging.judgements import JudgementSet
from calibration.judging.relay import JudgeRelay
from calibration.questions.questions import Question
from calibration.sentinel.ledgers import SentinelLedgers, build_result
from calibration.sentinel.plan import Plan
from calibration.sentinel.sample import SampledRequest
from calibration.spending import BATCH_DISCOUNT, BudgetError, Meter, max_cost_usd, price_of
from calibration.traffic.recorded_answers import RECORDED
from router.policy.usage import Usage

JUDGE_PROMPT_BYTES = 8000  # an upper limit of the judge's own instructions


def max_comparison_usd(plan: Plan, sampled: SampledRequest) -> float:
    """The maximum cost of comparing a request: one answer of the strong model, and all verdicts on both answers."""
    if plan.answered_by_strong(sampled) or sampled.question is None:
        return 0.0
    body = build_body(sampled.question, plan.strong_model, plan.strong)
    answer_usd = max_cost_usd(price_of(plan.prices, plan.strong_model), body, plan.strong.max_output_tokens)
    prompt = len(json.dumps(body, ensure_ascii=False).encode()) + len(sampled.text.encode()) + JUDGE_PROMPT_BYTES
    verdicts = 2 * plan.scorers.judge_calls(sampled.question)
    usage = Usage(verdicts * (prompt + plan.strong.max_output_tokens), verdicts * plan.judge.max_output_tokens)
    verdicts_usd = price_of(plan.prices, plan.judge_model).cost_usd(usage)
    return answer_usd * (BATCH_DISCOUNT if plan.batch else 1.0) + verdicts_usd


def compare(plan: Plan, ledgers: SentinelLedgers, chunk: Sequence[SampledRequest], meter: Meter) -> tuple[int, int]:
    """Compare each request of the chunk and store the results in its order; return the numbers of pairs and failures.

    Raises:
        StoppedError: an outage, a refusal or an interruption; finished answers and verdicts are stored.
    """
    version, strong = plan.policy.version, plan.strong_model
    to_compare = [sampled for sampled in chunk if not plan.answered_by_strong(sampled)]
    questions = [sampled.question for sampled in to_compare if sampled.question is not None]
    asked = _ask_strong_model(plan, ledgers, questions, meter)
    answers = {
        sampled.trace_id: (_recorded_answer(sampled), asked.answers[question.id, strong])
        for sampled, question in zip(to_compare, questions, strict=True)
        if (question.id, strong) in asked.answers
    }
    if plan.batch:
        ledgers.hold([sampled.trace_id for sampled in chunk], 0.0, held=False)  # a killed judge's calls are paid again
    judged = _judge(plan, ledgers, {question.id: question for question in questions}, list(answers.values()), meter)
    pairs = failures = 0
    for sampled in chunk:
        if plan.answered_by_strong(sampled):
            ledgers.add_answered_by_strong(sampled, version)
            continue
        assert sampled.question is not None
        keys = [(sampled.question.id, model) for model in (RECORDED, strong)]
        if sampled.trace_id not in answers or not all(key in judged.judgements for key in keys):
            failures += 1
            continue
        recorded, stronger = (
            build_result(answer, judged.judgements[key])
            for answer, key in zip(answers[sampled.trace_id], keys, strict=True)
        )
        ledgers.add_pair(sampled, version, recorded, (strong, stronger))
        pairs += 1
    return pairs, failures


def _ask_strong_model(plan: Plan, ledgers: SentinelLedgers, questions: Sequence[Question], meter: Meter) -> AnswerSet:
    endpoints = {plan.strong_model: plan.strong}
    stored = stored_answers(questions, endpoints, ledgers.answers)
    if len(stored.answers) == len(questions):
        return stored
    if plan.batch:
        return batch.collect_batch(questions, endpoints, meter, ledgers.answers, ledgers.folder)
    asking = AnswerCollector(endpoints, meter, ledgers.answers, plan.concurrency)

    async def ask() -> AnswerSet:
        loop = asyncio.get_running_loop()
        with interruptible(lambda reason: loop.call_soon_threadsafe(asking.stop, reason)):
            return await asking.collect(questions)

    return asyncio.run(ask())


def _recorded_answer(sampled: SampledRequest) -> Answer:
    """The answer in the trace. Its key contains the trace id, because several requests can ask the same question."""
    assert sampled.question is not None
    key = hashlib.sha256(f"as answered {sampled.trace_id}".encode()).hexdigest()
    return Answer(
        *(key, sampled.question.id, RECORDED, sampled.text, sampled.usage, sampled.cost_usd, "stop"),
        *(sampled.started_unix_ns, sampled.seconds),
    )


def _judge(
    plan: Plan,
    ledgers: SentinelLedgers,
    questions: Mapping[str, Question],
    pairs: Iterable[tuple[Answer, Answer]],
    meter: Meter,
) -> JudgementSet:
    """Judge both answers of each pair; `questions` has the questions by id."""
    answers = [answer for pair in pairs for answer in pair]
    if not answers:
        return JudgementSet({}, {})
    experiment = tracking.prepare(plan.tracking_uri)
    params = {"policy": plan.policy.version, "judge": plan.scorers.judge, "target": plan.target}
    models = [RECORDED, plan.strong_model]
    state = ledgers.folder / f"run-{plan.policy.version}.json"
    runs = tracking.open_runs(experiment, f"sentinel {plan.policy.version}", models, params, state)
    for model in models:
        tracking.log_answers(runs, model, [a for a in answers if a.model == model], questions, plan.prices)
    to_judge = [(questions[answer.question_id], answer) for answer in answers]
    with JudgeRelay(plan.judge, meter, ledgers.calls) as relay, interruptible(relay.stop):
        try:
            return judgements.judge(to_judge, plan.scorers, ledgers.judgements, relay, runs)
        except BudgetError:  # a verdict exceeded its reservation; the next inspection judges the remaining answers
            return judgements.stored_judgements(to_judge, plan.scorers, ledgers.judgements)
