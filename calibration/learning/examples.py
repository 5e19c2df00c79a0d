"""Training examples, and their vectors: word TF-IDF and handcrafted features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import scipy.sparse as sp

from calibration.learning.corpus import (
    Corpus,
    Ints,
    Question,
    Questions,
    encode_questions,
    min_term_questions,
    question_of,
)
from calibration.outcomes import Outcome
from calibration.workers import Arrays, Workers
from router.policy.features import Features
from router.policy.prediction import standardise
from router.policy.vocabulary import Floats, Vocabulary

NUMBER_WEIGHT = 0.2  # of a standardised handcrafted feature, relative to a unit-length TF-IDF vector
MIN_SCALE = 1e-9  # standard deviation; a feature with a smaller one is constant and gets no weight


@dataclass(frozen=True, slots=True)
class TypeExamples:
    """Typed questions without outcomes, from which the predictor learns to classify."""

    features: Questions = field(default_factory=lambda: Questions([]))
    types: Sequence[str] = ()
    quality: Mapping[str, Sequence[float]] = field(default_factory=dict)  # published; by type, of each model


@dataclass(frozen=True, slots=True)
class Examples:
    """Outcomes as arrays: n questions, M models from cheap to strong."""

    corpus: Corpus  # the n questions, followed by those of `type_examples`
    types: Sequence[str]
    scores: Floats  # (n, M)
    output_tokens: Floats  # (n, M) output tokens; NaN where unknown
    groups: Ints  # (n,) near-duplicates share a number
    type_examples: TypeExamples

    @property
    def features(self) -> Questions:
        """The features that the proxy reads from each question."""
        return self.corpus.questions[: len(self.types)]

    @property
    def questions(self) -> list[Question]:
        """The question of each example."""
        return [question_of(features) for features in self.features]

    def subset(self, rows: Ints) -> Examples:
        """The examples of these rows, with all type examples."""
        n, m = len(self.types), len(self.type_examples.types)
        return Examples(
            self.corpus.at(np.concatenate([rows, np.arange(n, n + m)])),
            [self.types[i] for i in rows],
            self.scores[rows],
            self.output_tokens[rows],
            self.groups[rows],
            self.type_examples,
        )


def read_features(outcomes: Sequence[Outcome]) -> Questions:
    """The features that the proxy reads from each question."""
    return encode_questions((outcome.messages, outcome.tools) for outcome in outcomes)


@dataclass(frozen=True, slots=True)
class Vectorizer:
    """Turns questions into vectors of V TF-IDF weights and N handcrafted features."""

    vocabulary: Vocabulary
    number_mean: Floats  # (N,)
    number_scale: Floats  # (N,) infinite where a feature is constant

    @classmethod
    def fit(cls, corpus: Corpus) -> Vectorizer:
        """Fit the vocabulary and the scales; the idf is smoothed as in scikit-learn's TfidfVectorizer."""
        n = len(corpus.questions)
        counts = np.bincount(corpus.term_matrix.indices, minlength=len(corpus.terms))
        known = np.flatnonzero(counts >= min_term_questions(n))
        idf = np.log((1 + n) / (1 + counts[known].astype(float))) + 1
        rarest = float(idf.max()) if len(idf) else 1.0
        scale = corpus.numbers.std(axis=0)
        rows = {corpus.terms[column]: row for row, column in enumerate(known.tolist())}
        return cls(
            Vocabulary(rows, np.append(idf, rarest)),
            corpus.numbers.mean(axis=0),
            np.where(scale < MIN_SCALE, np.inf, scale),
        )

    def transform(self, corpus: Corpus, workers: Workers) -> sp.csr_matrix:
        """The vectors of questions (n, V + N)."""
        parts = list(workers.map(partial(_term_weights, self.vocabulary), corpus.questions.parts()))
        ends = np.cumsum([0, *np.concatenate([part["counts"] for part in parts]).tolist()])
        shape = (len(corpus.questions), len(self.vocabulary.rows))
        weights, rows = (np.concatenate([part[name] for part in parts]) for name in ("weights", "rows"))
        scaled = standardise(corpus.numbers, self.number_mean, self.number_scale) * NUMBER_WEIGHT
        words = sp.csr_matrix((weights, rows, ends), shape=shape)
        return sp.csr_matrix(sp.hstack([words, sp.csr_matrix(scaled)]))


def _term_weights(vocabulary: Vocabulary, questions: Sequence[Features]) -> Arrays:
    """The TF-IDF weights of the known terms of each question, and the rows of the terms in the vocabulary."""
    words = [vocabulary.weigh(question_of(features).asked) for features in questions]
    return {
        "counts": np.array([len(weights.rows) for weights in words]),
        "rows": np.concatenate([weights.rows for weights in words]).astype(np.int32),
        "weights": np.concatenate([weights.weights for weights in words]),
    }
