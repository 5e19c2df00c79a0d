"""Training examples, and their vectors: word TF-IDF and handcrafted features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

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
from router.policy.inputs import NUMBER_NAMES
from router.policy.prediction import standardise
from router.policy.vocabulary import Floats, Vocabulary, Words, add_material, weigh_counts

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
    def all_types(self) -> list[str]:
        """The types of the questions and of the type examples, ascending."""
        return sorted({*self.types, *self.type_examples.types})

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
        counts = np.bincount(corpus.term_counts.indices, minlength=len(corpus.terms))
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

    def transform(self, corpus: Corpus) -> sp.csr_matrix:
        """The vectors of questions (n, V + N)."""
        n, terms = len(corpus.questions), len(self.vocabulary.rows)
        scaled = standardise(corpus.numbers, self.number_mean, self.number_scale) * NUMBER_WEIGHT
        row_of = np.fromiter(map(self.vocabulary.rows.get, corpus.terms, repeat(-1)), np.int64, len(corpus.terms))
        size = np.count_nonzero(scaled) + sum(
            np.count_nonzero(row_of[counts.indices] >= 0) for counts in (corpus.term_counts, corpus.material_counts)
        )
        columns, weights, ends = np.empty(size, np.int32), np.empty(size), np.zeros(n + 1, np.int64)
        for at in range(n):
            words, numbers = self._weigh(corpus, at, row_of), np.flatnonzero(scaled[at])
            middle = ends[at] + len(words.rows)
            end = ends[at + 1] = middle + len(numbers)
            columns[ends[at] : middle], weights[ends[at] : middle] = words.rows, words.weights
            columns[middle:end], weights[middle:end] = terms + numbers, scaled[at, numbers]
        shape = (n, terms + len(NUMBER_NAMES))
        return sp.csr_matrix((weights[: ends[-1]], columns[: ends[-1]], ends), shape=shape)

    def _weigh(self, corpus: Corpus, at: int, row_of: Ints) -> Words:
        """The weights that `Vocabulary.weigh` gives to a question."""
        words = weigh_counts(*_counts(corpus.term_counts, at, row_of), self.vocabulary.idf)
        if not corpus.has_material[at]:
            return words
        material = weigh_counts(*_counts(corpus.material_counts, at, row_of), self.vocabulary.idf)
        return add_material(words, material)


def _counts(matrix: sp.csr_matrix, at: int, row_of: Ints) -> tuple[Ints, Floats]:
    """The rows of a question's terms in the vocabulary, and their counts."""
    entries = slice(matrix.indptr[at], matrix.indptr[at + 1])
    return row_of[matrix.indices[entries]], matrix.data[entries].astype(np.float64)
