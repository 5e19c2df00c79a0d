"""How unusual familiar questions look to the centre of their type, which is what a novel question is told by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import normalize

from calibration.examples import Examples, TypeExamples, last_turn, word_pipeline
from router.policy.features import Features
from router.policy.prediction import Floats, Predictor, unusualness

QUANTILES = 201
POOLED_QUESTIONS = 20.0  # weight of all types' spread in the spread of one type's unusualness, in questions
FOLDS = 5


def centres_of(words: Pipeline, rows: Sequence[Features], named: Sequence[str], types: Sequence[str]) -> Floats:
    """The mean direction of the questions of each type (T, V)."""
    vectors = sp.csr_matrix(words.transform(rows))
    member = sp.csr_matrix(np.array([[float(name == t) for name in named] for t in types]))
    return np.asarray(normalize((member @ vectors).toarray()))


def novelty_quantiles(examples: Examples, more: TypeExamples, types: Sequence[str], seed: int) -> Floats:
    """For each type, quantiles of how unusual its own questions look (T, Q); few questions borrow the spread of all."""
    named = np.array([*examples.types, *more.types])
    values = _unusualness(examples, more, types, seed)
    means = {t: values[named == t].mean() for t in types}
    spread = values - np.array([means[t] for t in named])
    rows = []
    for t in types:
        own = values[named == t]
        weights = np.concatenate([np.ones(len(own)), np.full(len(spread), POOLED_QUESTIONS / len(spread))])
        sample = np.concatenate([own, means[t] + spread])
        rows.append(np.quantile(sample, np.linspace(0, 1, QUANTILES), method="inverted_cdf", weights=weights))
    return np.array(rows)


def _unusualness(examples: Examples, more: TypeExamples, types: Sequence[str], seed: int) -> Floats:
    """How far each question is from its type's centre, made without it and its near-duplicates. Shape (n + extra,)."""
    rows = [*examples.features, *more.features]
    named = [*examples.types, *more.types]
    own_groups = np.arange(len(more.types)) + (examples.groups.max() + 1 if len(examples.groups) else 0)
    groups = np.concatenate([examples.groups, own_groups])
    values = np.zeros(len(rows))
    folds = GroupKFold(min(FOLDS, len(np.unique(groups))), shuffle=True, random_state=seed)
    for train, test in folds.split(values, groups=groups):
        seen = [rows[i] for i in train]
        words = word_pipeline().fit(seen)
        centres = _centres_only(words, centres_of(words, seen, [named[i] for i in train], types), types)
        for i in test:
            values[i] = unusualness(centres, rows[i], last_turn(rows[i]), types.index(named[i]))
    return values


def _centres_only(words: Pipeline, centres: Floats, types: Sequence[str]) -> Predictor:
    """A predictor of nothing but how unusual a text is."""
    tfidf: TfidfVectorizer = words["tfidf"]
    empty = np.zeros(0)
    return Predictor(
        models=(),
        types=tuple(types),
        vocabulary=tfidf.vocabulary_,
        idf=tfidf.idf_,
        unknown_idf=float(tfidf.idf_.max()),
        table=empty.astype(np.float32),
        centres=centres.astype(np.float32),
        number_mean=empty,
        number_scale=empty,
        number_weights=empty,
        intercept=empty,
        type_quality=empty,
        type_log_length=empty,
        type_slopes=empty,
        type_measured=empty,
        length_smearing=empty,
        novelty_quantiles=empty,
    )
