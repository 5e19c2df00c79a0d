"""What a file of questions holds and what it costs to run, as tables in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from calibration import spending
from calibration.questions.questions import Question
from calibration.spending import ExpectedCost, JudgedText
from router.policy.prices import PriceBook

JUDGED_ANSWER_TOKENS = 300  # an answer in prose: recorded ones of this kind have 140 to 690, most of them longer tasks
CHECKED_ANSWER_TOKENS = 160  # an answer that is checked: recorded ones have 12 (facts) to 640 (competition mathematics)
VERDICTS = 2  # Correctness and Completeness
LANGUAGES_SHOWN = 20


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' if place == 0 else '---:' for place in range(len(head)))}|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def by_type(asked: Sequence[Question], levels: dict[str, str]) -> Iterator[str]:
    """One line a type: how many, how hard, how they are checked, in which languages."""
    rows: list[list[object]] = []
    for name in dict.fromkeys(question.question_type for question in asked):
        these = [question for question in asked if question.question_type == name]
        hard = Counter(levels[question.id] for question in these)
        checks = Counter(question.check.name if question.check else "facts" for question in these)
        languages = Counter(question.language for question in these)
        rows.append(
            [
                name,
                len(these),
                *(hard[level] for level in ("easy", "medium", "hard")),
                ", ".join(f"{kind} {n}" for kind, n in checks.most_common()),
                " ".join(code for code, _ in languages.most_common()),
            ]
        )
    rows.append(["all", len(asked), *(Counter(levels.values())[k] for k in ("easy", "medium", "hard")), "", ""])
    return _table(("type", "questions", "easy", "medium", "hard", "checked by", "languages"), rows)


def by_language(asked: Sequence[Question]) -> Iterator[str]:
    """How many in each language."""
    counted = Counter(question.language for question in asked).most_common(LANGUAGES_SHOWN)
    return _table(("language", "questions"), counted)


def expected(asked: Sequence[Question], models: Sequence[str], judge: str, prices: PriceBook) -> list[ExpectedCost]:
    """What one run is expected to cost, by the same sum that a calibration shows before it starts."""
    judged = [question for question in asked if question.check is None]
    tokens = len(judged) * JUDGED_ANSWER_TOKENS + (len(asked) - len(judged)) * CHECKED_ANSWER_TOKENS
    sent = [(question.messages, question.tools) for question in asked]
    answers = [spending.estimate_answers(model, sent, 0, prices, tokens / len(asked)) for model in models]
    texts = [JudgedText(len(q.text) + sum(map(len, q.expected_facts)), VERDICTS * len(models)) for q in judged]
    return [*answers, spending.estimate_judgements(judge, texts, 0, prices, JUDGED_ANSWER_TOKENS)]


def costs(of_run: Sequence[ExpectedCost]) -> Iterator[str]:
    """Calls, tokens and dollars by model."""
    rows: list[list[object]] = [
        [
            each.purpose,
            each.model,
            each.calls,
            each.usage.input_tokens,
            each.usage.output_tokens,
            f"{each.cost_usd:.2f}",
        ]
        for each in of_run
    ]
    calls, dollars = sum(each.calls for each in of_run), sum(each.cost_usd for each in of_run)
    read, written = (sum(getattr(e.usage, f"{way}_tokens") for e in of_run) for way in ("input", "output"))
    rows.append(["all", "", calls, read, written, f"{dollars:.2f}"])
    return _table(("for", "model", "calls", "input tokens", "output tokens", "US dollars"), rows)
