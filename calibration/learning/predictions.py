"""Predictions of many questions, stored as rows of numbers. A `Prediction` is built from its rows at every access.

A row belongs to a turn, since a prediction includes those of earlier turns that may be in a model's prompt cache. Texts
are not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import overload

import numpy as np

from calibration.learning.corpus import Ints, Questions
from calibration.workers import PART_ROWS, Arrays, Workers
from router.policy.conversation import Turn
from router.policy.decision import NO_QUESTION
from router.policy.features import Features
from router.policy.prediction import Prediction, Predictor, predict
from router.policy.vocabulary import Floats

NUMBERS = 7  # of a row, before those by model and by type
_FAMILIARITY, _NOVELTY = 5, 6  # columns


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


@dataclass(frozen=True, slots=True, eq=False)
class Predictions(Sequence[Prediction]):
    """The predictions of n questions, for M models and T types."""

    models: Sequence[str]
    types: Sequence[str]
    table: Floats  # (turns, NUMBERS + 3 M + T), see `_row`
    first: Ints  # (n,) row of the earliest turn of each question
    last: Ints  # (n,) row of the current turn

    @classmethod
    def join(cls, models: Sequence[str], types: Sequence[str], folds: Iterable[tuple[Ints, Arrays]]) -> Predictions:
        """The predictions of folds: for each, its rows and the results of `predict_fold`."""
        rows, parts = zip(*folds, strict=True)
        order = np.argsort(np.concatenate(rows), kind="stable")
        turns = np.concatenate([part["turns"] for part in parts])
        last = np.cumsum(turns) - 1
        table = np.concatenate([part["table"] for part in parts])
        return cls(models, types, table, (last - turns + 1)[order], last[order])

    @property
    def familiarity(self) -> Floats:
        """The familiarity of each question (n,)."""
        return np.asarray(self.table[self.last, _FAMILIARITY])

    def with_novelty(self, novelty: Floats) -> Predictions:
        """The same predictions with another novelty of each question (n,)."""
        table = self.table.copy()
        table[self.last, _NOVELTY] = novelty
        return replace(self, table=table)

    def __len__(self) -> int:
        return len(self.last)

    @overload
    def __getitem__(self, at: int) -> Prediction: ...

    @overload
    def __getitem__(self, at: slice) -> list[Prediction]: ...

    def __getitem__(self, at: int | slice) -> Prediction | list[Prediction]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        *earlier, current = self.table[self.first[at] : self.last[at] + 1].tolist()
        return self._prediction(current, tuple(map(self._prediction, earlier)))

    def _prediction(self, row: Sequence[float], earlier: tuple[Prediction, ...] = ()) -> Prediction:
        tokens_before, tokens, question_tokens, tools, question_type, familiarity, novelty = row[:NUMBERS]
        quality, output_tokens, doubt = (
            dict(zip(self.models, row[NUMBERS + at * len(self.models) :], strict=False)) for at in range(3)
        )
        return Prediction(
            turn=Turn(NO_QUESTION, int(tokens_before), int(tokens)),
            question_tokens=int(question_tokens),
            quality=quality,
            output_tokens=output_tokens,
            question_type=self.types[int(question_type)],
            type_probabilities=dict(zip(self.types, row[-len(self.types) :], strict=True)),
            doubt=doubt,
            familiarity=familiarity,
            novelty=novelty,
            tools_matching=int(tools),
            earlier=earlier,
        )


def predict_fold(questions: Questions, types: Sequence[str], fold: Fold, workers: Workers) -> Arrays:
    """The rows of a table of predictions (turns, NUMBERS + 3 M + T), and the number of turns of each question (k,)."""
    starts = range(0, len(fold.rows), PART_ROWS)
    parts = [_part(questions, fold, slice(start, start + PART_ROWS)) for start in starts]
    predicted = list(workers.map(partial(_predict_part, fold.predictor, fold.type_quality, tuple(types)), parts))
    return {name: np.concatenate([part[name] for part in predicted]) for name in ("table", "turns")}


def _part(questions: Questions, fold: Fold, rows: slice) -> Part:
    return Part(questions.at(fold.rows[rows].tolist()), fold.types[rows], fold.means[rows])


def _predict_part(predictor: Predictor, type_quality: Floats, types: Sequence[str], part: Part) -> Arrays:
    rows: list[Sequence[float]] = []
    turns = []
    for at, features in enumerate(part.questions):
        prediction = predict(_with_means(predictor, type_quality, int(part.types[at]), part.means[at]), features)
        of_question = [*prediction.earlier, prediction]
        rows += [_row(turn, types) for turn in of_question]
        turns.append(len(of_question))
    return {"table": np.array(rows, dtype=np.float64), "turns": np.array(turns, dtype=np.int32)}


def _with_means(predictor: Predictor, type_quality: Floats, number: int, means: Floats) -> Predictor:
    if number < 0:
        return predictor
    quality = type_quality.copy()
    quality[number] = means
    return replace(predictor, type_quality=quality)


def _row(prediction: Prediction, types: Sequence[str]) -> list[float]:
    turn, probabilities = prediction.turn, prediction.type_probabilities
    return [
        turn.tokens_before,
        turn.tokens,
        prediction.question_tokens,
        prediction.tools_matching,
        types.index(prediction.question_type),
        prediction.familiarity,
        prediction.novelty,
        *prediction.quality.values(),
        *prediction.output_tokens.values(),
        *prediction.doubt.values(),
        *(probabilities.get(name, 0.0) for name in types),
    ]


RowFunction = Callable[[Features, Prediction], Sequence[float]]


def compute_table(features: Iterable[Features], predictions: Iterable[Prediction], row: RowFunction) -> Floats:
    """A row of numbers for each question (n, k)."""
    return np.array([row(f, p) for f, p in zip(features, predictions, strict=True)], dtype=np.float64)
