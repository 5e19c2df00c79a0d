"""Features and learnt weights become a prediction: what each model would be worth on this request, and what it would write.

The weights are those of the scikit-learn pipeline of `calibration/learning.py`, folded into one table: a row for every
known term, a column for every head. A prediction sums the rows of the terms that occur and adds the hand features.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from router.policy.features import Features, numbers, terms

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of each model on one request, before any policy is applied."""

    quality: Mapping[str, float]  # chance that the model's answer is right, in [0, 1]
    output_tokens: Mapping[str, float]  # expected length of each model's answer
    question_type: str
    type_probability: float
    novelty: float  # share of familiar calibration questions that look less unusual, in [0, 1]
