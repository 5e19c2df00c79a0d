"""Lazy predictions of many questions: each is computed at every access, so that only a few numbers are in memory.

A fold has the rows that one predictor predicts. Workers compute functions of all predictions, in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import numpy as np
from msgspec import structs

from calibration.learning.corpus import Ints, Questions
from calibration.workers import IN_PROCESS, PART_ROWS, Arrays, Workers
from router.policy.features import Features
from router.policy.prediction import Prediction, Predictor, predict
from router.policy.vocabulary import Floats

MAX_CACHED_ROWS = 10_000  # predictions of at most this many questions are cached

RowFunction = Callable[[Features, Prediction], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Fold:
    """The rows that one predictor predicts. Each row has its own mean scores of its type (cross-fitted)."""

    predictor: Predictor
    type_quality: Floats  # (T, M) mean scores of types, in place of the predictor's
    rows: Ints  # (k,)
    types: Ints  # (k,) number of the type whose means the row replaces; -1: the row keeps the predictor's means
    means: Floats  # (k, M) the row's mean scores of that type


@dataclass(frozen=True, slots=True)
class Part:
    """The input of a worker: some rows of a fold."""

    questions: Questions
    types: Ints
    means: Floats
    novelty: Floats | None


class Predictions(Sequence[Prediction]):
    """The predictions of n questions, each by the predictor of its fold."""

    def __init__(
        self, questions: Questions, folds: Sequence[Fold], workers: Workers = IN_PROCESS, novelty: Floats | None = None
    ) -> None:
        self._questions = questions
        self._folds = folds
        self._workers = workers
        self._novelty = novelty  # (n,) in place of the predictor's
        self._place = np.zeros((len(questions), 2), dtype=np.int32)  # number of the fold, and row in the fold
        for number, fold in enumerate(folds):
            self._place[fold.rows, 0] = number
            self._place[fold.rows, 1] = np.arange(len(fold.rows))
        self._cache: list[Prediction] | None = None

    def with_workers(self, workers: Workers, novelty: Floats | None = None) -> Predictions:
        """The same predictions with other workers, or with another novelty (n,)."""
        return Predictions(self._questions, self._folds, workers, self._novelty if novelty is None else novelty)

    @property
    def types(self) -> list[str]:
        """All types that may be predicted."""
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
        if self._cache is not None:
            return self._cache[row]
        number, place = self._place[row].tolist()
        fold = self._folds[number]
        return next(_predict_part(fold.predictor, fold.type_quality, self._part(fold, slice(place, place + 1))))[1]

    def __iter__(self) -> Iterator[Prediction]:
        if self._cache is None and len(self) <= MAX_CACHED_ROWS:
            self._cache = self[:]
        return iter(self._cache) if self._cache is not None else (self[row] for row in range(len(self)))

    def compute_table(self, row: RowFunction) -> Floats:
        """A row of numbers for each question (n, k). `row` must be picklable for workers in other processes."""
        table: Floats | None = None
        for fold in self._folds:
            starts = range(0, len(fold.rows), PART_ROWS)
            parts = [self._part(fold, slice(start, start + PART_ROWS)) for start in starts]
            computed = self._workers.map(partial(_compute_rows, row, fold.predictor, fold.type_quality), parts)
            for start, arrays in zip(starts, computed, strict=True):
                rows = arrays["rows"]
                if table is None:
                    table = np.zeros((len(self), rows.shape[1]))
                table[fold.rows[start : start + PART_ROWS]] = rows
        return np.zeros((0, 0)) if table is None else table

    def _part(self, fold: Fold, rows: slice) -> Part:
        at = fold.rows[rows]
        novelty = None if self._novelty is None else self._novelty[at]
        return Part(self._questions.at(at.tolist()), fold.types[rows], fold.means[rows], novelty)


def _compute_rows(row: RowFunction, predictor: Predictor, type_quality: Floats, part: Part) -> Arrays:
    rows = [row(features, prediction) for features, prediction in _predict_part(predictor, type_quality, part)]
    return {"rows": np.array(rows, dtype=np.float64)}


def _predict_part(predictor: Predictor, type_quality: Floats, part: Part) -> Iterator[tuple[Features, Prediction]]:
    for row, features in enumerate(part.questions):
        row_predictor, at = predictor, int(part.types[row])
        if at >= 0:
            quality = type_quality.copy()
            quality[at] = part.means[row]
            row_predictor = replace(predictor, type_quality=quality)
        prediction = predict(row_predictor, features)
        if part.novelty is not None:
            prediction = structs.replace(prediction, novelty=float(part.novelty[row]))
        yield features, prediction


def compute_table(features: Sequence[Features], predictions: Sequence[Prediction], row: RowFunction) -> Floats:
    """A row of numbers for each question (n, k). Lazy predictions compute it with their own workers."""
    if isinstance(predictions, Predictions):
        return predictions.compute_table(row)
    return np.array([row(f, p) for f, p in zip(features, predictions, strict=True)], dtype=np.float64)
