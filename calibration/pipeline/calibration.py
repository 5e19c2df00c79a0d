"""The result of a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calibration.answers import tracking
from calibration.comparison.tradeoffs import HeldOutResults, ModelSummary, Tradeoff
from calibration.comparison.verdict import Verdict
from calibration.learning.learning import LearningResult
from calibration.outcomes import Outcome
from calibration.questions.questions import Question
from calibration.spending import Meter
from router.policy.document import Policy


@dataclass(frozen=True, slots=True)
class Calibration:
    """The comparison of the models, the policy and the verdict."""

    questions: Sequence[Question]
    models: Sequence[str]
    summaries: Sequence[ModelSummary]
    tradeoffs: Sequence[Tradeoff]
    policy: Policy | None  # None where there were too few questions
    held_out: HeldOutResults | None
    verdict: Verdict
    outcomes: Sequence[Outcome]
    unanswered: Mapping[tuple[str, str], str]  # error by question id and model
    unjudged: Mapping[tuple[str, str], str]  # error by question id and model
    meter: Meter  # of this run only; the ledgers also hold what an interrupted run paid for
    judge_spending: tuple[int, float]  # stored replies of the judge, and their cost in dollars
    runs: tracking.Runs
    trace_counts: Mapping[str, int]  # in MLflow's store, by model
    about: Mapping[str, Any]
    learnt: LearningResult | None  # None where there were too few questions

    @property
    def n(self) -> int:
        """The number of questions that every model answered and that were judged."""
        return len(self.outcomes)
