"""Cross-fitting: every question is predicted by a model that was fitted without it and its near-duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import GroupKFold

from calibration.learning.corpus import Ints
from calibration.learning.examples import Examples
from calibration.learning.predictions import Fold, Predictions, predict_fold
from calibration.learning.predictor import fit, mean_without, type_quality
from calibration.workers import IN_PROCESS, Arrays, Workers
from router.policy.prediction import Predictor
from router.policy.vocabulary import Floats

FOLDS = 5
FOLDS_OF_SMALL_SET = 10  # so that the model of each fold has seen nearly all questions
SMALL_SET_QUESTIONS = 1_000
QUANTILES = 201
POOLED_QUESTIONS = 20.0  # weight of the mean familiarity of all questions in that of one type, in questions


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Cross-fitted predictions of n questions, and the distribution of their familiarity."""

    predictions: Predictions
    type_familiarity: Mapping[str, float]  # mean familiarity by predicted type; "" for all other types
    familiarity_quantiles: Floats  # (Q,) ascending, of the familiarity minus the mean of its type

    def add_familiarity(self, predictor: Predictor) -> Predictor:
        """The predictor with this distribution, from which it computes novelty."""
        means = [self.type_familiarity.get(name, self.type_familiarity[""]) for name in predictor.types]
        return replace(predictor, type_familiarity=np.array(means), familiarity_quantiles=self.familiarity_quantiles)


def cross_fit(examples: Examples, models: Sequence[str], seed: int, workers: Workers = IN_PROCESS) -> CrossFit:
    """Predict the questions of each fold by a model that was fitted on the other folds.

    Near-duplicates are in the same fold. The mean score of a type comes from all questions but the predicted one, not
    only from those of other folds. Otherwise, in a fold that scores above average, the mean of the other folds is below
    average: the questions of a type would go to the cheap model just in the folds where that model does worst.
    """
    folds = FOLDS_OF_SMALL_SET if len(examples.types) <= SMALL_SET_QUESTIONS else FOLDS
    splitter = GroupKFold(min(folds, len(np.unique(examples.groups))), shuffle=True, random_state=seed)
    predicted = [  # only one predictor at a time is in memory
        (test, _predict(examples, fit(examples.subset(train), models, workers), test, workers))
        for train, test in splitter.split(examples.scores, groups=examples.groups)
    ]
    predictions = Predictions.join(models, examples.all_types, predicted)
    predicted_types = np.array([prediction.question_type for prediction in predictions])
    means, quantiles, novelty = _fit_familiarity(predictions.familiarity, predicted_types)
    return CrossFit(predictions.with_novelty(novelty), means, quantiles)


def in_sample_predictions(examples: Examples, predictor: Predictor, workers: Workers = IN_PROCESS) -> Predictions:
    """Predictions by a predictor that was fitted on the same questions.

    Only the mean score of the type is computed without the predicted question.
    """
    rows = np.arange(len(examples.types))
    predicted = _predict(examples, predictor, rows, workers)
    return Predictions.join(predictor.models, examples.all_types, [(rows, predicted)])


def _predict(examples: Examples, predictor: Predictor, rows: Ints, workers: Workers) -> Arrays:
    return predict_fold(examples.features, examples.all_types, _build_fold(examples, predictor, rows), workers)


def _fit_familiarity(values: Floats, types: np.ndarray) -> tuple[dict[str, float], Floats, Floats]:
    """The distribution of familiarity: means by type, quantiles of the deviations (Q,), novelty of each question (n,).

    The mean of a type is shrunken towards the mean of all questions.
    """
    overall = float(values.mean())
    means = {
        str(name): (float(values[types == name].sum()) + POOLED_QUESTIONS * overall)
        / (int((types == name).sum()) + POOLED_QUESTIONS)
        for name in np.unique(types)
    }
    deviations = values - np.array([means[name] for name in types])
    quantiles = np.quantile(deviations, np.linspace(0, 1, QUANTILES))
    return means | {"": overall}, quantiles, 1.0 - np.searchsorted(quantiles, deviations) / QUANTILES


def _build_fold(examples: Examples, predictor: Predictor, rows: Ints) -> Fold:
    """The rows of a fold; each has the mean score of its type without the question and its near-duplicates."""
    means, published = type_quality(examples, predictor.types), examples.type_examples.quality
    counts, number = Counter(examples.types), {name: at for at, name in enumerate(predictor.types)}
    near_duplicates = defaultdict(list)
    for row, key in enumerate(zip(examples.groups.tolist(), examples.types, strict=True)):
        near_duplicates[key].append(row)
    types = np.full(len(rows), -1, dtype=np.int64)
    means_of_rows = np.zeros((len(rows), means.shape[1]))
    for at, row in enumerate(rows.tolist()):
        name = examples.types[row]
        if name in number:
            types[at] = number[name]
            scores = examples.scores[near_duplicates[int(examples.groups[row]), name]]
            means_of_rows[at] = mean_without(means[types[at]], scores, counts[name], name in published)
    return Fold(predictor, means, rows, types, means_of_rows)
