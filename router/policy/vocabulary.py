"""The terms known to a policy, and the weights of a question's terms (TF-IDF)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat

import msgspec
import numpy as np
import numpy.typing as npt

from router.policy.inputs import terms
from router.policy.question_parts import QuestionParts

Floats = npt.NDArray[np.float64]

MATERIAL_WEIGHT = 0.3  # of the terms of the material, relative to those of the question
MAX_MATERIAL_CHARACTERS = 3_000  # of the material that are read


class Words(msgspec.Struct, frozen=True, gc=False):
    """The rows and weights of a question's known terms."""

    rows: npt.NDArray[np.int64]
    weights: Floats  # a vector of length 1
    known: float  # share of the length of the question's vector that known terms have, in [0, 1]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Vocabulary:
    """V terms with their rows, and their inverse document frequencies."""

    rows: Mapping[str, int]
    idf: Floats  # (V + 1,) the last is for unknown terms

    def weigh(self, parts: QuestionParts) -> Words:
        """The TF-IDF weights of a question and its material."""
        question = self._weigh_text(parts.question)
        if not parts.material:
            return question
        return add_material(question, self._weigh_text(parts.material[:MAX_MATERIAL_CHARACTERS]))

    def _weigh_text(self, text: str) -> Words:
        counts = Counter(terms(text))
        rows = np.fromiter(map(self.rows.get, counts, repeat(-1)), np.int64, len(counts))
        return weigh_counts(rows, np.fromiter(counts.values(), np.float64, len(counts)), self.idf)


def weigh_counts(rows: npt.NDArray[np.int64], counts: Floats, idf: Floats) -> Words:
    """The TF-IDF weights of a text: 1 + log of the count, times idf, normalised (Salton, Buckley 1988).

    `rows` and `counts` (k,) belong to the distinct terms of the text; an unknown term has row -1.
    """
    weights = 1.0 + np.log(counts)
    weights *= idf.take(rows, mode="wrap")  # -1, an unknown term, takes the last
    is_known = rows >= 0
    tfidf = weights[is_known]
    mass, total = float(tfidf @ tfidf), float(weights @ weights)
    if not mass:
        return Words(rows[is_known], tfidf, 0.0)
    return Words(rows[is_known], tfidf / math.sqrt(mass), math.sqrt(mass / total))


def add_material(question: Words, material: Words) -> Words:
    """The words of a question together with those of its material, which count by `MATERIAL_WEIGHT`."""
    rows = np.concatenate([question.rows, material.rows])
    weights = np.concatenate([question.weights, MATERIAL_WEIGHT * material.weights])
    rows, places = np.unique(rows, return_inverse=True)
    weights = np.bincount(places, weights, minlength=len(rows)).astype(np.float64)
    weights /= math.sqrt(float(weights @ weights)) or 1.0
    return Words(rows, weights, question.known)
