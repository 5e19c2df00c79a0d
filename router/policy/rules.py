"""What a policy decides by, apart from its predictor: models, evidence, and a rule for each target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from router.policy.prices import Price


class Promise(StrEnum):
    """How well a target is supported."""

    CERTIFIED = "certified"  # shown at the rule's confidence
    EXPECTED = "expected"  # the best estimate, which may fall short


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one question type: the number of outcomes, and each model's quality and answer length."""

    kind: Literal["measured", "published", "transferred", "none"]
    n: int
    quality: Mapping[str, Interval]  # by model
    quality_difference: Interval  # cheap minus strong, paired; below 0 the cheap model is worse
    output_tokens: Mapping[str, float]  # mean length of each model's answers; empty if only results are known
    source: str = ""

    @property
    def is_results_only(self) -> bool:
        """Whether only published results are known, possibly transferred from another pair of models.

        The predictor knows nothing of such a type, so its results keep a target by themselves or not at all.
        """
        return self.kind == "published" or (self.kind == "transferred" and not self.output_tokens)


NO_EVIDENCE = Evidence("none", 0, {}, Interval(-1.0, 0.0, 1.0), {})
UNCERTIFIED_KINDS = ("published", "transferred")  # kinds of evidence that a certificate never covers


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the policy may choose, and its capabilities. Policies list models from cheap to strong."""

    name: str
    price: Price
    context_tokens: int = 128_000
    images: bool = True
    audio: bool = False
    tools: bool = True
    image_tokens: tuple[int, int] = (85, 170)  # as billed: per image, and per tile of 512 x 512
    successor: str = ""  # the model that replaces this one once it is retired; "" if none


@dataclass(frozen=True, slots=True)
class Rule:
    """The threshold for one target, and how well it is supported."""

    target: float  # share of the strong model's quality to keep
    quality_per_usd: float | None  # quality that an additional dollar must buy; None: always the strong model
    certified: bool
    n: int  # outcomes that the certificate was tested on
    confidence: float
    expected_saving: Interval  # share of the strong model's cost
    more_questions_needed: int | None = None
    type_limits: Mapping[str, float] = field(default_factory=dict)  # lower thresholds by question type
    kept_by_type: Mapping[str, Interval] = field(default_factory=dict)  # share of the strong model's quality
    falls_short: float | None = None  # share of resplits in which an expected promise was not kept

    @property
    def promise(self) -> Promise:
        return Promise.CERTIFIED if self.certified else Promise.EXPECTED


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy decides by, apart from its predictor."""

    models: tuple[Model, ...]  # cheap to strong
    evidence: Mapping[str, Evidence]  # by question type
    targets: Sequence[Rule]  # ascending
    caution: float = 0.0  # added to the expected quality of the strong model, to allow for prediction errors
    doubt_weight: float = 0.0  # weight of the uncertainty about the question type, added likewise
    risk_weight: float = 0.0  # weight of the probability that only one of two models is right, added likewise
    least_saving_usd: float = 0.0  # lower limit of a positive saving, so that savings on short answers count
    published_tolerance: float = 0.0  # quality by which published results may fall short of a target
    least_type_probability: float = 0.0  # requests whose type is less probable go to the strong model
    no_evidence_limit: float = 1.0  # requests more probably of a type without evidence go to the strong model
    usual_type_probability: float = 1.0  # usual in the calibration; savings are discounted below it
    familiar_until: float = 1.0  # novelty above which savings are discounted
    novelty_limit: float = 0.95  # novelty above which requests go to the strong model
    version: str = ""
    drifted: frozenset[str] = frozenset()  # question types that drifted; found by the sentinel, not in the files

    @property
    def strong(self) -> Model:
        return self.models[-1]

    def evidence_of(self, question_type: str) -> Evidence:
        return self.evidence.get(question_type, NO_EVIDENCE)

    def rule_for(self, target: float) -> Rule | None:
        """The rule of the lowest sufficient target that has a threshold; None if only the strong model keeps it."""
        for rule in self.targets:  # a loop: a generator would cost the hot path a call per target
            if rule.target >= target - 1e-9 and rule.quality_per_usd is not None:
                return rule
        return None
