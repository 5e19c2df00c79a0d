"""Predicts from a question and the cheap model's answer how much quality the strong model would add.

A linear function of the answer's hand features, with weights by question type, corrects the gap that was predicted from
the question alone. It takes less than a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.policy.answer_features import FEATURE_NAMES, compute_features
from router.policy.features import Features
from router.policy.logprobs import LOGPROB_NAMES, Logprobs
from router.policy.prediction import Prediction, standardise
from router.policy.vocabulary import Floats

EXTRA_INPUTS = (
    3  # besides the hand features: the predicted quality of the cheap and of the strong model, and a constant 1
)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class AnswerPredictor:
    """Learnt weights. T question types, N features of an answer: by hand, and its log probabilities if used."""

    types: tuple[str, ...]
    number_mean: Floats  # (N,)
    number_scale: Floats  # (N,) infinite where a feature never varied
    weights: Floats  # (T, N + 3)

    @property
    def has_logprobs(self) -> bool:
        """Whether the features include log probabilities."""
        return len(self.number_mean) > len(FEATURE_NAMES)

    def reads_logprobs(self, question_type: str) -> bool:
        """Whether answers of this type are judged by their log probabilities as well."""
        first = len(FEATURE_NAMES)
        weights = self.weights[self.types.index(question_type), first : first + len(LOGPROB_NAMES)]
        return self.has_logprobs and bool(weights.any())

    def correction(self, question_type: str, inputs: Floats) -> Floats:
        """Corrections of the gap (n,) for answers of one type, from their inputs (n, N + 3) or (N + 3,)."""
        return np.asarray(inputs @ self.weights[self.types.index(question_type)])


def answer_inputs(mean: Floats, scale: Floats, numbers: Floats, quality: Floats) -> Floats:
    """Inputs of answers (n, N + 3) from hand features (n, N) and expected quality of cheap and strong model (n, 2)."""
    return np.hstack([standardise(numbers, mean, scale), quality, np.ones((len(numbers), 1))])


def question_text(features: Features) -> str:
    """The text of a request that its answer is compared with."""
    return features.turns[-1] if features.turns else ""


def features_of_answer(features: Features, prediction: Prediction, answer: str) -> list[float]:
    """The hand features of an answer of the cheap model, for calibration and proxy alike."""
    cheap = next(iter(prediction.output_tokens))
    return compute_features(question_text(features), answer, prediction.output_tokens[cheap], features.tools)


def answer_gap(
    predictor: AnswerPredictor,
    features: Features,
    prediction: Prediction,
    answer: str,
    logprobs: Logprobs | None = None,
) -> float:
    """The quality that the strong model is expected to add, in [-1, 1], given the cheap model's answer.

    `answer` is the complete text, or tool calls as a JSON list of {"name", "arguments"}.
    """
    cheap, *_, strong = prediction.quality.values()
    numbers = features_of_answer(features, prediction, answer)
    if predictor.has_logprobs:
        numbers += logprobs or predictor.number_mean[len(FEATURE_NAMES) :].tolist()
    quality = np.array([[cheap, strong]])
    inputs = answer_inputs(predictor.number_mean, predictor.number_scale, np.array([numbers]), quality)
    correction = float(predictor.correction(prediction.question_type, inputs[0]))
    return min(max(strong - cheap + correction, -1.0), 1.0)
