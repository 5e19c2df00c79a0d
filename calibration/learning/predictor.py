"""Outcomes become a predictor: what each model is worth on a question, what it writes, and which type it is.

The score of a model is the mean of the question type and what a linear head adds to it, in which the hand features
weigh differently for each type. The answer's length has such a head of its own, and each type has one. All are ridge
regressions on word TF-IDF and hand features. The means of types are pooled: a type of few outcomes is like its family,
and a family of few like all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import scipy.sparse as sp

from calibration.learning.corpus import Ints
from calibration.learning.examples import NUMBER_WEIGHT, Examples, Inputs
from calibration.learning.ridge import System, solve
from calibration.workers import HERE, Workers
from router.policy.inputs import NUMBER_NAMES
from router.policy.prediction import Predictor
from router.policy.vocabulary import Floats

UNKNOWN_LENGTH = 200.0  # tokens of an answer, where no answer's length is known
PRIOR_QUESTIONS = 20.0  # weight of a family's mean in the mean of a type, and of all in a family's, in questions
PUBLISHED_QUESTIONS = 30.0  # weight of published results in the mean of a type, in questions
UNKNOWN_GAP = 0.15  # by which cheaper models are taken to be worse than usual on a type that nothing is known of
SLOPE_WEIGHT = 0.3  # of a hand feature within its type, where it weighs NUMBER_WEIGHT over all
RIDGE = 30.0  # of quality and length, whose outcomes are noisy
TYPE_RIDGE = 1.0
TYPE_SHARPNESS = 11.0  # gives the types of held-out questions their largest likelihood


def fit(examples: Examples, models: Sequence[str], workers: Workers = HERE) -> Predictor:
    """Fit the predictor; what is familiar is not known until questions held out tell it."""
    more = examples.more
    named = [*examples.types, *more.types]
    types = sorted(set(named))
    inputs = Inputs.fit(examples.corpus)
    matrix = inputs.matrix(examples.corpus, workers)
    of_types = _type_heads(matrix, named, types, workers)
    known = matrix[: len(examples.types)]
    del matrix
    own = _columns(examples.types, types)
    quality = type_quality(examples, types)
    logs = _log_lengths(examples)
    log_quality = _means(logs, examples.types, types, {})
    beyond = np.hstack([examples.scores - quality[own], logs - log_quality[own]])
    inputs_known = known.shape[1]
    known = _with_slopes(known, own, len(types))
    heads, intercepts = solve(System.of(known, RIDGE), partial(_column, beyond), range(beyond.shape[1]), workers)
    residuals = (beyond - (known @ heads.T + intercepts))[:, len(models) :]
    weights = np.vstack([heads[:, :inputs_known], of_types[0]])  # (2 M + T, V + N)
    slopes = heads[:, inputs_known:].reshape(len(heads), len(types), len(NUMBER_NAMES))
    terms = len(inputs.vocabulary.rows)
    measured = set(examples.types)
    return Predictor(
        models=tuple(models),
        types=tuple(types),
        vocabulary=inputs.vocabulary,
        table=np.ascontiguousarray(weights[:, :terms].T, np.float32),  # a term's weights lie together
        number_mean=inputs.number_mean,
        number_scale=inputs.number_scale,
        number_weights=weights[:, terms : terms + len(NUMBER_NAMES)].T * NUMBER_WEIGHT,
        intercept=np.concatenate([intercepts, of_types[1]]),
        type_slopes=slopes.transpose(1, 0, 2) * SLOPE_WEIGHT,
        type_sharpness=TYPE_SHARPNESS,
        type_quality=quality,
        type_log_length=log_quality,
        type_variance=type_variance(examples, types),
        type_measured=np.array([float(name in measured) for name in types]),
        length_smearing=np.exp(residuals).mean(axis=0),
        type_familiarity=np.zeros(len(types)),
        familiarity_quantiles=np.zeros(1),
    )


def _column(table: Floats, number: int) -> Floats:
    return np.asarray(table[:, number]).copy()


def _with_slopes(inputs: sp.csr_matrix, own: Ints, types: int) -> sp.csr_matrix:
    """The inputs, and the hand features once more for the type that each question is of."""
    hand = inputs[:, -len(NUMBER_NAMES) :] * (SLOPE_WEIGHT / NUMBER_WEIGHT)
    of_type = np.repeat(own, np.diff(hand.indptr)) * len(NUMBER_NAMES) + hand.indices
    shape = (hand.shape[0], types * len(NUMBER_NAMES))
    of_types = sp.csr_matrix((hand.data, of_type, hand.indptr), shape=shape)
    return sp.csr_matrix(sp.hstack([inputs, of_types]))


def type_quality(examples: Examples, types: Sequence[str]) -> Floats:
    """What each model is worth on each type (T, M), before anything is known of the question."""
    published, measured = examples.more.quality, set(examples.types)
    quality = _means(examples.scores, examples.types, types, published)
    quality[[name not in measured and name not in published for name in types], :-1] -= UNKNOWN_GAP
    return quality


def type_variance(examples: Examples, types: Sequence[str]) -> Floats:
    """How surely the mean gap of each model to the strong one is known of each type (T, M), as a variance.

    The variance of a question's gap within its type is pooled over all types, and shared by what the mean rests on.
    """
    gaps = examples.scores[:, -1:] - examples.scores
    own = _columns(examples.types, types)
    belongs = np.zeros((len(own), len(types)))
    belongs[np.arange(len(own)), own] = 1.0
    counts = belongs.sum(axis=0)
    means = belongs.T @ gaps / np.maximum(counts, 1.0)[:, None]
    within = np.square(gaps - means[own]).sum(axis=0) / max(len(gaps) - np.count_nonzero(counts), 1)
    prior = np.array([PUBLISHED_QUESTIONS if name in examples.more.quality else PRIOR_QUESTIONS for name in types])
    return np.asarray(within / (counts + prior)[:, None])


def without(mean: Floats, scores: Floats, n: int, published: bool) -> Floats:
    """The mean of a type of `n` outcomes (M,) without those of `scores` (k, M)."""
    weight = n + (PUBLISHED_QUESTIONS if published else PRIOR_QUESTIONS)
    return np.asarray((weight * mean - scores.sum(axis=0)) / (weight - len(scores)))


def _columns(named: Sequence[str], types: Sequence[str]) -> Ints:
    """The column of each question's type (n,)."""
    column = {name: at for at, name in enumerate(types)}
    return np.array([column[name] for name in named], dtype=np.int64)


def _type_heads(
    matrix: sp.csr_matrix, named: Sequence[str], types: Sequence[str], workers: Workers
) -> tuple[Floats, Floats]:
    """Weights (T, V + N) and intercepts (T,) of a regression on which type a question is of.

    How often a type was asked in a calibration says little of how often users will ask it: half way to balanced.
    """
    counts = Counter(named)
    weights = np.array([counts[name] ** -0.5 for name in named])
    system = System.of(matrix, TYPE_RIDGE, weights / weights.mean())
    return solve(system, partial(_is_of_type, _columns(named, types)), range(len(types)), workers)


def _is_of_type(own: Ints, number: int) -> Floats:
    return np.asarray(own == number, dtype=np.float64)


def _means(
    values: Floats, named: Sequence[str], types: Sequence[str], published: Mapping[str, Sequence[float]]
) -> Floats:
    """The mean of each type (T, M), shrunken towards published results or its family's mean, and that towards all's."""
    overall = values.mean(axis=0)
    of_type, of_family = np.array(named), np.array([name.split("/")[0] for name in named])
    rows: list[Floats] = []
    for name in types:
        family = _shrunken(values[of_family == name.split("/")[0]], overall, PRIOR_QUESTIONS)
        mine = values[of_type == name]
        if name in published:
            rows.append(_shrunken(mine, np.asarray(published[name]), PUBLISHED_QUESTIONS))
        else:
            rows.append(_shrunken(mine, family, PRIOR_QUESTIONS))
    return np.array(rows)


def _shrunken(values: Floats, prior: Floats, weight: float) -> Floats:
    """The mean of `values` (n, M) and of `weight` more that are as `prior` (M,)."""
    return np.asarray((values.sum(axis=0) + weight * prior) / (len(values) + weight))


def _log_lengths(examples: Examples) -> Floats:
    """Logs of the answers' lengths (n, M); where a length is unknown, the mean of that model's others."""
    logs = np.log(np.maximum(examples.lengths, 1.0))
    known = ~np.isnan(logs)
    filler = [
        logs[known[:, m], m].mean() if known[:, m].any() else np.log(UNKNOWN_LENGTH) for m in range(logs.shape[1])
    ]
    return np.where(known, logs, filler)
