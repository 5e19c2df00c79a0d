"""One look of the sentinel: sample, ask the strong model, judge, and say what each type keeps.

What was asked and judged is kept, so that an interrupted look asks nothing twice. The dollars of a day are reserved on
disk before a call is sent, so that not even a process that is killed lets the next one cross them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.answers import batch, tracking
from calibration.answers.answers import Answer, AnswerCollector, AnswerSet, Endpoint, build_body, stored_answers
from calibration.interruption import interruptible
from calibration.judging import judgements
from calibration.judging.judgements import JudgementSet, Scorers
from calibration.judging.relay import JudgeRelay
from calibration.questions.questions import Question
from calibration.sentinel import signals
from calibration.sentinel.kept_quality import kept_quality, needed, until_drifted
from calibration.sentinel.rows import Rows, result_of, today
from calibration.sentinel.sample import Sampled, sampled
from calibration.spending import BATCH_DISCOUNT, BudgetError, Meter, StoppedError, max_cost_usd, price_of
from router.policy.document import Policy
from router.policy.prices import PriceBook
from router.policy.sentinel import Checkpoint, Sentinel, TypeStatus
from router.policy.usage import Usage

AS_ANSWERED = "as answered"  # in the place of a model, in MLflow
AT_ONCE = 50  # requests that are asked and judged together
JUDGE_BYTES = 8000  # more than the judge's own instructions have
HISTORY = 60  # looks that are kept of a type


@dataclass(frozen=True, slots=True)
class Plan:
    """What is watched, and how."""

    policy: Policy
    target: float
    margin: float  # by which a type may keep less than the target
    strong: Endpoint
    judge: Endpoint
    scorers: Scorers
    prices: PriceBook
    tracking_uri: str
    share: float
    usd_a_day: float
    since: str
    batch: bool = False
    concurrency: int = 8

    @property
    def strong_model(self) -> str:
        return self.policy.rules.strong.name

    @property
    def judge_model(self) -> str:
        return self.scorers.judge.split(":/")[-1]


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look did."""

    sentinel: Sentinel
    new_requests: int
    new_pairs: int
    waiting: int  # sampled requests for which the day's dollars do not suffice
    too_dear: int  # that cost more than a whole day has
    unjudged: int
    spent_usd: float


def look(plan: Plan, rows: Rows, before: Sentinel | None) -> Looked:
    """Sample, compare and conclude.

    Raises:
        TrafficError: nothing was recorded yet.
        StoppedError: by outage, refusal or interruption; what there is is kept.
    """
    version = plan.policy.version
    fresh = list(sampled(plan.tracking_uri, version, plan.share, plan.since, rows.known()))
    new = [each for each in fresh if each.trace_id not in rows.requests]
    for each in sorted(new, key=lambda each: each.started_unix_ns):
        rows.note(each, version)
    queue = sorted((each for each in fresh if _is_watched(plan, each)), key=lambda each: each.place)
    dear = [each for each in queue if _most_usd(plan, each) > plan.usd_a_day]
    queue = [each for each in queue if _most_usd(plan, each) <= plan.usd_a_day]
    pairs = unjudged = 0
    spent = 0.0
    while queue and (chunk := _next(plan, rows, queue)):
        taken = {each.trace_id for each in chunk}
        queue = [each for each in queue if each.trace_id not in taken]
        meter = Meter(plan.prices, sum(_most_usd(plan, each) for each in chunk))
        try:
            judged = _compare(plan, rows, chunk, meter)
        except StoppedError:
            if not plan.batch:  # what a batch under way will cost stays reserved
                rows.settle(taken, meter.spent_usd())
            raise
        rows.settle(taken, meter.spent_usd())
        spent += meter.spent_usd()
        pairs, unjudged = pairs + judged[0], unjudged + judged[1]
    return Looked(concluded(plan, rows, before), len(new), pairs, len(queue), len(dear), unjudged, spent)


def _is_watched(plan: Plan, each: Sampled) -> bool:
    """Whether a request was promised the target that is watched, and is recorded as text."""
    return each.question is not None and each.target is not None and abs(each.target - plan.target) < 1e-9


def _by_strong(plan: Plan, each: Sampled) -> bool:
    return each.model == plan.strong_model


def _most_usd(plan: Plan, each: Sampled) -> float:
    """The most that comparing one request can cost: an answer, and all verdicts on it and the one there is."""
    if _by_strong(plan, each) or each.question is None:
        return 0.0
    body = build_body(each.question, plan.strong_model, plan.strong)
    answer = max_cost_usd(price_of(plan.prices, plan.strong_model), body, plan.strong.max_output_tokens)
    said = len(json.dumps(body, ensure_ascii=False).encode()) + len(each.text.encode()) + JUDGE_BYTES
    read = 2 * (said + plan.strong.max_output_tokens) * plan.scorers.judge_calls(each.question)
    written = 2 * plan.judge.max_output_tokens * plan.scorers.judge_calls(each.question)
    verdicts = price_of(plan.prices, plan.judge_model).cost_usd(Usage(read, written))
    return answer * (BATCH_DISCOUNT if plan.batch else 1.0) + verdicts


def _next(plan: Plan, rows: Rows, queue: Sequence[Sampled]) -> list[Sampled]:
    """The first of the queue that the rest of the day's dollars cover, reserved; none behind one that they do not.

    To pass one over because it is dear would compare cheap requests more often. Those that an interrupted look had
    reserved come first and together: their batch may be under way.
    """
    left = plan.usd_a_day - rows.spent_usd(today())
    chunk = []
    for each in [each for each in queue if rows.is_open(each.trace_id)] or queue[:AT_ONCE]:
        left -= _most_usd(plan, each)
        if left < 0:
            break
        chunk.append(each)
    for each in chunk:
        rows.reserve(each.trace_id, _most_usd(plan, each))
    return chunk


def _compare(plan: Plan, rows: Rows, chunk: Sequence[Sampled], meter: Meter) -> tuple[int, int]:
    """Have the strong model answer, judge both answers, and note them in the order of the chunk; pairs and failures."""
    version, strong = plan.policy.version, plan.strong_model
    todo = [each for each in chunk if not _by_strong(plan, each)]
    questions = [each.question for each in todo if each.question is not None]
    asked = _asked(plan, rows, questions, meter)
    answers = {
        each.trace_id: (_as_answered(each), asked.answers[question.id, strong])
        for each, question in zip(todo, questions, strict=True)
        if (question.id, strong) in asked.answers
    }
    by_id = {question.id: question for question in questions}
    judged = _judged(plan, rows, by_id, list(answers.values()), meter)
    pairs = failures = 0
    for each in chunk:
        if _by_strong(plan, each):
            rows.answered_by_strong(each, version)
            continue
        assert each.question is not None
        both = [(each.question.id, model) for model in (AS_ANSWERED, strong)]
        if each.trace_id in answers and all(at in judged.judgements for at in both):
            results = [result_of(a, judged.judgements[at]) for a, at in zip(answers[each.trace_id], both, strict=True)]
            rows.pair(each, version, results[0], (strong, results[1]))
            pairs += 1
        else:
            failures += 1
    return pairs, failures


def _asked(plan: Plan, rows: Rows, questions: Sequence[Question], meter: Meter) -> AnswerSet:
    endpoints = {plan.strong_model: plan.strong}
    there = stored_answers(questions, endpoints, rows.answers)
    if len(there.answers) == len(questions):
        return there
    if plan.batch:
        return batch.collect_batch(questions, endpoints, meter, rows.answers, rows.folder)
    asking = AnswerCollector(endpoints, meter, rows.answers, plan.concurrency)

    async def ask() -> AnswerSet:
        loop = asyncio.get_running_loop()
        with interruptible(lambda reason: loop.call_soon_threadsafe(asking.stop, reason)):
            return await asking.collect(questions)

    return asyncio.run(ask())


def _as_answered(each: Sampled) -> Answer:
    """The answer that a request of the traffic got. Its key is that of the request: others may ask the same."""
    assert each.question is not None
    key = hashlib.sha256(f"as answered {each.trace_id}".encode()).hexdigest()
    return Answer(
        *(key, each.question.id, AS_ANSWERED, each.text, each.usage, each.cost_usd, "stop"),
        *(each.started_unix_ns, each.seconds),
    )


def _judged(
    plan: Plan, rows: Rows, by_id: Mapping[str, Question], answers: Iterable[tuple[Answer, Answer]], meter: Meter
) -> JudgementSet:
    both = [answer for pair in answers for answer in pair]
    if not both:
        return JudgementSet({}, {})
    experiment = tracking.prepare(plan.tracking_uri)
    params = {"policy": plan.policy.version, "judge": plan.scorers.judge, "target": plan.target}
    models = [AS_ANSWERED, plan.strong_model]
    state = rows.folder / f"run-{plan.policy.version}.json"
    runs = tracking.open_runs(experiment, f"sentinel {plan.policy.version}", models, params, state)
    for model in models:
        tracking.log_answers(runs, model, [a for a in both if a.model == model], by_id, plan.prices)
    pairs = [(by_id[answer.question_id], answer) for answer in both]
    with JudgeRelay(plan.judge, meter, rows.calls) as relay, interruptible(relay.stop):
        try:
            return judgements.judge(pairs, plan.scorers, rows.judgements, relay, runs)
        except BudgetError:  # a reply longer than was reserved for; what is judged counts, the rest is tried again
            return judgements.stored_judgements(pairs, plan.scorers, rows.judgements)


def concluded(plan: Plan, rows: Rows, before: Sentinel | None) -> Sentinel:
    """What all that was compared under the policy says."""
    version, rules = plan.policy.version, plan.policy.rules
    floor, least = max(plan.target - plan.margin, 0.0), needed(len(plan.policy.predictor.types))
    rule = rules.rule_for(plan.target)
    known = before.types if before is not None and before.policy == version and before.target == plan.target else {}
    types: dict[str, TypeStatus] = {}
    for name, observed in sorted(rows.observed(version, plan.target).items()):
        its, drifted = until_drifted(observed, floor, least)
        found = kept_quality(its, floor, least)
        saw = rule.kept_by_type.get(name) if rule is not None else None
        trusted = max(plan.target, saw.estimate) if saw is not None else plan.target
        better = not drifted and found.band.low > trusted
        pairs = sum(each.by_cheap for each in its)
        seen = Checkpoint(pairs, *found.band, max(found.against_floor / least, 0.0))
        types[name] = TypeStatus(
            state="drifted" if drifted else "better" if better else "ok",
            requests=len(its),
            pairs=pairs,
            kept=(found.band.low, found.band.estimate, found.band.high),
            floor=floor,
            trusted=min(trusted, 2.0),
            evidence=seen.evidence,
            since_request=found.start,
            history=_history(known[name].history if name in known else [], seen),
        )
    return Sentinel(
        policy=version,
        target=plan.target,
        made_unix=time.time(),
        spent_usd=rows.spent_usd(today()),
        usd_a_day=plan.usd_a_day,
        types=types,
        signals=signals.signals(rows.seen(version), rules),
    )


def _history(before: Sequence[Checkpoint], seen: Checkpoint) -> list[Checkpoint]:
    """The looks before and this one, thinned out where they are many; of one number of pairs the last look counts."""
    looks = [each for each in before if each.pairs < seen.pairs]
    if len(looks) >= HISTORY:
        looks = looks[::2]
    return [*looks, seen]


def write(sentinel_file: Path, content: bytes) -> None:
    """Replace the file at once."""
    sentinel_file.parent.mkdir(parents=True, exist_ok=True)
    partial = sentinel_file.with_name(f".{sentinel_file.name}.partial")
    partial.write_bytes(content)
    partial.replace(sentinel_file)
