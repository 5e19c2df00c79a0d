"""Verdicts as assessments in MLflow: each once on the trace of its answer, however often a calibration is run.

MLflow's evaluation writes an assessment whenever a scorer is called: once more in each further round, after an
interruption, and where another calibration judges an answer again. It writes none for an exact check, and none for a
verdict that is kept in the ledger. So after the evaluation each trace is compared with the judgements. What is missing
is written, and what is there twice or no longer true is deleted. What people say of an answer is never touched.
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
from calibration.judging.judgements import CORRECTNESS, DEFAULT_SCORERS, Judged, Scorers, as_score
from calibration.questions.questions import Question
from calibration.spending import StoppedError

LONGEST_REFERENCE = 500  # characters of it in a rationale


@dataclass(frozen=True, slots=True)
class Assessment:
    """A verdict on one answer as its trace should hold it."""

    trace_id: str
    name: str
    source_type: str  # CODE or LLM_JUDGE
    source_id: str  # the check, the judge, or the scorer of the user's own
    score: float | None  # None where the scorer gave no verdict
    rationale: str = ""
    own: bool = False  # by a scorer of the user's own, which names its source as it likes

    def is_about(self, there: Any) -> bool:
        """Whether an assessment of MLflow is by this scorer; another judge's and a person's are not."""
        if there.name != self.name or getattr(there, "feedback", None) is None or there.source.source_type == "HUMAN":
            return False
        return self.own or there.source.source_type == "CODE" or there.source.source_id == self.source_id

    def equals(self, there: Any) -> bool:
        """Whether an assessment of MLflow says the same; where there is no verdict, anything does."""
        if self.score is None:
            return True
        return as_score(there.feedback.value) == self.score and (there.rationale or "") == self.rationale


def log(pairs: Sequence[tuple[Question, Answer]], judged: Judged, scorers: Scorers) -> None:
    """Write the verdicts on the traces of the answers, each once.

    Raises:
        StoppedError: the store did not take them.
    """
    from mlflow.exceptions import MlflowException

    there = tracking.assessments_of([answer for _, answer in pairs])
    missing: list[Callable[[], object]] = []
    surplus: list[Callable[[], object]] = []
    for question, answer in pairs:
        for wanted in _wanted(question, answer, judged, scorers):
            found = [each for each in there[wanted.trace_id] if wanted.is_about(each)]
            # a verdict that a person has overridden stays, so that the override still has what it is about
            found.sort(key=lambda each: (each.valid is False, each.create_time_ms))
            kept = next((each for each in reversed(found) if wanted.equals(each)), None)
            if kept is None and wanted.score is not None:
                missing.append(partial(_write, wanted))
            surplus += [partial(_delete, wanted.trace_id, each.assessment_id) for each in found if each is not kept]
    try:
        with ThreadPoolExecutor(tracking.WORKERS) as pool:
            for changes in (missing, surplus):  # in this order: an interruption leaves a verdict twice, and not none
                list(pool.map(lambda change: change(), changes))
    except MlflowException as error:
        raise StoppedError(f"MLflow's store did not take the verdicts ({error}); run the same command again") from error


def _wanted(question: Question, answer: Answer, judged: Judged, scorers: Scorers) -> Iterator[Assessment]:
    """The verdicts of every scorer that the question needs."""
    trace = tracking.trace_id(answer)
    judgement = judged.judgements.get((question.id, answer.model))
    scores, rationales = (judgement.scores, judgement.rationales) if judgement else ({}, {})
    if question.check is not None:
        passes = float(question.check.passes(answer.text))
        yield Assessment(trace, CORRECTNESS, "CODE", question.check.name, passes, _rationale(question.check))
    else:
        for name in scorers.names:
            yield Assessment(trace, name, "LLM_JUDGE", scorers.judge, scores.get(name), rationales.get(name, ""))
    for own in scorers.own:
        name = own.name
        yield Assessment(trace, name, "CODE", name, scores.get(name), rationales.get(name, ""), own=True)


def _rationale(check: Check) -> str:
    reference = json.dumps(check.reference, ensure_ascii=False)
    cut = reference if len(reference) <= LONGEST_REFERENCE else reference[:LONGEST_REFERENCE] + " ..."
    within = f" within {check.tolerance:g}" if check.tolerance else ""
    return f"check {check.name} against the reference {cut}{within}"


def _write(wanted: Assessment) -> None:
    import mlflow
    from mlflow.entities import AssessmentSource

    # MLflow's judges say "yes" and "no", and its pages compare only what is of one kind
    value = ("yes" if wanted.score else "no") if wanted.name in DEFAULT_SCORERS else wanted.score
    mlflow.log_feedback(
        trace_id=wanted.trace_id,
        name=wanted.name,
        value=value,
        source=AssessmentSource(wanted.source_type, wanted.source_id),
        rationale=wanted.rationale or None,
        span_id=tracking.root_span_id(wanted.trace_id),
    )


def _delete(trace_id: str, assessment_id: str) -> None:
    import mlflow

    mlflow.delete_assessment(trace_id, assessment_id)
