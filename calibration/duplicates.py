"""Which questions are near-duplicates of each other: they must stand on the same side of every split."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

COSINE_LIMIT = 0.75  # above this, two questions differ in a few words or numbers only
TEMPLATE_SHARE = 0.03  # words of more texts than this are those of a template; they say nothing of likeness
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")  # numbers as they are: the same sum with others is another question


def near_duplicate_groups(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """A group number for each text, equal where a chain of near-duplicates joins two texts. Shape (n,)."""
    if len(texts) < 2:
        return np.zeros(len(texts), dtype=np.int64)
    vectorizer = TfidfVectorizer(analyzer=_words, max_df=max(TEMPLATE_SHARE, 2 / len(texts)))
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError:  # no word is left: nothing can be told apart, so nothing is joined
        return np.arange(len(texts))
    likeness = vectors @ vectors.T
    likeness.data[likeness.data < COSINE_LIMIT] = 0
    likeness.eliminate_zeros()
    return connected_components(likeness, directed=False)[1].astype(np.int64)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
