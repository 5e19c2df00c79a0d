"""Writes feedback to MLflow as assessments of traces, each exactly once."""

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
    """Writes feedback to the traces that it rates."""

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
        """Write the pending feedback. Feedback whose trace does not arrive within an hour is marked as an orphan.

        Feedback that MLflow rejects is set aside, so that it does not block the feedback after it.
        """
        for feedback in self._pending():
            try:
                assessed = self._write(feedback)
            except RefusedError as refusal:
                self._park(feedback, str(refusal))
                self._settle([feedback.feedback_id], "refused")
                continue
            if assessed:
                self._settle([feedback.feedback_id], "assessed")
            elif time.time_ns() - feedback.unix_ns > ORPHAN_SECONDS * 10**9:
                log.error("feedback %s rates trace %s, which does not exist", feedback.feedback_id, feedback.trace_id)
                self._settle([feedback.feedback_id], "orphan")

    def retry(self, entry: Entry) -> None:
        """Write feedback that was set aside.

        Raises:
            RefusedError: MLflow rejects it again, or its trace does not exist.
        """
        if not isinstance(entry, Feedback) or not self._write(entry):
            raise RefusedError("the entry is no feedback on an existing trace")
        self._settle([entry.feedback_id], "assessed")

    def _write(self, feedback: Feedback) -> bool:
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
