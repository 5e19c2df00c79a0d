"""Fitting the predictor: the score of each model on a question, the length of its answer, and the type of the question.

The predicted score of a model is the mean score of the question's type plus a linear correction, in which handcrafted
features have weights by type. The predicted log length of the answer has the same form. Each type has a linear head for
classification. All are ridge regressions on word TF-IDF and handcrafted features. The means are shrunken: that of a
type towards its family (the part of its name before the slash), and that of a family towards all questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import scipy.sparse as sp

from calibration.learning.corpus import Ints
from calibration.learning.examples import NUMBER_WEIGHT, Examples, Vectorizer
from calibration.learning.ridge import System, solve
from calibration.workers import IN_PROCESS, Workers
from router.policy.inputs import NUMBER_NAMES
from router.policy.prediction import Predictor
from router.policy.vocabulary import Floats

UNKNOWN_LENGTH = 200.0  # tokens of an answer, where no length was recorded
PRIOR_QUESTIONS = 20.0  # weight, in questions, of the family in the mean of a type, and of all in that of a family
PUBLISHED_QUESTIONS = 30.0  # weight, in questions, of published results in the mean of a type
UNKNOWN_GAP = 0.15  # subtracted from the score of cheaper models on types without outcomes or published results
SLOPE_WEIGHT = 0.3  # of a handcrafted feature in the heads by type; NUMBER_WEIGHT is that in the shared heads
RIDGE = 30.0  # of score and length
TYPE_RIDGE = 1.0  # of the classification of types
TYPE_SHARPNESS = 11.0  # maximises the likelihood of the types of held-out questions


def fit(examples: Examples, models: Sequence[str], workers: Workers = IN_PROCESS) -> Predictor:
    """Fit the predictor, except for familiarity, which needs held-out questions (`crossfit.py`)."""
    labels, types = [*examples.types, *examples.type_examples.types], examples.all_types
    vectorizer = Vectorizer.fit(examples.corpus)
    matrix = vectorizer.transform(examples.corpus)
    terms, width = len(vectorizer.vocabulary.rows), matrix.shape[1]
    type_heads, type_intercepts = _fit_type_heads(matrix, labels, types, workers)
    columns = _type_columns(examples.types, types)
    quality = type_quality(examples, types)
    logs = _log_lengths(examples)
    log_length = _pooled_means(logs, examples.types, types, {})
    targets = np.hstack([examples.scores - quality[columns], logs - log_length[columns]])
    matrix = _with_slopes(matrix[: len(examples.types)], columns, len(types))
    system = System.build(matrix, RIDGE)
    heads, intercepts = solve(system, partial(_copy_column, targets), range(targets.shape[1]), workers)
    length_residuals = (targets - (matrix @ heads.T + intercepts))[:, len(models) :]
    term_weights = np.vstack([heads[:, :terms], type_heads[:, :terms]], dtype=np.float32)
    number_weights = np.vstack([heads[:, terms:width], type_heads[:, terms:]])
    slopes = heads[:, width:].reshape(len(heads), len(types), len(NUMBER_NAMES))
    measured = set(examples.types)
    return Predictor(
        models=tuple(models),
        types=tuple(types),
        vocabulary=vectorizer.vocabulary,
        table=np.ascontiguousarray(term_weights.T),  # the weights of a term are contiguous
        number_mean=vectorizer.number_mean,
        number_scale=vectorizer.number_scale,
        number_weights=number_weights.T * NUMBER_WEIGHT,
        intercept=np.concatenate([intercepts, type_intercepts]),
        type_slopes=slopes.transpose(1, 0, 2) * SLOPE_WEIGHT,
        type_sharpness=TYPE_SHARPNESS,
        type_quality=quality,
        type_log_length=log_length,
        type_variance=type_variance(examples, types),
        type_measured=np.array([float(name in measured) for name in types]),
        length_smearing=np.exp(length_residuals).mean(axis=0),
        type_familiarity=np.zeros(len(types)),
        familiarity_quantiles=np.zeros(1),
    )


def _copy_column(table: Floats, number: int) -> Floats:
    return np.asarray(table[:, number]).copy()


def _with_slopes(matrix: sp.csr_matrix, columns: Ints, types: int) -> sp.csr_matrix:
    """The matrix with the handcrafted features once more, in the columns of the type of each question."""
    numbers = matrix[:, -len(NUMBER_NAMES) :] * (SLOPE_WEIGHT / NUMBER_WEIGHT)
    indices = np.repeat(columns, np.diff(numbers.indptr)) * len(NUMBER_NAMES) + numbers.indices
    shape = (numbers.shape[0], types * len(NUMBER_NAMES))
    by_type = sp.csr_matrix((numbers.data, indices, numbers.indptr), shape=shape)
    return sp.csr_matrix(sp.hstack([matrix, by_type]))


def type_quality(examples: Examples, types: Sequence[str]) -> Floats:
    """The mean score of each model on each type (T, M)."""
    published, measured = examples.type_examples.quality, set(examples.types)
    quality = _pooled_means(examples.scores, examples.types, types, published)
    quality[[name not in measured and name not in published for name in types], :-1] -= UNKNOWN_GAP
    return quality


def type_variance(examples: Examples, types: Sequence[str]) -> Floats:
    """The variance of the mean gap of each model to the strong one, on each type (T, M).

    It is the variance of a question's gap within its type, pooled over all types, divided by the number of questions
    (with those of the prior) that the mean comes from.
    """
    gaps = examples.scores[:, -1:] - examples.scores
    columns = _type_columns(examples.types, types)
    belongs = np.zeros((len(columns), len(types)))
    belongs[np.arange(len(columns)), columns] = 1.0
    counts = belongs.sum(axis=0)
    means = belongs.T @ gaps / np.maximum(counts, 1.0)[:, None]
    within = np.square(gaps - means[columns]).sum(axis=0) / max(len(gaps) - np.count_nonzero(counts), 1)
    published = examples.type_examples.quality
    prior = np.array([PUBLISHED_QUESTIONS if name in published else PRIOR_QUESTIONS for name in types])
    return np.asarray(within / (counts + prior)[:, None])


def mean_without(mean: Floats, scores: Floats, n: int, published: bool) -> Floats:
    """The shrunken mean of a type with `n` outcomes (M,) after removing `scores` (k, M)."""
    weight = n + (PUBLISHED_QUESTIONS if published else PRIOR_QUESTIONS)
    return np.asarray((weight * mean - scores.sum(axis=0)) / (weight - len(scores)))


def _type_columns(labels: Sequence[str], types: Sequence[str]) -> Ints:
    """The column of each question's type (n,)."""
    column = {name: at for at, name in enumerate(types)}
    return np.array([column[name] for name in labels], dtype=np.int64)


def _fit_type_heads(
    matrix: sp.csr_matrix, labels: Sequence[str], types: Sequence[str], workers: Workers
) -> tuple[Floats, Floats]:
    """Weights (T, V + N) and intercepts (T,) of one-vs-rest regressions on the type of a question.

    The frequency of a type in the calibration says little about its frequency in traffic. So a question's weight is the
    inverse root of the size of its type, half way to balanced weights.
    """
    counts = Counter(labels)
    weights = np.array([counts[name] ** -0.5 for name in labels])
    system = System.build(matrix, TYPE_RIDGE, weights / weights.mean())
    return solve(system, partial(_type_indicator, _type_columns(labels, types)), range(len(types)), workers)


def _type_indicator(columns: Ints, number: int) -> Floats:
    return np.asarray(columns == number, dtype=np.float64)


def _pooled_means(
    values: Floats, labels: Sequence[str], types: Sequence[str], published: Mapping[str, Sequence[float]]
) -> Floats:
    """The shrunken mean of each type (T, M), towards published results or its family."""
    overall = values.mean(axis=0)
    of_type, of_family = np.array(labels), np.array([name.split("/")[0] for name in labels])
    rows: list[Floats] = []
    for name in types:
        family = _shrunken_mean(values[of_family == name.split("/")[0]], overall, PRIOR_QUESTIONS)
        of_type_values = values[of_type == name]
        if name in published:
            rows.append(_shrunken_mean(of_type_values, np.asarray(published[name]), PUBLISHED_QUESTIONS))
        else:
            rows.append(_shrunken_mean(of_type_values, family, PRIOR_QUESTIONS))
    return np.array(rows)


def _shrunken_mean(values: Floats, prior: Floats, weight: float) -> Floats:
    """The mean of `values` (n, M) and of `weight` further values equal to `prior` (M,)."""
    return np.asarray((values.sum(axis=0) + weight * prior) / (len(values) + weight))


def _log_lengths(examples: Examples) -> Floats:
    """Logarithms of the answers' lengths (n, M); a missing length is the mean of the model's other ones."""
    logs = np.log(np.maximum(examples.output_tokens, 1.0))
    known = ~np.isnan(logs)
    filler = [
        logs[known[:, m], m].mean() if known[:, m].any() else np.log(UNKNOWN_LENGTH) for m in range(logs.shape[1])
    ]
    return np.where(known, logs, filler)
