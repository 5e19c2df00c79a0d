"""Every question teaches and tests: it is predicted by what was learnt without it and its near-duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import GroupKFold

from calibration.examples import Examples, TypeExamples
from calibration.predictor import fit, type_quality, without
from router.policy.prediction import Prediction, Predictor, predict
from router.policy.vocabulary import Floats

FOLDS = 5
FOLDS_OF_FEW = 10  # up to FEW questions, of which each fold should lack little
FEW = 1_000
QUANTILES = 201
POOLED_QUESTIONS = 20.0  # weight of what is usual of all questions in what is usual of one type, in questions


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Predictions of n questions, each by what was learnt without it."""

    predictions: Sequence[Prediction]
    type_familiarity: Mapping[str, float]  # what is usual of the questions taken for a type; "" of any other type
    familiarity_quantiles: Floats  # (Q,) ascending, of what is above it

    def complete(self, predictor: Predictor) -> Predictor:
        """The predictor with what is familiar."""
        usual = [self.type_familiarity.get(name, self.type_familiarity[""]) for name in predictor.types]
        return replace(predictor, type_familiarity=np.array(usual), familiarity_quantiles=self.familiarity_quantiles)


def cross_fit(examples: Examples, models: Sequence[str], seed: int, more: TypeExamples) -> CrossFit:
    """Predict each question from the folds that do not hold it; near-duplicates stay in one fold.

    What each model is worth on the type comes from all other questions, not only from those of other folds. Where a
    fold did better than the others, these tell less of the type than there is, and the questions of a type would go
    cheap just in the folds in which that is worst.
    """
    n = len(examples.types)
    wanted = FOLDS_OF_FEW if n <= FEW else FOLDS
    folds = GroupKFold(min(wanted, len(np.unique(examples.groups))), shuffle=True, random_state=seed)
    predictions: list[Prediction | None] = [None] * n
    for train, test in folds.split(examples.scores, groups=examples.groups):
        predictor = fit(examples.part(train), models, more)
        leave = _LeaveOut(examples, predictor, more)
        for i in test:
            predictions[i] = predict(leave.predictor(i), examples.features[i])
    there = [prediction for prediction in predictions if prediction is not None]
    usual, quantiles, novelty = _familiarity(there)
    told = [replace(p, novelty=float(v)) for p, v in zip(there, novelty, strict=True)]
    return CrossFit(told, usual, quantiles)


def seen_again(examples: Examples, predictor: Predictor, more: TypeExamples) -> list[Prediction]:
    """Predictions of the questions that were learnt from, each without its own share in the mean of its type."""
    leave = _LeaveOut(examples, predictor, more)
    return [predict(leave.predictor(i), features) for i, features in enumerate(examples.features)]


def _familiarity(predictions: Sequence[Prediction]) -> tuple[dict[str, float], Floats, Floats]:
    """What is usual by type, the quantiles of what is above it (Q,), and the novelty of each question (n,)."""
    values = np.array([prediction.familiarity for prediction in predictions])
    types = np.array([prediction.question_type for prediction in predictions])
    overall = float(values.mean())
    usual = {
        str(name): (float(values[types == name].sum()) + POOLED_QUESTIONS * overall)
        / (int((types == name).sum()) + POOLED_QUESTIONS)
        for name in np.unique(types)
    }
    above = values - np.array([usual[name] for name in types])
    quantiles = np.quantile(above, np.linspace(0, 1, QUANTILES))
    return usual | {"": overall}, quantiles, 1.0 - np.searchsorted(quantiles, above) / QUANTILES


class _LeaveOut:
    """The predictor of a fold, with the means of types from all questions but one and its near-duplicates."""

    def __init__(self, examples: Examples, predictor: Predictor, more: TypeExamples) -> None:
        self._examples, self._predictor, self._published = examples, predictor, more.quality
        self._means = type_quality(examples, predictor.types, more)
        self._counts = Counter(examples.types)
        self._near = defaultdict(list)
        for row, place in enumerate(zip(examples.groups.tolist(), examples.types, strict=True)):
            self._near[place].append(row)

    def predictor(self, row: int) -> Predictor:
        name = self._examples.types[row]
        if name not in self._predictor.types:
            return self._predictor
        at, means = self._predictor.types.index(name), self._means.copy()
        near = self._examples.scores[self._near[int(self._examples.groups[row]), name]]
        means[at] = without(means[at], near, self._counts[name], name in self._published)
        return replace(self._predictor, type_quality=means)
