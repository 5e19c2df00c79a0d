"""Answers and judgements become outcomes: the questions that every model answered and that were judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.answers.answers import Answer, Asked
from calibration.judging.judgements import Judgement
from calibration.outcomes import Outcome, Result
from calibration.questions.questions import Question


def complete(
    questions: Sequence[Question], models: Sequence[str], asked: Asked, found: Mapping[tuple[str, str], Judgement]
) -> list[tuple[Question, Mapping[str, Answer], Mapping[str, Judgement]]]:
    """The questions that every model answered and that were judged: models are compared on the same ones."""
    return [
        (q, {m: asked.answers[q.id, m] for m in models}, {m: found[q.id, m] for m in models})
        for q in questions
        if all((q.id, m) in found for m in models)
    ]


def outcome_of(question: Question, answers: Mapping[str, Answer], found: Mapping[str, Judgement]) -> Outcome:
    """A question with every model's answer, score and tokens."""
    results = {
        model: Result(found[model].score, a.text, a.usage.input_tokens, a.usage.output_tokens)
        for model, a in answers.items()
    }
    return Outcome(
        id=question.id,
        messages=question.messages,
        results=results,
        question_type=question.question_type,
        tools=question.tools or None,
        reference=None if question.check is None else str(question.check.reference),
        expected_facts=question.expected_facts,
    )
