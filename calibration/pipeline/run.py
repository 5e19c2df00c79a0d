"""A calibration from questions to a challenger: every stage writes rows, so that a rerun costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calibration import workers
from calibration.answers import batch, tracking
from calibration.answers.answers import Asked, Asking, Endpoint, kept
from calibration.comparison import tradeoffs
from calibration.comparison.tradeoffs import HeldOut, Pair, Row
from calibration.comparison.verdict import Verdict, verdict
from calibration.interruption import interruptible
from calibration.judging import assessments, judgements
from calibration.judging.judgements import Scorers
from calibration.judging.relay import JudgeRelay
from calibration.learning.certificate import CONFIDENCE, TARGETS, TYPE_MARGIN
from calibration.learning.escalation import with_answers
from calibration.learning.learning import DEFAULT_TARGET, LearningError, Learnt, learn
from calibration.learning.prior import prior
from calibration.ledger import Ledger
from calibration.outcomes import Outcome, write_outcomes
from calibration.pipeline import rounds
from calibration.pipeline.results import complete, outcome_of
from calibration.policies import models_named, read_policy, write_policy
from calibration.questions import naming
from calibration.questions.questions import Question
from calibration.spending import (
    BATCH_DISCOUNT,
    Expected,
    JudgedText,
    Meter,
    StoppedError,
    expect_answers,
    expect_judgements,
)
from router.policy.decision import Promise
from router.policy.document import Policy
from router.policy.naming import without_effort
from router.policy.prices import PriceBook
from router.policy.usage import Usage


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be calibrated, and how."""

    questions: Sequence[Question]
    endpoints: Mapping[str, Endpoint]  # by model, cheap to strong
    judge: Endpoint
    scorers: Scorers
    prices: PriceBook
    folder: Path
    tracking_uri: str
    seed: int = 0
    concurrency: int = 16
    batch: bool = False
    known_types: Policy | None = None
    confidence: float = CONFIDENCE
    promise: Promise = Promise.CERTIFIED
    type_margin: float = TYPE_MARGIN
    targets: Sequence[float] = TARGETS
    tested_at: float | None = None  # confidence of one look, where several share the error of the whole
    about: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1  # processes that learn
    ray: str | None = None  # the address of a cluster that learns
    traffic: Sequence[Outcome] = ()  # what the sentinel compared, learnt from beside the questions

    @property
    def models(self) -> Sequence[str]:
        return list(self.endpoints)

    @property
    def judge_model(self) -> str:
        return self.scorers.judge.split(":/")[-1]


@dataclass(frozen=True, slots=True)
class Progress:
    """What is told while a calibration runs."""

    stage: Callable[[str, int, int], None]  # its name, how much is done, of how much
    step: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration found."""

    questions: Sequence[Question]
    models: Sequence[str]
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    policy: Policy | None
    held: HeldOut | None
    verdict: Verdict
    outcomes: Sequence[Outcome]
    unanswered: Mapping[tuple[str, str], str]
    unjudged: Mapping[tuple[str, str], str]
    meter: Meter  # of this run; what an interrupted one paid for is in the ledgers
    judge_kept: tuple[int, float]  # verdicts in the folder, and the dollars they cost when they were asked for
    runs: tracking.Runs
    traced: Mapping[str, int]  # traces in the store, by model
    about: Mapping[str, Any]
    learnt: Learnt | None  # the policy with its replay; None of too few questions

    @property
    def n(self) -> int:
        """Questions that every model answered and that were judged."""
        return len(self.outcomes)


class Ledgers:
    """The files that hold what was paid for; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._open = ExitStack()
        self.answers, self.calls, self.judgements = (
            self._open.enter_context(Ledger(folder / f"{name}.jsonl")) for name in ("answers", "judge", "judgements")
        )

    def __enter__(self) -> Ledgers:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def expected(plan: Plan, ledgers: Ledgers) -> list[Expected]:
    """The calls that are still to be made, and what they are expected to cost."""
    there = kept(plan.questions, plan.endpoints, ledgers.answers)
    found = []
    written: list[float] = []
    for model in plan.models:
        lengths = [a.usage.output_tokens for (_, m), a in there.answers.items() if m == model]
        written += lengths
        todo = [(q.messages, q.tools) for q in plan.questions if (q.id, model) not in there.answers]
        mean = sum(lengths) / len(lengths) if lengths else None
        discount = BATCH_DISCOUNT if plan.batch else 1.0
        found.append(expect_answers(model, todo, len(lengths), plan.prices, mean, discount))
    by_id = {question.id: question for question in plan.questions}
    judged = judgements.kept([(by_id[q], a) for (q, _), a in there.answers.items()], plan.scorers, ledgers.judgements)
    texts = [
        JudgedText(len(q.text) + sum(map(len, q.expected_facts)), plan.scorers.verdicts(q))
        for q in plan.questions
        for model in plan.models
        if (q.id, model) not in judged.judgements
    ]
    cached = sum(plan.scorers.verdicts(by_id[question]) for question, _ in judged.judgements)
    mean = sum(written) / len(written) if written else None
    found.append(expect_judgements(plan.judge_model, texts, cached, plan.prices, mean))
    return found


def run(plan: Plan, ledgers: Ledgers, meter: Meter, progress: Progress) -> Calibration:
    """Ask, judge, count, compare, learn.

    Raises:
        StoppedError: by budget, outage, refusal or interruption; what there is is kept.
    """
    with opened(plan) as runs:
        return stages(plan, ledgers, meter, progress, runs)


@contextmanager
def opened(plan: Plan) -> Iterator[tracking.Runs]:
    """The runs in MLflow that a calibration writes to; after an error the same command goes on with them."""
    experiment = tracking.prepare(plan.tracking_uri)
    name = f"calibration {datetime.now(UTC):%Y-%m-%d %H:%M}"
    params = {"models": ",".join(plan.models), "judge": plan.scorers.judge, "questions": len(plan.questions)}
    runs = tracking.open_runs(experiment, name, plan.models, params, plan.folder / "run.json")
    try:
        yield runs
    except BaseException:
        tracking.close_runs(runs, "KILLED")
        raise


@dataclass(frozen=True, slots=True)
class Gathered:
    """Questions with their types, answers and judgements, and what MLflow's store holds of them."""

    questions: Sequence[Question]
    asked: Asked
    judged: judgements.Judged
    traced: Mapping[str, int]


def stages(plan: Plan, ledgers: Ledgers, meter: Meter, progress: Progress, runs: tracking.Runs) -> Calibration:
    """Every stage of a calibration on the questions of the plan; what is there already is not asked again."""
    return concluded(plan, gathered(plan, ledgers, meter, progress, runs), ledgers, meter, progress, runs)


def gathered(plan: Plan, ledgers: Ledgers, meter: Meter, progress: Progress, runs: tracking.Runs) -> Gathered:
    """Ask, trace and judge."""
    asked = _asked(plan, ledgers, meter, progress)
    questions = naming.name_types(plan.questions, plan.known_types, plan.seed)
    by_id = {question.id: question for question in questions}
    traced = _traced(plan, asked, by_id, runs, progress)
    pairs = [(by_id[question], answer) for (question, _), answer in asked.answers.items()]
    there = judgements.kept(pairs, plan.scorers, ledgers.judgements).judgements
    progress.stage("judging", len(there), len(pairs))
    with JudgeRelay(plan.judge, meter, ledgers.calls) as relay, interruptible(relay.stop):
        judged = judgements.judge(pairs, plan.scorers, ledgers.judgements, relay, runs, progress.step)
    progress.stage("assessing", 0, 1)
    assessments.log(pairs, judged, plan.scorers)
    progress.step()
    return Gathered(questions, asked, judged, traced)


def concluded(
    plan: Plan, found: Gathered, ledgers: Ledgers, meter: Meter, progress: Progress, runs: tracking.Runs
) -> Calibration:
    """Compare the models of the plan, and learn a policy for them."""
    questions, asked, judged, traced = found.questions, found.asked, found.judged, found.traced
    rows = complete(questions, plan.models, asked, judged.judgements)
    if not rows:
        raise StoppedError("no question has an answer and a verdict of every model; see the failures above")
    outcomes = [*(outcome_of(question, answers, found) for question, answers, found in rows), *plan.traffic]
    write_outcomes(outcomes, plan.folder / "outcomes.jsonl.gz")
    progress.stage("learning", 0, 1)
    about = {**plan.about, "made_at": datetime.now(UTC).isoformat(timespec="seconds"), "judge": plan.scorers.judge}
    learnt = _learnt(plan, outcomes, about)
    policy, held = (learnt.policy, tradeoffs.held_out(learnt, plan.seed)) if learnt else (None, None)
    table = tradeoffs.rows(rows, plan.models)
    compared = tradeoffs.pairs(rows, plan.models, policy.default_target if policy else DEFAULT_TARGET)
    judged_for = judge_kept(plan, ledgers.calls)
    return Calibration(
        questions=questions,
        models=plan.models,
        rows=table,
        pairs=compared,
        policy=policy,
        held=held,
        verdict=verdict(policy, held, table, compared, _question_usd(plan, table, judged_for)),
        outcomes=outcomes,
        unanswered=_of(plan, asked.failures),
        unjudged=_of(plan, judged.failures),
        meter=meter,
        judge_kept=judged_for,
        runs=runs,
        traced=traced,
        about=about,
        learnt=learnt,
    )


def _of(plan: Plan, failures: Mapping[tuple[str, str], str]) -> Mapping[tuple[str, str], str]:
    return {key: why for key, why in failures.items() if key[1] in plan.endpoints}


def _asked(plan: Plan, ledgers: Ledgers, meter: Meter, progress: Progress) -> Asked:
    there = kept(plan.questions, plan.endpoints, ledgers.answers)
    total = len(plan.questions) * len(plan.models)
    progress.stage("asking", len(there.answers), total)
    if len(there.answers) == total:
        return there
    if plan.batch:
        return batch.ask(plan.questions, plan.endpoints, meter, ledgers.answers, plan.folder, progress.step)
    asking = Asking(plan.endpoints, meter, ledgers.answers, plan.concurrency, progress.step)
    return asyncio.run(_ask(asking, plan.questions))


async def _ask(asking: Asking, questions: Sequence[Question]) -> Asked:
    loop = asyncio.get_running_loop()
    with interruptible(lambda reason: loop.call_soon_threadsafe(asking.stop, reason)):
        return await asking.ask(questions)


def _traced(
    plan: Plan, asked: Asked, by_id: Mapping[str, Question], runs: tracking.Runs, progress: Progress
) -> dict[str, int]:
    progress.stage("tracing", 0, len(plan.models))
    traced = {}
    for model in plan.models:
        answers = [answer for (_, m), answer in asked.answers.items() if m == model]
        tracking.log_answers(runs, model, answers, by_id, plan.prices)
        count, usage = tracking.usage_in_store(runs, model, answers)
        counted = sum(a.usage.input_tokens for a in answers), sum(a.usage.output_tokens for a in answers)
        if count != len(answers) or (usage.input_tokens, usage.output_tokens) != counted:
            raise StoppedError(f"MLflow's store tells {count} traces of {model}, and {len(answers)} were written")
        traced[model] = count
        progress.step()
    return traced


def judge_kept(plan: Plan, calls: Ledger) -> tuple[int, float]:
    """How many of the judge's replies are kept, and what they cost."""
    own = without_effort(plan.judge_model)
    replies = [reply for key in calls if (reply := calls.get(key)) is not None]
    named = [(str(reply.get("model") or own), Usage.from_openai(reply.get("usage") or {})) for reply in replies]
    usages = [usage for model, usage in named if plan.prices.aliases.get(model, model) == own]  # not another judge's
    return len(usages), sum(plan.prices.cost_usd(plan.judge_model, usage) or 0.0 for usage in usages)


def _question_usd(plan: Plan, rows: Sequence[Row], judge_kept: tuple[int, float]) -> float:
    """What one more question costs by what these cost: an answer of every model, and the judge's verdicts on each.

    Answers of the same words are judged once, and more questions may have none: each verdict is counted.
    """
    answers = [row for row in rows if row.question_type == tradeoffs.ALL]
    verdicts = sum(plan.scorers.verdicts(question) for question in plan.questions) / len(plan.questions)
    replies, judge_usd = judge_kept
    judging = len(plan.models) * verdicts * judge_usd / replies if replies else 0.0
    return sum(row.cost_usd for row in answers) / answers[0].n + judging


def _learnt(plan: Plan, outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> Learnt | None:
    try:
        with workers.opened(plan.jobs, plan.ray) as hands:
            learnt = learn(
                outcomes,
                models_named(plan.models, plan.prices),
                plan.seed,
                about,
                prior(about, plan.models),
                targets=plan.targets,
                confidence=plan.tested_at or plan.confidence,
                promise=plan.promise,
                type_margin=plan.type_margin,
                workers=hands,
                folder=plan.folder / "learning",
            )
        learnt = with_answers(learnt, plan.seed, plan.tested_at or plan.confidence, plan.promise, plan.type_margin)
    except LearningError:
        return None
    policy = learnt.policy if plan.tested_at is None else rounds.promised(learnt.policy, plan.confidence)
    write_policy(policy, plan.folder / "policy")
    # with the version that its content gives it
    return replace(learnt, policy=read_policy(plan.folder / "policy"))
