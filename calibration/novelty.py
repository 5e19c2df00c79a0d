"""How unusual familiar questions look to the centre of their type, which is what a novel question is told by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import FeatureUnion
from sklearn.preprocessing import StandardScaler, normalize

from calibration.examples import NUMBER_WEIGHT, Examples, TypeExamples, input_union, last_turn
from router.policy.inputs import NUMBER_NAMES
from router.policy.prediction import Floats, Predictor, unusualness

QUANTILES = 201
Classifier = Callable[[sp.csr_matrix, Sequence[str]], Any]  # fits one that has `predict`
NUMBERS_SHARE = 0.2  # of a hand-feature distance as of a usual question, where words add at most 1
LEAST_VARIANCE = 0.05  # of a hand feature in a type, against 1 over all: what never varied may yet do so
POOLED_QUESTIONS = 20.0  # weight of all types' spread in the spread of one type's unusualness, in questions
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Centres:
    """What the questions of each type are like: T types, V terms, N hand features."""

    words: Floats  # (T, V) mean direction, of unit length
    numbers: Floats  # (T, N) mean of the standardised hand features
    precision: Floats  # (T, N) of a squared distance from it


def centres_of(matrix: sp.csr_matrix, named: Sequence[str], types: Sequence[str]) -> Centres:
    """The centres of types in the learner's inputs (n, V + N); the variances of few questions borrow those of all."""
    member = sp.csr_matrix(np.array([[float(name == t) for name in named] for t in types]))
    counts = np.maximum(np.asarray(member.sum(axis=1)), 1.0)  # (T, 1)
    hand = matrix[:, -len(NUMBER_NAMES) :].toarray() / NUMBER_WEIGHT
    numbers = (member @ hand) / counts
    squares = (hand - member.T @ numbers) ** 2
    variances = (member @ squares + POOLED_QUESTIONS * squares.mean(axis=0)) / (counts + POOLED_QUESTIONS)
    precision = NUMBERS_SHARE / len(NUMBER_NAMES) / (variances + LEAST_VARIANCE)
    words = normalize((member @ matrix[:, : -len(NUMBER_NAMES)]).toarray())
    return Centres(np.asarray(words), np.asarray(numbers), np.asarray(precision))


def novelty_quantiles(
    examples: Examples, more: TypeExamples, types: Sequence[str], seed: int, classifier: Classifier
) -> Floats:
    """For each type, quantiles of how unusual the questions look that are taken for it (T, Q).

    A type that few questions are taken for borrows the spread of all.
    """
    values, taken_for = _unusualness(examples, more, types, seed, classifier)
    named = np.array(types)[taken_for]
    means = {t: values[named == t].mean() if t in named else values.mean() for t in types}
    spread = values - np.array([means[t] for t in named])
    rows = []
    for t in types:
        own = values[named == t]
        weights = np.concatenate([np.ones(len(own)), np.full(len(spread), POOLED_QUESTIONS / len(spread))])
        sample = np.concatenate([own, means[t] + spread])
        rows.append(np.quantile(sample, np.linspace(0, 1, QUANTILES), method="inverted_cdf", weights=weights))
    return np.array(rows)


def _unusualness(
    examples: Examples, more: TypeExamples, types: Sequence[str], seed: int, classifier: Classifier
) -> tuple[Floats, np.ndarray]:
    """How far each question is from the type it is taken for, and which that is, by what was learnt without it.

    Its near-duplicates are left out with it. Both of shape (n + extra,).
    """
    rows = [*examples.features, *more.features]
    named = [*examples.types, *more.types]
    own_groups = np.arange(len(more.types)) + (examples.groups.max() + 1 if len(examples.groups) else 0)
    groups = np.concatenate([examples.groups, own_groups])
    values, taken_for = np.zeros(len(rows)), np.zeros(len(rows), dtype=int)
    folds = GroupKFold(min(FOLDS, len(np.unique(groups))), shuffle=True, random_state=seed)
    for train, test in folds.split(values, groups=groups):
        seen = [rows[i] for i in train]
        inputs = input_union()
        matrix = sp.csr_matrix(inputs.fit_transform(seen))
        centres = _centres_only(inputs, centres_of(matrix, [named[i] for i in train], types), types)
        guesses = classifier(matrix, [named[i] for i in train]).predict(inputs.transform([rows[i] for i in test]))
        for i, guess in zip(test, guesses, strict=True):
            taken_for[i] = types.index(guess)
            values[i] = unusualness(centres, rows[i], last_turn(rows[i]), taken_for[i])
    return values, taken_for


def _centres_only(inputs: FeatureUnion, centres: Centres, types: Sequence[str]) -> Predictor:
    """A predictor of nothing but how unusual a text is."""
    tfidf: TfidfVectorizer = inputs["words"]["tfidf"]
    scaler: StandardScaler = inputs["numbers"]["scale"]
    of_none = np.zeros((len(types), 0))  # there are no models
    return Predictor(
        models=(),
        types=tuple(types),
        vocabulary=tfidf.vocabulary_,
        idf=tfidf.idf_,
        unknown_idf=float(tfidf.idf_.max()),
        table=of_none.astype(np.float32),
        centres=centres.words.astype(np.float32),
        number_centres=centres.numbers,
        number_precision=centres.precision,
        number_mean=scaler.mean_,
        number_scale=scaler.scale_,
        number_weights=np.zeros((len(NUMBER_NAMES), len(types))),
        intercept=np.zeros(len(types)),
        type_quality=of_none,
        type_log_length=of_none,
        type_slopes=np.zeros((len(types), 0, len(NUMBER_NAMES))),
        type_measured=np.zeros(len(types)),
        length_smearing=np.zeros(0),
        novelty_quantiles=of_none,
    )
