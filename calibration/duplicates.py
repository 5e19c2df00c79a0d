"""Which questions are near-duplicates of each other: they must stand on the same side of every split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

from router.policy.features import words

COSINE_LIMIT = 0.75  # above this, two questions differ in a name or a number only


def near_duplicate_groups(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """A group number for each text, equal where a chain of near-duplicates joins two texts. Shape (n,)."""
    if len(texts) < 2:
        return np.zeros(len(texts), dtype=np.int64)
    # words of more than a fifth of the texts are those of a template; they say nothing of likeness
    vectorizer = TfidfVectorizer(analyzer=words, max_df=max(0.2, 2 / len(texts)))
    try:
        vectors = vectorizer.fit_transform(texts)
    except ValueError:  # no word is left: nothing can be told apart, so nothing is joined
        return np.arange(len(texts))
    likeness = vectors @ vectors.T
    likeness.data[likeness.data < COSINE_LIMIT] = 0
    likeness.eliminate_zeros()
    return connected_components(likeness, directed=False)[1].astype(np.int64)
