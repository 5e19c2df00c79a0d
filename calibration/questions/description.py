"""Markdown tables that describe a question file and its expected cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from calibration import spending
from calibration.questions.questions import Question
from calibration.spending import ExpectedCost, JudgedText
from router.policy.prices import PriceBook

JUDGED_ANSWER_TOKENS = 300  # recorded prose answers have 140 to 690
CHECKED_ANSWER_TOKENS = 160  # recorded checked answers have 12 (facts) to 640 (competition mathematics)
VERDICTS = 2  # Correctness and Completeness
MAX_LANGUAGES = 20


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' if column == 0 else '---:' for column in range(len(head)))}|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def type_table(questions: Sequence[Question], difficulties: dict[str, str]) -> Iterator[str]:
    """Per type: the numbers of questions by difficulty, the checks and the languages."""
    rows: list[list[object]] = []
    for name in dict.fromkeys(question.question_type for question in questions):
        of_type = [question for question in questions if question.question_type == name]
        counts = Counter(difficulties[question.id] for question in of_type)
        checks = Counter(question.check.name if question.check else "facts" for question in of_type)
        languages = Counter(question.language for question in of_type)
        rows.append(
            [
                name,
                len(of_type),
                *(counts[level] for level in ("easy", "medium", "hard")),
                ", ".join(f"{kind} {n}" for kind, n in checks.most_common()),
                " ".join(code for code, _ in languages.most_common()),
            ]
        )
    rows.append(
        ["all", len(questions), *(Counter(difficulties.values())[k] for k in ("easy", "medium", "hard")), "", ""]
    )
    return _table(("type", "questions", "easy", "medium", "hard", "checked by", "languages"), rows)


def language_table(questions: Sequence[Question]) -> Iterator[str]:
    """The number of questions in each language."""
    counts = Counter(question.language for question in questions).most_common(MAX_LANGUAGES)
    return _table(("language", "questions"), counts)


def expected_costs(
    questions: Sequence[Question], models: Sequence[str], judge: str, prices: PriceBook
) -> list[ExpectedCost]:
    """The expected cost of one calibration, computed as a calibration does before it starts."""
    judged = [question for question in questions if question.check is None]
    tokens = len(judged) * JUDGED_ANSWER_TOKENS + (len(questions) - len(judged)) * CHECKED_ANSWER_TOKENS
    sent = [(question.messages, question.tools) for question in questions]
    answers = [spending.estimate_answers(model, sent, 0, prices, tokens / len(questions)) for model in models]
    texts = [JudgedText(len(q.text) + sum(map(len, q.expected_facts)), VERDICTS * len(models)) for q in judged]
    return [*answers, spending.estimate_judgements(judge, texts, 0, prices, JUDGED_ANSWER_TOKENS)]


def cost_table(expected: Sequence[ExpectedCost]) -> Iterator[str]:
    """Expected calls, tokens and dollars by model."""
    rows: list[list[object]] = [
        [
            cost.purpose,
            cost.model,
            cost.calls,
            cost.usage.input_tokens,
            cost.usage.output_tokens,
            f"{cost.cost_usd:.2f}",
        ]
        for cost in expected
    ]
    calls, usd = sum(cost.calls for cost in expected), sum(cost.cost_usd for cost in expected)
    input_tokens = sum(cost.usage.input_tokens for cost in expected)
    output_tokens = sum(cost.usage.output_tokens for cost in expected)
    rows.append(["all", "", calls, input_tokens, output_tokens, f"{usd:.2f}"])
    return _table(("purpose", "model", "calls", "input tokens", "output tokens", "US dollars"), rows)
