"""From answers and judgements to outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.answers.answers import Answer, AnswerSet
from calibration.judging.judgements import Judgement
from calibration.outcomes import Outcome, Result
from calibration.questions.questions import Question


def complete_questions(
    questions: Sequence[Question],
    models: Sequence[str],
    collected: AnswerSet,
    judgements: Mapping[tuple[str, str], Judgement],
) -> list[tuple[Question, Mapping[str, Answer], Mapping[str, Judgement]]]:
    """The questions with a judged answer of every model, so that all models are compared on the same questions."""
    return [
        (q, {m: collected.answers[q.id, m] for m in models}, {m: judgements[q.id, m] for m in models})
        for q in questions
        if all((q.id, m) in judgements for m in models)
    ]


def build_outcome(question: Question, answers: Mapping[str, Answer], judgements: Mapping[str, Judgement]) -> Outcome:
    """The outcome of a question: the score, answer and tokens of every model."""
    results = {
        model: Result(judgements[model].score, a.text, a.usage.input_tokens, a.usage.output_tokens, a.logprobs)
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
