"""Predictions of many questions, made anew whenever they are looked at: what is held of each are a few numbers.

Rows that one predictor predicts form a fold. A function of every prediction is computed in parts by workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import numpy as np

from calibration.learning.corpus import Ints, Questions
from calibration.workers import HERE, PART_ROWS, Arrays, Workers
from router.policy.features import Features
from router.policy.prediction import Prediction, Predictor, predict
from router.policy.vocabulary import Floats

HELD_ROWS = 10_000  # of so few questions the predictions are held once they were made

Row = Callable[[Features, Prediction], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows that one predictor predicts, each with its own mean of its type."""

    predictor: Predictor
    type_quality: Floats  # (T, M) the means of types that stand in place of the predictor's
    rows: Ints  # (k,)
    types: Ints  # (k,) the number of the type whose mean is each row's own; -1 where the predictor's means stay
    means: Floats  # (k, M)


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a fold, as a worker gets them."""

    questions: Questions
    types: Ints
    means: Floats
    novelty: Floats | None


class Predictions(Sequence[Prediction]):
    """Predictions of n questions by the folds that hold them."""

    def __init__(
        self, questions: Questions, folds: Sequence[Fold], workers: Workers = HERE, novelty: Floats | None = None
    ) -> None:
        self._questions = questions
        self._folds = folds
        self._workers = workers
        self._novelty = novelty  # (n,) in place of what the predictor says
        self._place = np.zeros((len(questions), 2), dtype=np.int32)  # fold, and row in it
        for number, fold in enumerate(folds):
            self._place[fold.rows, 0] = number
            self._place[fold.rows, 1] = np.arange(len(fold.rows))
        self._held: list[Prediction] | None = None

    def by(self, workers: Workers, novelty: Floats | None = None) -> Predictions:
        """The same predictions made by other workers, or with another novelty."""
        return Predictions(self._questions, self._folds, workers, self._novelty if novelty is None else novelty)

    @property
    def types(self) -> list[str]:
        """All types that a question may be taken for."""
        return sorted({name for fold in self._folds for name in fold.predictor.types})

    def __len__(self) -> int:
        return len(self._questions)

    @overload
    def __getitem__(self, at: int) -> Prediction: ...

    @overload
    def __getitem__(self, at: slice) -> list[Prediction]: ...

    def __getitem__(self, at: int | slice) -> Prediction | list[Prediction]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        row = range(len(self))[at]
        if self._held is not None:
            return self._held[row]
        number, place = self._place[row].tolist()
        fold = self._folds[number]
        return next(_predicted(fold.predictor, fold.type_quality, self._part(fold, slice(place, place + 1))))[1]

    def __iter__(self) -> Iterator[Prediction]:
        if self._held is None and len(self) <= HELD_ROWS:
            self._held = self[:]
        return iter(self._held) if self._held is not None else (self[row] for row in range(len(self)))

    def table(self, row: Row) -> Floats:
        """A row of numbers for each question (n, k); `row` is pickled where workers are elsewhere."""
        found: Floats | None = None
        for fold in self._folds:
            starts = range(0, len(fold.rows), PART_ROWS)
            parts = [self._part(fold, slice(start, start + PART_ROWS)) for start in starts]
            computed = self._workers.map(partial(_rows, row, fold.predictor, fold.type_quality), parts)
            for start, arrays in zip(starts, computed, strict=True):
                rows = arrays["rows"]
                if found is None:
                    found = np.zeros((len(self), rows.shape[1]))
                found[fold.rows[start : start + PART_ROWS]] = rows
        return np.zeros((0, 0)) if found is None else found

    def _part(self, fold: Fold, rows: slice) -> Part:
        at = fold.rows[rows]
        novelty = None if self._novelty is None else self._novelty[at]
        return Part(self._questions.at(at.tolist()), fold.types[rows], fold.means[rows], novelty)


def _rows(row: Row, predictor: Predictor, type_quality: Floats, part: Part) -> Arrays:
    rows = [row(features, prediction) for features, prediction in _predicted(predictor, type_quality, part)]
    return {"rows": np.array(rows, dtype=np.float64)}


def _predicted(predictor: Predictor, type_quality: Floats, part: Part) -> Iterator[tuple[Features, Prediction]]:
    for row, features in enumerate(part.questions):
        its, at = predictor, int(part.types[row])
        if at >= 0:
            quality = type_quality.copy()
            quality[at] = part.means[row]
            its = replace(predictor, type_quality=quality)
        prediction = predict(its, features)
        if part.novelty is not None:
            prediction = replace(prediction, novelty=float(part.novelty[row]))
        yield features, prediction


def table_of(features: Sequence[Features], predictions: Sequence[Prediction], row: Row) -> Floats:
    """A row of numbers for each question (n, k), computed by the workers that the predictions have."""
    if isinstance(predictions, Predictions):
        return predictions.table(row)
    return np.array([row(f, p) for f, p in zip(features, predictions, strict=True)], dtype=np.float64)
