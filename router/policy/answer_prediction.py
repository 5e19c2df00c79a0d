"""An answer of the cheap model, beside its question, becomes a prediction of what the strong model would add.

The gap that is predicted from the question alone is corrected by a linear function of the answer's hand features, whose
weights are each type's own. It is far smaller than the predictor of questions, and costs less than a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.policy.answer_features import answer_numbers
from router.policy.features import Features
from router.policy.prediction import Prediction, standardised
from router.policy.vocabulary import Floats

BESIDE = 3  # inputs beside the hand features: what the question says of the cheap and of the strong model, and one


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class AnswerPredictor:
    """Learnt weights. T question types, N hand features of an answer."""

    types: tuple[str, ...]
    number_mean: Floats  # (N,)
    number_scale: Floats  # (N,) infinite where a feature never varied
    weights: Floats  # (T, N + 3)

    def correction(self, question_type: str, inputs: Floats) -> Floats:
        """What answers of one type add to the gap (n,), from their inputs (n, N + 3) or those of one (N + 3,)."""
        return np.asarray(inputs @ self.weights[self.types.index(question_type)])


def answer_inputs(mean: Floats, scale: Floats, numbers: Floats, quality: Floats) -> Floats:
    """Inputs of answers (n, N + 3) from hand features (n, N) and expected quality of cheap and strong model (n, 2)."""
    return np.hstack([standardised(numbers, mean, scale), quality, np.ones((len(numbers), 1))])


def question_read(features: Features) -> str:
    """The text of a request that its answer is looked at beside."""
    return features.turns[-1] if features.turns else ""


def numbers_of_answer(features: Features, prediction: Prediction, answer: str) -> list[float]:
    """The hand features of an answer of the cheap model; calibration and proxy read them here."""
    cheap = next(iter(prediction.output_tokens))
    return answer_numbers(question_read(features), answer, prediction.output_tokens[cheap], features.tools)


def answer_gap(predictor: AnswerPredictor, features: Features, prediction: Prediction, answer: str) -> float:
    """What the strong model is expected to add in quality, in [-1, 1], now that the cheap model's answer is known.

    `answer` is the whole text, or tool calls as a JSON list of {"name", "arguments"}.
    """
    cheap, *_, strong = prediction.quality.values()
    numbers = np.array([numbers_of_answer(features, prediction, answer)])
    inputs = answer_inputs(predictor.number_mean, predictor.number_scale, numbers, np.array([[cheap, strong]]))
    more = float(predictor.correction(prediction.question_type, inputs[0]))
    return min(max(strong - cheap + more, -1.0), 1.0)
