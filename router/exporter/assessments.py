"""Feedback becomes assessments in MLflow: each goes to the trace that it is about, exactly once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from router.exporter import traces
from router.exporter.tracestore import TraceStore, refusals
from router.journal.refused import RefusedError
from router.journal.writer import Entry, Feedback

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 3600
FEEDBACK_ID = "router.feedback_id"


class Assessments:
    """Takes feedback to the traces it is about."""

    def __init__(
        self,
        store: TraceStore,
        pending: Callable[[], Sequence[Feedback]],
        settle: Callable[[Sequence[str], str], None],
        park: Callable[[Feedback, str], None],
    ) -> None:
        self._store = store
        self._pending = pending
        self._settle = settle
        self._park = park

    def post(self) -> None:
        """Make assessments of what is pending. Feedback on a trace that does not come within an hour is an orphan.

        Feedback that MLflow never takes is put aside, and what comes after it goes on.
        """
        for feedback in self._pending():
            try:
                assessed = self._assessed(feedback)
            except RefusedError as refusal:
                self._park(feedback, str(refusal))
                self._settle([feedback.feedback_id], "refused")
                continue
            if assessed:
                self._settle([feedback.feedback_id], "assessed")
            elif time.time_ns() - feedback.unix_ns > ORPHAN_SECONDS * 10**9:
                log.error("feedback %s is about trace %s, which is not there", feedback.feedback_id, feedback.trace_id)
                self._settle([feedback.feedback_id], "orphan")

    def assess_again(self, entry: Entry) -> None:
        """Make an assessment of feedback that was put aside.

        Raises:
            RefusedError: MLflow refuses it once more, or its trace is not there.
        """
        if not isinstance(entry, Feedback) or not self._assessed(entry):
            raise RefusedError("no feedback on a trace that is there")
        self._settle([entry.feedback_id], "assessed")

    def _assessed(self, feedback: Feedback) -> bool:
        from mlflow.entities import AssessmentSource, AssessmentSourceType
        from mlflow.entities import Feedback as MlflowFeedback
        from mlflow.exceptions import MlflowException

        store = self._store.ready()
        with refusals():
            try:
                info = store.get_trace_info(traces.trace_id(feedback.trace_id))
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return False
                raise
            if any((there.metadata or {}).get(FEEDBACK_ID) == feedback.feedback_id for there in info.assessments):
                return True  # written before a crash
            store.create_assessment(
                MlflowFeedback(
                    name="user_feedback",
                    value=feedback.thumbs == "up" if feedback.thumbs else feedback.score,
                    source=AssessmentSource(AssessmentSourceType.HUMAN, feedback.user or "client"),
                    rationale=feedback.comment or None,
                    metadata={FEEDBACK_ID: feedback.feedback_id},
                    trace_id=info.trace_id,
                    create_time_ms=feedback.unix_ns // 10**6,
                    last_update_time_ms=feedback.unix_ns // 10**6,
                )
            )
        return True
