"""Which questions are near-duplicates of each other: they must stand on the same side of every split.

Two texts are compared only if they share a rare word. Take the rarest words of a text until what is left of its vector,
the commoner words, is shorter than the limit. Two unit vectors whose product reaches the limit share one of the words
taken of both (Chaudhuri, Ganti and Kaushik 2006, A primitive operator for similarity joins; Bayardo, Ma and Srikant
2007, Scaling up all pairs similarity search). So nothing is missed, and most pairs are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

from calibration.workers import HERE, PART_ROWS, Arrays, Workers

COSINE_LIMIT = 0.75  # above this, two questions differ in a few words or numbers only
TEMPLATE_SHARE = 0.03  # words of more texts than this are those of a template; they say nothing of likeness
PAIRS_AT_ONCE = 50_000  # that are compared; bounds the memory that comparing takes
_ROUNDING = 1e-6  # by which what is left of a vector may be longer than it was computed
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")  # numbers as they are: the same sum with others is another question

Ints = npt.NDArray[np.int64]


def near_duplicate_groups(texts: Sequence[str], workers: Workers = HERE) -> Ints:
    """A group number for each text, equal where a chain of near-duplicates joins two texts. Shape (n,)."""
    n = len(texts)
    if n < 2:
        return np.zeros(n, dtype=np.int64)
    vectorizer = TfidfVectorizer(analyzer=_words, max_df=max(TEMPLATE_SHARE, 2 / n))
    try:
        vectors = sp.csr_matrix(vectorizer.fit_transform(texts))
    except ValueError:  # no word is left: nothing can be told apart, so nothing is joined
        return np.arange(n)
    rare = _rarest(vectors)
    parts = [range(start, min(start + PART_ROWS, n)) for start in range(0, n, PART_ROWS)]
    found = list(workers.map(partial(_alike, vectors, rare, sp.csr_matrix(rare.T)), parts))
    rows, columns = (np.concatenate([each[name] for each in found]) for name in ("rows", "columns"))
    joined = sp.csr_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))
    return connected_components(joined, directed=False)[1].astype(np.int64)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _rarest(vectors: sp.csr_matrix) -> sp.csr_matrix:
    """Which words are to be taken of each text, the rarest first, so that those left are shorter than the limit."""
    n, width = vectors.shape
    uses = np.bincount(vectors.indices, minlength=width)
    rank = np.empty(width, dtype=np.int64)
    rank[np.lexsort((np.arange(width), uses))] = np.arange(width)
    row = np.repeat(np.arange(n), np.diff(vectors.indptr))
    order = np.lexsort((-rank[vectors.indices], row))  # by text, the commonest word first
    squares = vectors.data[order] ** 2
    before = np.concatenate([[0.0], np.cumsum(squares)])
    length = before[1:] - before[vectors.indptr[:-1]][row]  # of the vector from its commonest word to this one
    taken = order[length >= COSINE_LIMIT**2 - _ROUNDING]
    shape = (np.ones(len(taken), dtype=np.int32), (row[taken], vectors.indices[taken]))
    return sp.csr_matrix(shape, shape=vectors.shape)


def _alike(vectors: sp.csr_matrix, rare: sp.csr_matrix, with_word: sp.csr_matrix, rows: range) -> Arrays:
    """The near-duplicates of some texts among those that come after each."""
    shared = (rare[rows.start : rows.stop] @ with_word).tocoo()
    first, second = shared.row.astype(np.int64) + rows.start, shared.col.astype(np.int64)
    later = second > first
    first, second = first[later], second[later]
    alike = np.zeros(len(first), dtype=bool)
    for start in range(0, len(first), PAIRS_AT_ONCE):
        pairs = slice(start, start + PAIRS_AT_ONCE)
        product = vectors[first[pairs]].multiply(vectors[second[pairs]]).sum(axis=1)
        alike[pairs] = np.asarray(product).ravel() >= COSINE_LIMIT
    return {"rows": first[alike], "columns": second[alike]}
