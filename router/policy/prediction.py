"""Predicts the quality and the answer length of each model on a request, from learnt weights.

The weights are a table with a row for each known term and a column for each output (head). A prediction sums the rows
of the terms that occur and adds the weighted hand features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from router.policy.conversation import Turn, current_turns
from router.policy.features import CHARACTERS_PER_TOKEN, Features
from router.policy.inputs import IGNORED_WORDS, MAX_NUMBER_CHARACTERS, ToolMatch, hand_features, match_tools
from router.policy.question_parts import QuestionParts
from router.policy.vocabulary import MATERIAL_WEIGHT, MAX_MATERIAL_CHARACTERS, Floats, Vocabulary, Words

try:
    from router.policy.prediction_kernel import PredictionKernel
except ImportError:  # it was not compiled: NumPy computes the same
    PredictionKernel = None  # type: ignore[assignment,misc]
IS_COMPILED = PredictionKernel is not None

NUMBER_LIMIT = 4.0  # standard deviations to which hand features are clipped
MAX_OUTPUT_TOKENS = 16_384
_LOG_MAX = math.log(MAX_OUTPUT_TOKENS)

# The question type, the probability of each type, and for each model its quality, output tokens and doubt; the
# familiarity and the novelty. All as in `Prediction`.
Outputs = tuple[str, dict[str, float], dict[str, float], dict[str, float], dict[str, float], float, float]


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """The prediction for one turn of a request, before any policy is applied."""

    turn: Turn
    question_tokens: int  # of the question and of the matching tools, without other text
    question_type: str
    type_probabilities: Mapping[str, float]  # of every type; they sum to 1
    quality: Mapping[str, float]  # probability that the model's answer is right, in [0, 1]
    output_tokens: Mapping[str, float]  # expected length of each model's answer
    doubt: Mapping[str, float]  # standard deviation of the mean gap to the strong model, over the possible types
    familiarity: float  # certainty of the type, weighted by the share of known words; 0 is usual
    novelty: float  # share of calibration questions that are more familiar, in [0, 1]
    tools_matching: int = 0  # number of matching tools
    earlier: tuple[
        Prediction, ...
    ] = ()  # of earlier turns whose models may have the prompt in their cache, oldest first


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Predictor:
    """Learnt weights. V terms, N hand features, M models from cheap to strong, T question types.

    The columns of `table`, `number_weights` and `intercept` are, in this order: each model's quality above the mean of
    the type (M), the log of its answer's length above the mean of the type (M), and each type's score (T).
    """

    models: tuple[str, ...]
    types: tuple[str, ...]
    vocabulary: Vocabulary
    table: npt.NDArray[np.float32]  # (V, 2 M + T)
    number_mean: Floats  # (N,)
    number_scale: Floats  # (N,) infinite for a feature that never varied, which gets no weight
    number_weights: Floats  # (N, 2 M + T)
    intercept: Floats  # (2 M + T,)
    type_slopes: Floats  # (T, 2 M, N) slopes of quality and log length within a type
    type_sharpness: float  # factor from a type's score to the log of its probability
    type_quality: Floats  # (T, M) shrunken or published means
    type_log_length: Floats  # (T, M) of each model's answers
    type_variance: Floats  # (T, M) of the mean gap to the strong model; large for few outcomes
    type_measured: Floats  # (T,) 1 if the heads were learnt from outcomes of the type, else 0
    length_smearing: Floats  # (M,) mean of exp(residual), the factor from median to mean
    type_familiarity: Floats  # (T,) usual value for the questions of a type
    familiarity_quantiles: Floats  # (Q,) ascending, of calibration questions, relative to their type
    type_table: Floats = field(init=False)  # (T, 3 M + 2 + 2 M N) quality, log length, squared gap, measured, 1, slopes
    kernel: PredictionKernel | None = field(init=False, default=None)  # see `compile_predictor`

    def __post_init__(self) -> None:
        squares = (self.type_quality[:, -1:] - self.type_quality) ** 2 + self.type_variance
        columns = (self.type_quality, self.type_log_length, squares, self.type_measured[:, None])
        slopes = self.type_slopes.reshape(len(self.types), -1)
        object.__setattr__(self, "type_table", np.hstack([*columns, np.ones((len(self.types), 1)), slopes]))


def compile_predictor(predictor: Predictor) -> None:
    """Let compiled code compute the outputs, if it was built. Copies of the predictor with other weights do without."""
    rows = predictor.vocabulary.rows
    if not IS_COMPILED or len(rows) != len(predictor.table):  # a term that stands twice has two rows
        return

    def floats(array: Floats) -> Floats:
        return np.ascontiguousarray(array, np.float64)

    kernel = PredictionKernel(
        models=predictor.models,
        types=predictor.types,
        terms=sorted(rows, key=rows.__getitem__),
        ignored=IGNORED_WORDS,
        idf=floats(predictor.vocabulary.idf),
        table=np.ascontiguousarray(predictor.table, np.float32),
        number_mean=floats(predictor.number_mean),
        number_scale=floats(predictor.number_scale),
        number_weights=floats(predictor.number_weights),
        intercept=floats(predictor.intercept),
        type_table=floats(predictor.type_table),
        smearing=floats(predictor.length_smearing),
        type_familiarity=floats(predictor.type_familiarity),
        familiarity_quantiles=floats(predictor.familiarity_quantiles),
        sharpness=predictor.type_sharpness,
        number_limit=NUMBER_LIMIT,
        material_weight=MATERIAL_WEIGHT,
        most_tokens=MAX_OUTPUT_TOKENS,
        number_characters=MAX_NUMBER_CHARACTERS,
    )
    object.__setattr__(predictor, "kernel", kernel)


def predict(predictor: Predictor, features: Features) -> Prediction:
    """Predict for the current turn of a request, and for the earlier turns it depends on."""
    *before, last = current_turns(features)
    earlier = tuple(_predict_turn(predictor, features, turn) for turn in before)
    return _predict_turn(predictor, features, last, earlier)


def _predict_turn(
    predictor: Predictor, features: Features, turn: Turn, earlier: tuple[Prediction, ...] = ()
) -> Prediction:
    parts = turn.parts
    tools = match_tools(parts.question, features.tools)
    if predictor.kernel is None:
        outputs = _compute_outputs(predictor, parts, tools)
    else:
        material = parts.material[:MAX_MATERIAL_CHARACTERS]
        outputs = predictor.kernel.predict(parts.question, material, tools.matching, tools.share)
    characters = len(parts.question) + _tool_characters(features, tools)
    return Prediction(turn, math.ceil(characters / CHARACTERS_PER_TOKEN), *outputs, tools.matching, earlier)


def _compute_outputs(predictor: Predictor, parts: QuestionParts, tools: ToolMatch) -> Outputs:
    """What `PredictionKernel.predict` returns, in NumPy."""
    models = len(predictor.models)
    words, heads, numbers = _compute_heads(predictor, parts, tools)
    types = heads[2 * models :]
    best = int(types.argmax())
    likely = np.exp(predictor.type_sharpness * (types - types[best]))
    expected = likely @ predictor.type_table  # sums over the possible types
    *sums, total = expected[: 3 * models + 2].tolist()
    slopes = expected[3 * models + 2 :].reshape(2 * models, -1)
    offsets = (heads[: 2 * models] + slopes @ numbers / total).tolist()
    means = [value / total for value in sums]
    measured, smearing = means[-1], predictor.length_smearing.tolist()
    quality, output_tokens, doubt = {}, {}, {}
    for at, name in enumerate(predictor.models):
        quality[name] = min(max(means[at] + measured * offsets[at], 0.0), 1.0)
        log_tokens = min(means[models + at] + measured * offsets[models + at], _LOG_MAX)
        output_tokens[name] = min(max(math.exp(log_tokens) * smearing[at], 1.0), float(MAX_OUTPUT_TOKENS))
        gap = means[models - 1] - means[at]
        doubt[name] = math.sqrt(max(means[2 * models + at] - gap * gap, 0.0))
    probabilities = dict(zip(predictor.types, (likely / total).tolist(), strict=True))
    familiarity = float(types[best]) * words.known - float(predictor.type_familiarity[best])
    quantiles = predictor.familiarity_quantiles
    novelty = 1.0 - int(quantiles.searchsorted(familiarity)) / len(quantiles)
    return predictor.types[best], probabilities, quality, output_tokens, doubt, familiarity, novelty


def _compute_heads(predictor: Predictor, parts: QuestionParts, tools: ToolMatch) -> tuple[Words, Floats, Floats]:
    """The words of a question, its heads (2 M + T,), and its standardised hand features (N,)."""
    words = predictor.vocabulary.weigh(parts)
    standardised = standardise(np.array(hand_features(parts, tools)), predictor.number_mean, predictor.number_scale)
    heads = words.weights @ predictor.table.take(words.rows, axis=0) + predictor.intercept
    heads += standardised @ predictor.number_weights
    return words, heads, standardised


def _tool_characters(features: Features, tools: ToolMatch) -> float:
    return features.tool_characters * tools.matching / len(features.tools) if tools.matching else 0.0


def standardise(features: Floats, mean: Floats, scale: Floats) -> Floats:
    """Hand features (..., N) in standard deviations from their mean, clipped."""
    return np.asarray(np.minimum(np.maximum((features - mean) / scale, -NUMBER_LIMIT), NUMBER_LIMIT))


def word_weights(predictor: Predictor, features: Features, most: int = 8) -> tuple[dict[str, float], dict[str, float]]:
    """The terms with the largest weights: for the question type, and for the gap between strong and cheap model.

    The first are the term's addition to the score of the type above its mean over all types (no unit). The second are
    differences in quality; empty if the type has no outcomes.
    """
    parts = current_turns(features)[-1].parts
    words, heads, _ = _compute_heads(predictor, parts, match_tools(parts.question, features.tools))
    models = len(predictor.models)
    best = int(heads[2 * models :].argmax())
    names = sorted(predictor.vocabulary.rows, key=predictor.vocabulary.rows.__getitem__)
    rows = predictor.table[words.rows].astype(np.float64) * words.weights[:, None]
    type_weights = rows[:, 2 * models + best] - rows[:, 2 * models :].mean(axis=1)
    gap_weights = (rows[:, models - 1] - rows[:, 0]) * predictor.type_measured[best]

    def largest(values: Floats) -> dict[str, float]:
        return {names[words.rows[i]]: float(values[i]) for i in np.argsort(-np.abs(values))[:most] if values[i]}

    return largest(type_weights), largest(gap_weights)
