"""What is asked and learnt weights become a prediction: what each model would be worth here, and what it would write.

The weights are a table: a row for every known term, a column for every head. A prediction sums the rows of the terms
that occur and adds the hand features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from router.policy.conversation import Turn, current_turns
from router.policy.features import CHARACTERS_PER_TOKEN, Features
from router.policy.inputs import Tools, match_tools, numbers
from router.policy.question_parts import QuestionParts
from router.policy.vocabulary import Floats, Vocabulary, Words

NUMBER_LIMIT = 4.0  # standard deviations beyond which a hand feature says no more
MAX_OUTPUT_TOKENS = 16_384
_LOG_MAX = math.log(MAX_OUTPUT_TOKENS)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of each model on one request, before any policy is applied."""

    turn: Turn  # what is asked
    question_tokens: int  # of what is asked and of the tools that fit it, without what else is sent along
    quality: Mapping[str, float]  # chance that the model's answer is right, in [0, 1]
    output_tokens: Mapping[str, float]  # expected length of each model's answer
    question_type: str
    type_probabilities: Mapping[str, float]  # of every type; they sum to 1
    doubt: Mapping[str, float]  # standard deviation of the mean gap to the strong model, over what types it may be of
    familiarity: float  # how surely the question is of its type, as far as its words are known; 0 is usual
    novelty: float  # share of familiar calibration questions that look less unusual, in [0, 1]
    tools_matching: int = 0  # of the tools that are offered
    earlier: tuple[Prediction, ...] = ()  # of the turns whose model this one may share a cache with, the oldest first


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Predictor:
    """Learnt weights. V terms, N hand features, M models from cheap to strong, T question types.

    The columns of `table`, `number_weights` and `intercept` are, in this order: what each model's quality is above the
    mean of the type (M), what the log of its answer's length is above the mean of the type (M), each type's score (T).
    """

    models: tuple[str, ...]
    types: tuple[str, ...]
    vocabulary: Vocabulary
    table: npt.NDArray[np.float32]  # (V, 2 M + T)
    number_mean: Floats  # (N,)
    number_scale: Floats  # (N,) infinite where a feature never varied: it has no weight
    number_weights: Floats  # (N, 2 M + T)
    intercept: Floats  # (2 M + T,)
    type_slopes: Floats  # (T, 2 M, N) what a hand feature adds to quality and log length, within a type
    type_sharpness: float  # by which a type's score becomes the log of its probability
    type_quality: Floats  # (T, M), shrunken means, or published ones
    type_log_length: Floats  # (T, M) of each model's answers
    type_variance: (
        Floats  # (T, M) of what is known of each model's mean gap to the strong one: few outcomes tell little
    )
    type_measured: Floats  # (T,) 1 where the heads learnt from outcomes of the type; elsewhere they say nothing
    length_smearing: Floats  # (M,) mean of exp(residual), which turns a median into a mean
    type_familiarity: Floats  # (T,) what is usual of the questions that are taken for a type
    familiarity_quantiles: Floats  # (Q,) ascending, of familiar questions, above what is usual of their type
    of_types: Floats = field(init=False)  # (T, 3 M + 2) quality, log length, square of the gap, whether measured, one

    def __post_init__(self) -> None:
        squares = (self.type_quality[:, -1:] - self.type_quality) ** 2 + self.type_variance
        known = (self.type_quality, self.type_log_length, squares, self.type_measured[:, None])
        object.__setattr__(self, "of_types", np.hstack([*known, np.ones((len(self.types), 1))]))


def predict(predictor: Predictor, features: Features) -> Prediction:
    """Predict from a request."""
    *before, last = current_turns(features)
    earlier = tuple(_predict_turn(predictor, features, turn) for turn in before)
    return _predict_turn(predictor, features, last, earlier)


def _predict_turn(
    predictor: Predictor, features: Features, turn: Turn, earlier: tuple[Prediction, ...] = ()
) -> Prediction:
    models = len(predictor.models)
    words, tools, heads, by_numbers = _heads(predictor, turn.parts, features)
    types = heads[2 * models :]
    best = int(types.argmax())
    likely = np.exp(predictor.type_sharpness * (types - types[best]))
    *known, total = (likely @ predictor.of_types).tolist()
    of_types = [value / total for value in known]
    beyond = (heads[: 2 * models] + likely @ by_numbers / total).tolist()
    measured = of_types[-1]
    expected = [k + measured * b for k, b in zip(of_types, beyond, strict=False)]
    gaps = [of_types[models - 1] - quality for quality in of_types[:models]]
    squares = of_types[2 * models : 3 * models]
    familiarity = float(types[best]) * words.known - float(predictor.type_familiarity[best])
    quantiles = predictor.familiarity_quantiles
    return Prediction(
        turn=turn,
        question_tokens=math.ceil(
            (len(turn.parts.question) + _tool_characters(features, tools)) / CHARACTERS_PER_TOKEN
        ),
        quality=dict(zip(predictor.models, [min(max(q, 0.0), 1.0) for q in expected[:models]], strict=True)),
        output_tokens={
            name: min(max(math.exp(min(log, _LOG_MAX)) * smearing, 1.0), float(MAX_OUTPUT_TOKENS))
            for name, log, smearing in zip(
                predictor.models, expected[models:], predictor.length_smearing.tolist(), strict=True
            )
        },
        question_type=predictor.types[best],
        type_probabilities=dict(zip(predictor.types, (likely / total).tolist(), strict=True)),
        doubt={
            name: math.sqrt(max(square - gap * gap, 0.0))
            for name, square, gap in zip(predictor.models, squares, gaps, strict=True)
        },
        familiarity=familiarity,
        novelty=1.0 - int(quantiles.searchsorted(familiarity)) / len(quantiles),
        tools_matching=tools.matching,
        earlier=earlier,
    )


def _heads(predictor: Predictor, asked: QuestionParts, features: Features) -> tuple[Words, Tools, Floats, Floats]:
    """The words and the tools of a question, its heads (2 M + T,), and what its hand features add by type (T, 2 M)."""
    words, tools = predictor.vocabulary.words(asked), match_tools(asked.question, features.tools)
    counted = standardised(np.array(numbers(asked, tools)), predictor.number_mean, predictor.number_scale)
    heads = words.weights @ predictor.table.take(words.rows, axis=0) + predictor.intercept
    heads += counted @ predictor.number_weights
    return words, tools, heads, predictor.type_slopes @ counted


def _tool_characters(features: Features, tools: Tools) -> float:
    return features.tool_characters * tools.matching / len(features.tools) if tools.matching else 0.0


def standardised(counted: Floats, mean: Floats, scale: Floats) -> Floats:
    """Hand features (..., N) in standard deviations from their mean, limited."""
    return np.asarray(np.minimum(np.maximum((counted - mean) / scale, -NUMBER_LIMIT), NUMBER_LIMIT))


def word_weights(predictor: Predictor, features: Features, most: int = 8) -> tuple[dict[str, float], dict[str, float]]:
    """The terms of the question that weighed most: for its type, and for the gap between strong and cheap model.

    The first are what a term adds to the score of the type above its mean over all types (no unit); the second are
    points of quality, and are none where the type has no outcomes.
    """
    asked = current_turns(features)[-1].parts
    words, _, heads, _ = _heads(predictor, asked, features)
    models = len(predictor.models)
    best = int(heads[2 * models :].argmax())
    names = sorted(predictor.vocabulary.rows, key=predictor.vocabulary.rows.__getitem__)
    rows = predictor.table[words.rows].astype(np.float64) * words.weights[:, None]
    of_type = rows[:, 2 * models + best] - rows[:, 2 * models :].mean(axis=1)
    of_gap = (rows[:, models - 1] - rows[:, 0]) * predictor.type_measured[best]

    def largest(values: Floats) -> dict[str, float]:
        return {names[words.rows[i]]: float(values[i]) for i in np.argsort(-np.abs(values))[:most] if values[i]}

    return largest(of_type), largest(of_gap)
