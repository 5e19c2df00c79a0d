"""What a calibration is expected to cost, and what its judge has cost."""

from __future__ import annotations

from collections.abc import Sequence

from calibration.answers.answers import AnswerSet, stored_answers
from calibration.comparison.tradeoffs import ALL, ModelSummary
from calibration.judging.judgements import stored_judgements
from calibration.ledger import Ledger
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.spending import BATCH_DISCOUNT, ExpectedCost, JudgedText, estimate_answers, estimate_judgements
from router.policy.naming import without_effort
from router.policy.usage import Usage


def expected_costs(plan: Plan, ledgers: Ledgers) -> list[ExpectedCost]:
    """The expected cost of the requests that are still to be sent: one entry per model, then one for the judge."""
    stored = stored_answers(plan.questions, plan.endpoints, ledgers.answers)
    costs = [_expected_answers(plan, stored, model) for model in plan.models]
    return [*costs, _expected_judgements(plan, stored, ledgers.judgements)]


def _expected_answers(plan: Plan, stored: AnswerSet, model: str) -> ExpectedCost:
    lengths = [a.usage.output_tokens for (_, m), a in stored.answers.items() if m == model]
    missing = [(q.messages, q.tools) for q in plan.questions if (q.id, model) not in stored.answers]
    mean = sum(lengths) / len(lengths) if lengths else None
    discount = BATCH_DISCOUNT if plan.batch else 1.0
    return estimate_answers(model, missing, len(lengths), plan.prices, mean, discount)


def _expected_judgements(plan: Plan, stored: AnswerSet, ledger: Ledger) -> ExpectedCost:
    questions = {question.id: question for question in plan.questions}
    pairs = [(questions[question], answer) for (question, _), answer in stored.answers.items()]
    judged = stored_judgements(pairs, plan.scorers, ledger).judgements
    texts = [
        JudgedText(len(q.text) + sum(map(len, q.expected_facts)), plan.scorers.judge_calls(q))
        for q in plan.questions
        for model in plan.models
        if (q.id, model) not in judged
    ]
    cached = sum(plan.scorers.judge_calls(questions[question]) for question, _ in judged)
    lengths = [answer.usage.output_tokens for answer in stored.answers.values()]
    mean = sum(lengths) / len(lengths) if lengths else None
    return estimate_judgements(plan.judge_model, texts, cached, plan.prices, mean)


def judge_spending(plan: Plan, judge_replies: Ledger) -> tuple[int, float]:
    """The number of stored replies of the plan's judge, and what they cost in dollars."""
    own = without_effort(plan.judge_model)
    replies = [reply for key in judge_replies if (reply := judge_replies.get(key)) is not None]
    named = [(str(reply.get("model") or own), Usage.from_openai(reply.get("usage") or {})) for reply in replies]
    usages = [usage for model, usage in named if plan.prices.aliases.get(model, model) == own]
    return len(usages), sum(plan.prices.cost_usd(plan.judge_model, usage) or 0.0 for usage in usages)


def cost_per_question_usd(plan: Plan, summaries: Sequence[ModelSummary], spending: tuple[int, float]) -> float:
    """The mean cost of a question: an answer of every model, and the judge's verdicts on each answer.

    `spending` is the result of `judge_spending`. Equal answers are judged once, but further questions may have no
    equal answers, so each verdict counts at the mean cost of a reply.
    """
    totals = [summary for summary in summaries if summary.question_type == ALL]
    verdicts = sum(plan.scorers.judge_calls(question) for question in plan.questions) / len(plan.questions)
    replies, judge_usd = spending
    judging = len(plan.models) * verdicts * judge_usd / replies if replies else 0.0
    return sum(summary.cost_usd for summary in totals) / totals[0].n + judging
