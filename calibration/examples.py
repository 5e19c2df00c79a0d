"""Questions as the learner takes them, and the numbers that they become: word TF-IDF and hand features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from calibration.outcomes import Outcome
from router.policy.features import Features, read_question
from router.policy.inputs import numbers, terms, turn_text
from router.policy.prediction import NUMBER_LIMIT, Floats

MIN_TERM_QUESTIONS = 3  # a term that fewer questions use is not learnt
MIN_TYPE_QUESTIONS = 15  # a type with fewer is joined with its family, the part of the name before the slash
NUMBER_WEIGHT = 0.2  # of a standardised hand feature against a unit-length TF-IDF vector


@dataclass(frozen=True, slots=True)
class Examples:
    """Questions as the learner takes them: n questions, M models from cheap to strong."""

    features: Sequence[Features]
    types: Sequence[str]
    scores: Floats  # (n, M)
    lengths: Floats  # (n, M) output tokens; NaN where unknown
    groups: np.ndarray  # (n,) near-duplicates share a number

    def part(self, rows: np.ndarray) -> Examples:
        """The examples of these rows."""
        return Examples(
            [self.features[i] for i in rows],
            [self.types[i] for i in rows],
            self.scores[rows],
            self.lengths[rows],
            self.groups[rows],
        )


def read_features(outcomes: Sequence[Outcome]) -> list[Features]:
    """What the proxy would see of each question."""
    return [read_question(outcome.messages, outcome.tools) for outcome in outcomes]


def types_of(outcomes: Sequence[Outcome], known: Collection[str] = ()) -> list[str]:
    """The type of each question; rare types that are not `known` otherwise are joined with their family."""
    named = [outcome.question_type or "unknown" for outcome in outcomes]
    counts = Counter(named)
    return [name if counts[name] >= MIN_TYPE_QUESTIONS or name in known else name.split("/")[0] for name in named]


@dataclass(frozen=True, slots=True)
class TypeExamples:
    """Questions whose type is known and whose answers are not: they teach to tell types apart."""

    features: Sequence[Features] = ()
    types: Sequence[str] = ()
    quality: Mapping[str, Sequence[float]] = field(
        default_factory=dict
    )  # by type, of each model, where it was published


def last_turn(features: Features) -> str:
    return features.turns[-1] if features.turns else ""


def _texts(rows: Sequence[Features]) -> list[str]:
    return [turn_text(features, last_turn(features)) for features in rows]


def _numbers(rows: Sequence[Features]) -> Floats:
    return np.array([numbers(f, last_turn(f)) for f in rows])


def _limited(scaled: Floats) -> Floats:
    return np.clip(scaled, -NUMBER_LIMIT, NUMBER_LIMIT)


def word_pipeline() -> Pipeline:
    tfidf = TfidfVectorizer(analyzer=terms, min_df=MIN_TERM_QUESTIONS, sublinear_tf=True)
    return Pipeline([("text", FunctionTransformer(_texts)), ("tfidf", tfidf)])


def input_union() -> FeatureUnion:
    return FeatureUnion(
        [
            (
                "words",
                word_pipeline(),
            ),
            (
                "numbers",
                Pipeline(
                    [
                        ("count", FunctionTransformer(_numbers)),
                        ("scale", StandardScaler()),
                        ("limit", FunctionTransformer(_limited)),
                    ]
                ),
            ),
        ],
        transformer_weights={"numbers": NUMBER_WEIGHT},
    )
