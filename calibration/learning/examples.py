"""Questions as the learner takes them, and the numbers that they become: word TF-IDF and hand features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import scipy.sparse as sp

from calibration.learning.corpus import Corpus, Ints, Question, Questions, encoded, least_uses, question_of
from calibration.outcomes import Outcome
from calibration.workers import Arrays, Workers
from router.policy.features import Features
from router.policy.prediction import standardised
from router.policy.vocabulary import Floats, Vocabulary

NUMBER_WEIGHT = 0.2  # of a standardised hand feature against a unit-length TF-IDF vector
LEAST_SCALE = 1e-9  # a hand feature that varies less never varied: it has no weight


@dataclass(frozen=True, slots=True)
class TypeExamples:
    """Questions whose type is known and whose answers are not: they teach to tell types apart."""

    features: Questions = field(default_factory=lambda: Questions([]))
    types: Sequence[str] = ()
    quality: Mapping[str, Sequence[float]] = field(
        default_factory=dict
    )  # by type, of each model, where it was published


@dataclass(frozen=True, slots=True)
class Examples:
    """Questions as the learner takes them: n questions, M models from cheap to strong."""

    corpus: Corpus  # the n questions, and then those of `more`
    types: Sequence[str]
    scores: Floats  # (n, M)
    lengths: Floats  # (n, M) output tokens; NaN where unknown
    groups: Ints  # (n,) near-duplicates share a number
    more: TypeExamples

    @property
    def features(self) -> Questions:
        """What the proxy would see of each question."""
        return self.corpus.questions[: len(self.types)]

    @property
    def questions(self) -> list[Question]:
        """What is asked in each."""
        return [question_of(features) for features in self.features]

    def part(self, rows: Ints) -> Examples:
        """The examples of these rows."""
        n, m = len(self.types), len(self.more.types)
        return Examples(
            self.corpus.at(np.concatenate([rows, np.arange(n, n + m)])),
            [self.types[i] for i in rows],
            self.scores[rows],
            self.lengths[rows],
            self.groups[rows],
            self.more,
        )


def read_features(outcomes: Sequence[Outcome]) -> Questions:
    """What the proxy would see of each question."""
    return encoded((outcome.messages, outcome.tools) for outcome in outcomes)


def types_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The type of each question."""
    return [outcome.question_type or "unknown" for outcome in outcomes]


@dataclass(frozen=True, slots=True)
class Inputs:
    """How questions become rows of numbers: V terms, N hand features."""

    vocabulary: Vocabulary
    number_mean: Floats  # (N,)
    number_scale: Floats  # (N,) infinite where a feature never varied

    @classmethod
    def fit(cls, corpus: Corpus) -> Inputs:
        """The vocabulary and the scales of questions; idf is smoothed as scikit-learn's TfidfVectorizer does."""
        n = len(corpus.questions)
        counts = np.bincount(corpus.uses.indices, minlength=len(corpus.terms))
        known = np.flatnonzero(counts >= least_uses(n))
        idf = np.log((1 + n) / (1 + counts[known].astype(float))) + 1
        rarest = float(idf.max()) if len(idf) else 1.0
        scale = corpus.counted.std(axis=0)
        rows = {corpus.terms[column]: row for row, column in enumerate(known.tolist())}
        return cls(
            Vocabulary(rows, np.append(idf, rarest)),
            corpus.counted.mean(axis=0),
            np.where(scale < LEAST_SCALE, np.inf, scale),
        )

    def matrix(self, corpus: Corpus, workers: Workers) -> sp.csr_matrix:
        """The inputs of questions (n, V + N)."""
        parts = list(workers.map(partial(_words, self.vocabulary), corpus.questions.parts()))
        ends = np.cumsum([0, *np.concatenate([part["counts"] for part in parts]).tolist()])
        shape = (len(corpus.questions), len(self.vocabulary.rows))
        weights, rows = (np.concatenate([part[name] for part in parts]) for name in ("weights", "rows"))
        scaled = standardised(corpus.counted, self.number_mean, self.number_scale) * NUMBER_WEIGHT
        words = sp.csr_matrix((weights, rows, ends), shape=shape)
        return sp.csr_matrix(sp.hstack([words, sp.csr_matrix(scaled)]))


def _words(vocabulary: Vocabulary, questions: Sequence[Features]) -> Arrays:
    """The weights of the known terms of each question, with the rows of the terms."""
    words = [vocabulary.words(question_of(features).asked) for features in questions]
    return {
        "counts": np.array([len(each.rows) for each in words]),
        "rows": np.concatenate([each.rows for each in words]).astype(np.int32),
        "weights": np.concatenate([each.weights for each in words]),
    }
