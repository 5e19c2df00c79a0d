"""What a calibration compares, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibration.answers.answers import Endpoint
from calibration.judging.judgements import Scorers
from calibration.learning.certificate import TARGETS, TYPE_MARGIN
from calibration.learning.intervals import CONFIDENCE
from calibration.outcomes import Outcome
from calibration.questions.questions import Question
from router.policy.document import Policy
from router.policy.prices import PriceBook
from router.policy.rules import Promise


@dataclass(frozen=True, slots=True)
class Plan:
    """The models, questions, scorers and settings of one calibration."""

    questions: Sequence[Question]
    endpoints: Mapping[str, Endpoint]  # by model, cheap to strong
    judge: Endpoint
    scorers: Scorers
    prices: PriceBook
    folder: Path
    tracking_uri: str
    seed: int = 0
    concurrency: int = 16
    batch: bool = False
    type_policy: Policy | None = None  # classifies questions without a type; None: they are clustered
    confidence: float = CONFIDENCE
    promise: Promise = Promise.CERTIFIED
    type_margin: float = TYPE_MARGIN
    targets: Sequence[float] = TARGETS
    round_confidence: float | None = None  # of the test of one round, where rounds share the error of the calibration
    about: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1  # processes that judge and learn
    ray: str | None = None  # the address of a Ray cluster that learns
    traffic: Sequence[Outcome] = ()  # outcomes that the sentinel recorded; learnt from in addition to the questions

    @property
    def models(self) -> Sequence[str]:
        """The names of the models, cheap to strong."""
        return list(self.endpoints)

    @property
    def judge_model(self) -> str:
        """The name of the judge's model."""
        return self.scorers.judge.split(":/")[-1]

    @property
    def test_confidence(self) -> float:
        """The confidence at which each target is tested."""
        return self.confidence if self.round_confidence is None else self.round_confidence
