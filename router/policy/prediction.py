"""Features and learnt weights become a prediction: what each model would be worth here, and what it would write.

The weights are those of the scikit-learn pipeline of `calibration/learning.py`, folded into one table: a row for every
known term, a column for every head. A prediction sums the rows of the terms that occur and adds the hand features.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import numpy.typing as npt

from router.policy.features import Features
from router.policy.inputs import numbers, terms, turn_text

Floats = npt.NDArray[np.float64]

NUMBER_LIMIT = 4.0  # standard deviations beyond which a hand feature says no more
TURN_DECAY = 0.9  # how much of an earlier turn's gap is left with each turn after it
CONTINUATION_WORDS = 4  # a turn of at most so many words after another is about that other one
MAX_OUTPUT_TOKENS = 16_384
_LOG_MAX = math.log(MAX_OUTPUT_TOKENS)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of each model on one request, before any policy is applied."""

    quality: Mapping[str, float]  # chance that the model's answer is right, in [0, 1]
    output_tokens: Mapping[str, float]  # expected length of each model's answer
    question_type: str
    type_probabilities: Mapping[str, float]  # of every type; they sum to 1
    novelty: float  # share of familiar calibration questions that look less unusual, in [0, 1]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Predictor:
    """Learnt weights. V terms, N hand features, M models from cheap to strong, T question types.

    The columns of `table`, `number_weights` and `intercept` are, in this order: what each model's quality is above the
    mean of the type (M), what the log of its answer's length is above the mean of the type (M), each type's score (T).
    """

    models: tuple[str, ...]
    types: tuple[str, ...]
    vocabulary: Mapping[str, int]
    idf: Floats  # (V,)
    unknown_idf: float  # of a term that is not in the vocabulary
    table: npt.NDArray[np.float32]  # (V, 2 M + T)
    centres: npt.NDArray[np.float32]  # (T, V) the mean direction of the questions of each type
    number_centres: Floats  # (T, N) mean of the standardised hand features of each type
    number_precision: Floats  # (T, N) what a squared distance from them adds to unusualness
    number_mean: Floats  # (N,)
    number_scale: Floats  # (N,)
    number_weights: Floats  # (N, 2 M + T)
    intercept: Floats  # (2 M + T,)
    type_slopes: Floats  # (T, 2 M, N) what a hand feature adds to quality and log length, within a type
    type_quality: Floats  # (T, M), shrunken means, or published ones
    type_log_length: Floats  # (T, M) of each model's answers
    type_measured: Floats  # (T,) 1 where the heads learnt from outcomes of the type; elsewhere they say nothing
    length_smearing: Floats  # (M,) mean of exp(residual), which turns a median into a mean
    novelty_quantiles: Floats  # (T, Q) ascending, of the unusualness of familiar questions of each type
    folded: Folded = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folded", Folded.of(self))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Folded:
    """The same weights in few matrices, so that a turn costs few operations."""

    idf: Floats  # (V + 1,) the last is of a term that is not in the vocabulary
    of_numbers: Floats  # (2 M + T + T * 2 M, N) what hand features add to every head, then the slopes of each type
    of_types: Floats  # (T, 2 M + 2) quality, log length, whether measured, and one
    smearing: list[float]  # of each model

    @classmethod
    def of(cls, predictor: Predictor) -> Folded:
        """Fold the weights of `predictor`."""
        slopes = predictor.type_slopes
        types = (predictor.type_quality, predictor.type_log_length, predictor.type_measured[:, None])
        return cls(
            np.append(predictor.idf, predictor.unknown_idf),
            np.ascontiguousarray(np.vstack([predictor.number_weights.T, slopes.reshape(-1, slopes.shape[-1])])),
            np.hstack([*types, np.ones((len(predictor.type_measured), 1))]),
            predictor.length_smearing.tolist(),
        )


@dataclass(frozen=True, slots=True)
class _Turn:
    """The prediction for one turn; a value for each model."""

    quality: list[float]
    output_tokens: list[float]
    type_index: int
    type_probabilities: Floats  # (T,)
    unusualness: float

    @property
    def gap(self) -> float:
        return self.quality[-1] - self.quality[0]


def predict(predictor: Predictor, features: Features) -> Prediction:
    """Predict from a request; of a conversation the turn with the largest gap counts, less with each turn since."""
    asked = [turn for turn in features.turns if turn.strip()]
    turns = [turn for position, turn in enumerate(asked) if position == 0 or len(turn.split()) > CONTINUATION_WORDS]
    best = _predict_turn(predictor, features, turns[-1] if turns else "")
    best_gap = best.gap
    for age, turn in enumerate(reversed(turns[:-1]), 1):
        earlier = _predict_turn(predictor, features, turn)
        gap = earlier.gap * TURN_DECAY**age
        if gap > best_gap:
            best, best_gap = earlier, gap
    quality = dict(zip(predictor.models, best.quality, strict=True))
    if best_gap < best.gap:
        quality[predictor.models[0]] = quality[predictor.models[-1]] - best_gap
    return Prediction(
        quality=quality,
        output_tokens=dict(zip(predictor.models, best.output_tokens, strict=True)),
        question_type=predictor.types[best.type_index],
        type_probabilities=dict(zip(predictor.types, best.type_probabilities.tolist(), strict=True)),
        novelty=_novelty(predictor.novelty_quantiles[best.type_index], best.unusualness),
    )


def _novelty(quantiles: Floats, value: float) -> float:
    return int(quantiles.searchsorted(value)) / len(quantiles)


def _predict_turn(predictor: Predictor, features: Features, turn: str) -> _Turn:
    models, folded = len(predictor.models), predictor.folded
    found = _words(predictor, turn_text(features, turn))
    limited = _limited_numbers(predictor, features, turn)
    by_numbers = folded.of_numbers @ limited
    heads = found.tfidf @ predictor.table.take(found.rows, axis=0) + predictor.intercept
    heads += by_numbers[: len(heads)]
    types = heads[2 * models :]
    type_index = int(types.argmax())
    likely = np.exp(types - types[type_index])  # a softmax but for its sum, by which what comes of it is divided
    *known, measured, total = (likely @ folded.of_types).tolist()
    slopes = likely @ by_numbers[len(heads) :].reshape(len(types), 2 * models)
    beyond = (heads[: 2 * models] + slopes / total).tolist()
    expected = [(k + measured * b) / total for k, b in zip(known, beyond, strict=True)]
    return _Turn(
        quality=[min(max(q, 0.0), 1.0) for q in expected[:models]],
        output_tokens=[
            min(max(math.exp(min(log, _LOG_MAX)) * smearing, 1.0), float(MAX_OUTPUT_TOKENS))
            for log, smearing in zip(expected[models:], folded.smearing, strict=True)
        ],
        type_index=type_index,
        type_probabilities=likely / total,
        unusualness=_distance(predictor, found, limited, type_index),
    )


def word_weights(predictor: Predictor, features: Features, most: int = 8) -> tuple[dict[str, float], dict[str, float]]:
    """The terms of the last turn that weighed most: for its type, and for the gap between strong and cheap model.

    The first are what a term adds to the score of the type above its mean over all types (no unit); the second are
    points of quality, and are none where the type has no outcomes.
    """
    turn = features.turns[-1] if features.turns else ""
    found = _words(predictor, turn_text(features, turn))
    type_index = _predict_turn(predictor, features, turn).type_index
    models, names = len(predictor.models), sorted(predictor.vocabulary, key=predictor.vocabulary.__getitem__)
    rows = predictor.table[found.rows].astype(np.float64) * found.tfidf[:, None]
    of_type = rows[:, 2 * models + type_index] - rows[:, 2 * models :].mean(axis=1)
    of_gap = (rows[:, models - 1] - rows[:, 0]) * predictor.type_measured[type_index]

    def largest(values: Floats) -> dict[str, float]:
        return {names[found.rows[i]]: float(values[i]) for i in np.argsort(-np.abs(values))[:most] if values[i]}

    return largest(of_type), largest(of_gap)


def unusualness(predictor: Predictor, features: Features, turn: str, type_index: int) -> float:
    """How far a turn is from what the questions of a type are like, by words and by hand features, from 0 upwards."""
    found = _words(predictor, turn_text(features, turn))
    return _distance(predictor, found, _limited_numbers(predictor, features, turn), type_index)


def _limited_numbers(predictor: Predictor, features: Features, turn: str) -> Floats:
    scaled = (np.array(numbers(features, turn)) - predictor.number_mean) / predictor.number_scale
    limited: Floats = np.minimum(np.maximum(scaled, -NUMBER_LIMIT), NUMBER_LIMIT)
    return limited


def _distance(predictor: Predictor, found: _Words, limited: Floats, type_index: int) -> float:
    """By words one less the cosine, unknown words as far; by hand features Mahalanobis without correlations."""
    beyond = limited - predictor.number_centres[type_index]
    by_numbers = float(predictor.number_precision[type_index] @ (beyond * beyond))
    return 1.0 - found.known * found.centre_cosine(predictor, type_index) + by_numbers


@dataclass(frozen=True, slots=True)
class _Words:
    """The terms of a text: those that are known, as rows of the table, with their weights."""

    rows: npt.NDArray[np.int64]
    tfidf: Floats  # of unit length
    known: float  # share of the text's length that is known, in [0, 1]

    def centre_cosine(self, predictor: Predictor, type_index: int) -> float:
        return float(self.tfidf @ predictor.centres[type_index].take(self.rows)) if len(self.rows) else 0.0


def _words(predictor: Predictor, text: str) -> _Words:
    counts = Counter(terms(text))
    found = np.fromiter(map(predictor.vocabulary.get, counts, repeat(-1)), np.int64, len(counts))
    weights = 1.0 + np.log(np.fromiter(counts.values(), np.float64, len(counts)))
    weights *= predictor.folded.idf.take(found, mode="wrap")  # -1, the unknown, is the last
    is_known = found >= 0
    tfidf = weights[is_known]
    mass, total = float(tfidf @ tfidf), float(weights @ weights)
    return _Words(found[is_known], tfidf / math.sqrt(mass) if mass else tfidf, math.sqrt(mass / total) if mass else 0.0)
