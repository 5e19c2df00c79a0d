"""The terms that a policy knows, and a question as weights of them (TF-IDF)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

from router.policy.inputs import terms
from router.policy.question_parts import QuestionParts

Floats = npt.NDArray[np.float64]

MATERIAL_WEIGHT = 0.3  # of the words of the material, where those of the question weigh 1
MAX_MATERIAL_CHARACTERS = 3_000  # whose words are read


@dataclass(frozen=True, slots=True)
class Words:
    """A question as the rows of its known terms, with their weights."""

    rows: npt.NDArray[np.int64]
    weights: Floats  # of unit length
    known: float  # share of the question's length that is known, in [0, 1]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Vocabulary:
    """V terms with their row numbers, and how rare each is."""

    rows: Mapping[str, int]
    idf: Floats  # (V + 1,) the last is of a term that is not known

    def words(self, asked: QuestionParts) -> Words:
        """The TF-IDF weights of a question: 1 + log of the count, times idf, of unit length (Salton, Buckley 1988)."""
        rows, weights, known = self._of(asked.question)
        if asked.material:
            more_rows, more, _ = self._of(asked.material[:MAX_MATERIAL_CHARACTERS])
            rows = np.concatenate([rows, more_rows])
            weights = np.concatenate([weights, MATERIAL_WEIGHT * more])
            rows, places = np.unique(rows, return_inverse=True)
            weights = np.bincount(places, weights, minlength=len(rows)).astype(np.float64)
            weights /= math.sqrt(float(weights @ weights)) or 1.0
        return Words(rows, weights, known)

    def _of(self, text: str) -> tuple[npt.NDArray[np.int64], Floats, float]:
        counts = Counter(terms(text))
        found = np.fromiter(map(self.rows.get, counts, repeat(-1)), np.int64, len(counts))
        weights = 1.0 + np.log(np.fromiter(counts.values(), np.float64, len(counts)))
        weights *= self.idf.take(found, mode="wrap")  # -1, the unknown, is the last
        is_known = found >= 0
        tfidf = weights[is_known]
        mass, total = float(tfidf @ tfidf), float(weights @ weights)
        if not mass:
            return found[is_known], tfidf, 0.0
        return found[is_known], tfidf / math.sqrt(mass), math.sqrt(mass / total)
