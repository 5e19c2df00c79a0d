"""Every question teaches and tests: it is predicted by what was learnt without it and its near-duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from sklearn.model_selection import GroupKFold

from calibration.learning.corpus import Ints
from calibration.learning.examples import Examples
from calibration.learning.predictions import Fold, Predictions
from calibration.learning.predictor import fit, type_quality, without
from calibration.workers import HERE, Workers
from router.policy.features import Features
from router.policy.prediction import Prediction, Predictor
from router.policy.vocabulary import Floats

FOLDS = 5
FOLDS_OF_FEW = 10  # up to FEW questions, of which each fold should lack little
FEW = 1_000
QUANTILES = 201
POOLED_QUESTIONS = 20.0  # weight of what is usual of all questions in what is usual of one type, in questions


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Predictions of n questions, each by what was learnt without it."""

    predictions: Predictions
    type_familiarity: Mapping[str, float]  # what is usual of the questions taken for a type; "" of any other type
    familiarity_quantiles: Floats  # (Q,) ascending, of what is above it

    def complete(self, predictor: Predictor) -> Predictor:
        """The predictor with what is familiar."""
        usual = [self.type_familiarity.get(name, self.type_familiarity[""]) for name in predictor.types]
        return replace(predictor, type_familiarity=np.array(usual), familiarity_quantiles=self.familiarity_quantiles)


def cross_fit(examples: Examples, models: Sequence[str], seed: int, workers: Workers = HERE) -> CrossFit:
    """Predict each question from the folds that do not hold it; near-duplicates stay in one fold.

    What each model is worth on the type comes from all other questions, not only from those of other folds. Where a
    fold did better than the others, these tell less of the type than there is, and the questions of a type would go
    cheap just in the folds in which that is worst.
    """
    wanted = FOLDS_OF_FEW if len(examples.types) <= FEW else FOLDS
    splits = GroupKFold(min(wanted, len(np.unique(examples.groups))), shuffle=True, random_state=seed)
    folds = [
        _fold(examples, fit(examples.part(train), models, workers), test)
        for train, test in splits.split(examples.scores, groups=examples.groups)
    ]
    predictions = Predictions(examples.features, folds, workers)
    types = predictions.types
    told = predictions.table(partial(_familiar, types))
    usual, quantiles, novelty = _familiarity(told[:, 0], np.array(types)[told[:, 1].astype(np.int64)])
    return CrossFit(predictions.by(workers, novelty), usual, quantiles)


def seen_again(examples: Examples, predictor: Predictor, workers: Workers = HERE) -> Predictions:
    """Predictions of the questions that were learnt from, each without its own share in the mean of its type."""
    fold = _fold(examples, predictor, np.arange(len(examples.types)))
    return Predictions(examples.features, [fold], workers)


def _familiar(types: Sequence[str], _: Features, prediction: Prediction) -> tuple[float, float]:
    return prediction.familiarity, types.index(prediction.question_type)


def _familiarity(values: Floats, types: np.ndarray) -> tuple[dict[str, float], Floats, Floats]:
    """What is usual by type, the quantiles of what is above it (Q,), and the novelty of each question (n,)."""
    overall = float(values.mean())
    usual = {
        str(name): (float(values[types == name].sum()) + POOLED_QUESTIONS * overall)
        / (int((types == name).sum()) + POOLED_QUESTIONS)
        for name in np.unique(types)
    }
    above = values - np.array([usual[name] for name in types])
    quantiles = np.quantile(above, np.linspace(0, 1, QUANTILES))
    return usual | {"": overall}, quantiles, 1.0 - np.searchsorted(quantiles, above) / QUANTILES


def _fold(examples: Examples, predictor: Predictor, rows: Ints) -> Fold:
    """Rows with the means of their types, from all questions but each and its near-duplicates."""
    means, published = type_quality(examples, predictor.types), examples.more.quality
    counts, number = Counter(examples.types), {name: at for at, name in enumerate(predictor.types)}
    near = defaultdict(list)
    for row, place in enumerate(zip(examples.groups.tolist(), examples.types, strict=True)):
        near[place].append(row)
    types = np.full(len(rows), -1, dtype=np.int64)
    own = np.zeros((len(rows), means.shape[1]))
    for at, row in enumerate(rows.tolist()):
        name = examples.types[row]
        if name in number:
            types[at] = number[name]
            scores = examples.scores[near[int(examples.groups[row]), name]]
            own[at] = without(means[types[at]], scores, counts[name], name in published)
    return Fold(predictor, means, rows, types, own)
