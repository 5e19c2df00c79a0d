"""Outcomes become a predictor: what each model is worth on a question, what it writes, and which type it is.

The score of a model is the mean of the question type and what a linear head adds to it, in which the hand features
weigh differently for each type. The answer's length has such a head of its own, and each type has one. All are ridge
regressions on word TF-IDF and hand features. The means of types are pooled: a type of few outcomes is like its family,
and a family of few like all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from calibration.examples import NUMBER_WEIGHT, Examples, Inputs, TypeExamples, question_of
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
NO_MORE = TypeExamples()


def fit(examples: Examples, models: Sequence[str], more: TypeExamples = NO_MORE) -> Predictor:
    """Fit the predictor; what is familiar is not known until questions held out tell it."""
    named = [*examples.types, *more.types]
    types = sorted(set(named))
    questions = [*examples.questions, *map(question_of, more.features)]
    inputs = Inputs.fit(questions)
    matrix = inputs.matrix(questions)
    known = matrix[: len(examples.types)]
    belongs = _belongs(examples.types, types)
    quality = type_quality(examples, types, more)
    logs = _log_lengths(examples)
    log_quality = _means(logs, examples.types, types, {})
    beyond = np.hstack([examples.scores - belongs @ quality, logs - belongs @ log_quality])
    with_slopes = _with_slopes(known, belongs)
    heads = Ridge(RIDGE, tol=1e-4).fit(with_slopes, beyond)
    residuals = (beyond - heads.predict(with_slopes))[:, len(models) :]
    of_types = _type_heads(matrix, named, types)
    inputs_known = matrix.shape[1]
    weights = np.vstack([heads.coef_[:, :inputs_known], of_types[0]])  # (2 M + T, V + N)
    slopes = heads.coef_[:, inputs_known:].reshape(len(heads.coef_), len(types), len(NUMBER_NAMES))
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
        intercept=np.concatenate([heads.intercept_, of_types[1]]),
        type_slopes=slopes.transpose(1, 0, 2) * SLOPE_WEIGHT,
        type_sharpness=TYPE_SHARPNESS,
        type_quality=quality,
        type_log_length=log_quality,
        type_variance=type_variance(examples, types, more),
        type_measured=np.array([float(name in measured) for name in types]),
        length_smearing=np.exp(residuals).mean(axis=0),
        type_familiarity=np.zeros(len(types)),
        familiarity_quantiles=np.zeros(1),
    )


def _with_slopes(inputs: sp.csr_matrix, types: Floats) -> sp.csr_matrix:
    """The inputs, and the hand features once more for each type, by how much a question is of it (n, T)."""
    hand = inputs[:, -len(NUMBER_NAMES) :].toarray() * (SLOPE_WEIGHT / NUMBER_WEIGHT)
    of_types = (types[:, :, None] * hand[:, None, :]).reshape(len(hand), -1)
    return sp.csr_matrix(sp.hstack([inputs, sp.csr_matrix(of_types)]))


def type_quality(examples: Examples, types: Sequence[str], more: TypeExamples) -> Floats:
    """What each model is worth on each type (T, M), before anything is known of the question."""
    quality = _means(examples.scores, examples.types, types, more.quality)
    quality[[name not in set(examples.types) and name not in more.quality for name in types], :-1] -= UNKNOWN_GAP
    return quality


def type_variance(examples: Examples, types: Sequence[str], more: TypeExamples) -> Floats:
    """How surely the mean gap of each model to the strong one is known of each type (T, M), as a variance.

    The variance of a question's gap within its type is pooled over all types, and shared by what the mean rests on.
    """
    gaps = examples.scores[:, -1:] - examples.scores
    belongs = _belongs(examples.types, types)
    counts = belongs.sum(axis=0)
    means = belongs.T @ gaps / np.maximum(counts, 1.0)[:, None]
    within = np.square(gaps - belongs @ means).sum(axis=0) / max(len(gaps) - np.count_nonzero(counts), 1)
    prior = np.array([PUBLISHED_QUESTIONS if name in more.quality else PRIOR_QUESTIONS for name in types])
    return np.asarray(within / (counts + prior)[:, None])


def without(mean: Floats, scores: Floats, n: int, published: bool) -> Floats:
    """The mean of a type of `n` outcomes (M,) without those of `scores` (k, M)."""
    weight = n + (PUBLISHED_QUESTIONS if published else PRIOR_QUESTIONS)
    return np.asarray((weight * mean - scores.sum(axis=0)) / (weight - len(scores)))


def _belongs(named: Sequence[str], types: Sequence[str]) -> Floats:
    """Which type each question is of, (n, T) of 0 and 1."""
    column = {name: at for at, name in enumerate(types)}
    table = np.zeros((len(named), len(types)))
    table[np.arange(len(named)), [column[name] for name in named]] = 1.0
    return table


def _type_heads(matrix: sp.csr_matrix, named: Sequence[str], types: Sequence[str]) -> tuple[Floats, Floats]:
    """Weights (T, V + N) and intercepts (T,) of a regression on which type a question is of.

    How often a type was asked in a calibration says little of how often users will ask it: half way to balanced.
    """
    counts = Counter(named)
    weights = np.array([counts[name] ** -0.5 for name in named])
    ridge = Ridge(TYPE_RIDGE, tol=1e-4).fit(matrix, _belongs(named, types), sample_weight=weights / weights.mean())
    return np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)


def _means(
    values: Floats, named: Sequence[str], types: Sequence[str], published: Mapping[str, Sequence[float]]
) -> Floats:
    """The mean of each type (T, M), shrunken towards published results or its family's mean, and that towards all's."""
    overall = values.mean(axis=0)
    of_type, of_family = ([name.split("/")[0] if family else name for name in named] for family in (False, True))
    rows: list[Floats] = []
    for name in types:
        family = _shrunken(values[[f == name.split("/")[0] for f in of_family]], overall, PRIOR_QUESTIONS)
        mine = values[[t == name for t in of_type]]
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
