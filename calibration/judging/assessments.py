"""Verdicts as MLflow assessments: one for each verdict on the trace of its answer, after any number of runs.

MLflow's evaluation writes an assessment at every call of a scorer: again in each further round, after an interruption,
and when another calibration judges the same answer. It writes none for exact checks and for verdicts from the ledger.
So after the evaluation, each trace is compared with the judgements: missing assessments are written, and duplicate or
outdated ones are deleted. Assessments by people are never changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from calibration.answers import tracking
from calibration.answers.answers import Answer
from calibration.checks.checks import Check
from calibration.judging.judgements import CORRECTNESS, DEFAULT_SCORERS, JudgementSet, Scorers, as_score
from calibration.questions.questions import Question
from calibration.spending import StoppedError

MAX_REFERENCE_CHARACTERS = 500  # of a reference in a rationale


@dataclass(frozen=True, slots=True)
class Assessment:
    """A verdict on one answer, as an assessment of its trace."""

    trace_id: str
    name: str
    source_type: str  # CODE or LLM_JUDGE
    source_id: str  # the name of the check, the judge or the custom scorer
    score: float | None  # None if the scorer returned no verdict
    rationale: str = ""
    is_custom: bool = False  # by a custom scorer, which chooses the name of its source

    def has_source_of(self, assessment: Any) -> bool:
        """Whether an MLflow assessment is by the same scorer, and not by another judge or a person."""
        if (
            assessment.name != self.name
            or getattr(assessment, "feedback", None) is None
            or assessment.source.source_type == "HUMAN"
        ):
            return False
        return (
            self.is_custom or assessment.source.source_type == "CODE" or assessment.source.source_id == self.source_id
        )

    def has_verdict_of(self, assessment: Any) -> bool:
        """Whether an MLflow assessment has the same verdict; always true without a verdict."""
        if self.score is None:
            return True
        return as_score(assessment.feedback.value) == self.score and (assessment.rationale or "") == self.rationale


def write_assessments(pairs: Sequence[tuple[Question, Answer]], judged: JudgementSet, scorers: Scorers) -> None:
    """Make the assessments of the answers' traces equal to the verdicts.

    Raises:
        StoppedError: MLflow's store refused a change.
    """
    from mlflow.exceptions import MlflowException

    stored = tracking.assessments_of([answer for _, answer in pairs])
    missing: list[Callable[[], object]] = []
    surplus: list[Callable[[], object]] = []
    for question, answer in pairs:
        for expected in _expected_assessments(question, answer, judged, scorers):
            same_source = [a for a in stored[expected.trace_id] if expected.has_source_of(a)]
            # keep an assessment that a person has overridden, since the override refers to it
            same_source.sort(key=lambda a: (a.valid is False, a.create_time_ms))
            kept = next((a for a in reversed(same_source) if expected.has_verdict_of(a)), None)
            if kept is None and expected.score is not None:
                missing.append(partial(_write, expected))
            surplus += [partial(_delete, expected.trace_id, a.assessment_id) for a in same_source if a is not kept]
    try:
        with ThreadPoolExecutor(tracking.WORKERS) as pool:
            for changes in (missing, surplus):  # in this order, so that an interruption leaves duplicates and no gaps
                list(pool.map(lambda change: change(), changes))
    except MlflowException as error:
        raise StoppedError(f"MLflow's store refused the verdicts ({error}); run the same command again") from error


def _expected_assessments(
    question: Question, answer: Answer, judged: JudgementSet, scorers: Scorers
) -> Iterator[Assessment]:
    """The verdicts of every scorer of the question."""
    trace = tracking.trace_id(answer)
    judgement = judged.judgements.get((question.id, answer.model))
    scores, rationales = (judgement.scores, judgement.rationales) if judgement else ({}, {})
    if question.check is not None:
        passes = float(question.check.passes(answer.text))
        yield Assessment(trace, CORRECTNESS, "CODE", question.check.name, passes, _rationale(question.check))
    else:
        for name in scorers.names:
            yield Assessment(trace, name, "LLM_JUDGE", scorers.judge, scores.get(name), rationales.get(name, ""))
    for own in scorers.custom:
        name = own.name
        yield Assessment(trace, name, "CODE", name, scores.get(name), rationales.get(name, ""), is_custom=True)


def _rationale(check: Check) -> str:
    reference = json.dumps(check.reference, ensure_ascii=False)
    cut = reference if len(reference) <= MAX_REFERENCE_CHARACTERS else reference[:MAX_REFERENCE_CHARACTERS] + " ..."
    within = f" within {check.tolerance:g}" if check.tolerance else ""
    return f"check {check.name} against the reference {cut}{within}"


def _write(assessment: Assessment) -> None:
    import mlflow
    from mlflow.entities import AssessmentSource

    # MLflow's judges return "yes" and "no", and its pages compare values of one kind only
    value = ("yes" if assessment.score else "no") if assessment.name in DEFAULT_SCORERS else assessment.score
    mlflow.log_feedback(
        trace_id=assessment.trace_id,
        name=assessment.name,
        value=value,
        source=AssessmentSource(assessment.source_type, assessment.source_id),
        rationale=assessment.rationale or None,
        span_id=tracking.root_span_id(assessment.trace_id),
    )


def _delete(trace_id: str, assessment_id: str) -> None:
    import mlflow

    mlflow.delete_assessment(trace_id, assessment_id)
