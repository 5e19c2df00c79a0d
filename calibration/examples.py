"""Questions as the learner takes them, and the numbers that they become: word TF-IDF and hand features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from calibration.outcomes import Outcome
from router.policy.asking import Asked
from router.policy.conversation import turns_of
from router.policy.features import Features, read_question
from router.policy.inputs import match_tools, numbers, terms
from router.policy.prediction import standardised
from router.policy.vocabulary import Floats, Vocabulary

MIN_TERM_QUESTIONS = 2  # a term that fewer questions use is not learnt
MIN_TERM_QUESTIONS_OF_MANY = 3  # the same from MANY questions on
MANY = 600
NUMBER_WEIGHT = 0.2  # of a standardised hand feature against a unit-length TF-IDF vector
LEAST_SCALE = 1e-9  # a hand feature that varies less never varied: it has no weight


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and its hand features."""

    asked: Asked
    counted: Sequence[float]  # in the order of `NUMBER_NAMES`


def question_of(features: Features) -> Question:
    """The question of a request, read as the proxy reads it."""
    asked = turns_of(features)[-1].asked
    return Question(asked, numbers(asked, match_tools(asked.question, features.tools)))


@dataclass(frozen=True, slots=True)
class Examples:
    """Questions as the learner takes them: n questions, M models from cheap to strong."""

    features: Sequence[Features]
    questions: Sequence[Question]
    types: Sequence[str]
    scores: Floats  # (n, M)
    lengths: Floats  # (n, M) output tokens; NaN where unknown
    groups: np.ndarray  # (n,) near-duplicates share a number

    def part(self, rows: np.ndarray) -> Examples:
        """The examples of these rows."""
        return Examples(
            [self.features[i] for i in rows],
            [self.questions[i] for i in rows],
            [self.types[i] for i in rows],
            self.scores[rows],
            self.lengths[rows],
            self.groups[rows],
        )


def read_features(outcomes: Sequence[Outcome]) -> list[Features]:
    """What the proxy would see of each question."""
    return [read_question(outcome.messages, outcome.tools) for outcome in outcomes]


def types_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The type of each question."""
    return [outcome.question_type or "unknown" for outcome in outcomes]


@dataclass(frozen=True, slots=True)
class TypeExamples:
    """Questions whose type is known and whose answers are not: they teach to tell types apart."""

    features: Sequence[Features] = ()
    types: Sequence[str] = ()
    quality: Mapping[str, Sequence[float]] = field(
        default_factory=dict
    )  # by type, of each model, where it was published


@dataclass(frozen=True, slots=True)
class Inputs:
    """How questions become rows of numbers: V terms, N hand features."""

    vocabulary: Vocabulary
    number_mean: Floats  # (N,)
    number_scale: Floats  # (N,) infinite where a feature never varied

    @classmethod
    def fit(cls, questions: Sequence[Question]) -> Inputs:
        """The vocabulary and the scales of questions; idf is smoothed as scikit-learn's TfidfVectorizer does."""
        counts = Counter(term for question in questions for term in set(terms(question.asked.question)))
        least = MIN_TERM_QUESTIONS_OF_MANY if len(questions) >= MANY else MIN_TERM_QUESTIONS
        known = sorted(term for term, count in counts.items() if count >= least)
        idf = np.log((1 + len(questions)) / (1 + np.array([counts[term] for term in known], dtype=float))) + 1
        rarest = float(idf.max()) if len(idf) else 1.0
        counted = np.array([question.counted for question in questions])
        scale = counted.std(axis=0)
        return cls(
            Vocabulary({term: row for row, term in enumerate(known)}, np.append(idf, rarest)),
            counted.mean(axis=0),
            np.where(scale < LEAST_SCALE, np.inf, scale),
        )

    def matrix(self, questions: Sequence[Question]) -> sp.csr_matrix:
        """The inputs of questions (n, V + N)."""
        words = [self.vocabulary.words(question.asked) for question in questions]
        ends = np.cumsum([0, *(len(each.rows) for each in words)])
        shape = (len(words), len(self.vocabulary.rows))
        weights = sp.csr_matrix((_joined(w.weights for w in words), _joined(w.rows for w in words), ends), shape=shape)
        counted = np.array([question.counted for question in questions])
        scaled = standardised(counted, self.number_mean, self.number_scale) * NUMBER_WEIGHT
        return sp.csr_matrix(sp.hstack([weights, sp.csr_matrix(scaled)]))


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([*parts, np.zeros(0, dtype=np.int64)])
