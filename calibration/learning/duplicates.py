"""Groups of near-duplicate questions, which must be on the same side of every split.

Near-duplicates are texts whose TF-IDF vectors have a cosine similarity of COSINE_LIMIT or more. Prefix filtering finds
all of them without a comparison of all pairs (Chaudhuri, Ganti and Kaushik 2006, A primitive operator for similarity
joins; Bayardo, Ma and Srikant 2007, Scaling up all pairs similarity search): the prefix of a text has its rarest words,
as many as needed for the vector of the other words to be shorter than the limit. Two unit vectors whose product reaches
the limit share a word of both prefixes.
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

from calibration.workers import IN_PROCESS, PART_ROWS, Arrays, Workers

COSINE_LIMIT = 0.75  # questions with a larger similarity differ in a few words or numbers only
TEMPLATE_SHARE = 0.03  # words in a larger share of texts belong to a template, and are ignored
PAIRS_AT_ONCE = 5_000  # bounds the memory of a comparison
_ROUNDING = 1e-6  # tolerance for rounding errors in the length of a vector
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")  # whole numbers, so that other numbers make another question

Ints = npt.NDArray[np.int64]


def near_duplicate_groups(texts: Sequence[str], workers: Workers = IN_PROCESS) -> Ints:
    """A group number for each text (n,). Texts have the same number if a chain of near-duplicates connects them."""
    n = len(texts)
    if n < 2:
        return np.zeros(n, dtype=np.int64)
    vectorizer = TfidfVectorizer(analyzer=_words, max_df=max(TEMPLATE_SHARE, 2 / n))
    try:
        vectors = sp.csr_matrix(vectorizer.fit_transform(texts))
    except ValueError:  # no word is left, so no text is similar to another
        return np.arange(n)
    prefixes = _prefix_words(vectors)
    parts = [range(start, min(start + PART_ROWS, n)) for start in range(0, n, PART_ROWS)]
    pairs = list(workers.map(partial(_similar_pairs, vectors, prefixes, sp.csr_matrix(prefixes.T)), parts))
    rows, columns = (np.concatenate([part[name] for part in pairs]) for name in ("rows", "columns"))
    similar = sp.csr_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))
    return connected_components(similar, directed=False)[1].astype(np.int64)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _prefix_words(vectors: sp.csr_matrix) -> sp.csr_matrix:
    """1 where a word is in the prefix of a text (n, V)."""
    n, width = vectors.shape
    uses = np.bincount(vectors.indices, minlength=width)
    rank = np.empty(width, dtype=np.int64)
    rank[np.lexsort((np.arange(width), uses))] = np.arange(width)
    row = np.repeat(np.arange(n), np.diff(vectors.indptr))
    order = np.lexsort((-rank[vectors.indices], row))  # by text, the most frequent word first
    squares = vectors.data[order] ** 2
    before = np.concatenate([[0.0], np.cumsum(squares)])
    length = before[1:] - before[vectors.indptr[:-1]][row]  # squared, up to this word
    in_prefix = order[length >= COSINE_LIMIT**2 - _ROUNDING]
    entries = (np.ones(len(in_prefix), dtype=np.int32), (row[in_prefix], vectors.indices[in_prefix]))
    return sp.csr_matrix(entries, shape=vectors.shape)


def _similar_pairs(
    vectors: sp.csr_matrix, prefixes: sp.csr_matrix, texts_by_word: sp.csr_matrix, rows: range
) -> Arrays:
    """The near-duplicates of some texts among the texts after them."""
    shared = (prefixes[rows.start : rows.stop] @ texts_by_word).tocoo()
    first, second = shared.row.astype(np.int64) + rows.start, shared.col.astype(np.int64)
    later = second > first
    first, second = first[later], second[later]
    is_similar = np.zeros(len(first), dtype=bool)
    for start in range(0, len(first), PAIRS_AT_ONCE):
        pairs = slice(start, start + PAIRS_AT_ONCE)
        product = vectors[first[pairs]].multiply(vectors[second[pairs]]).sum(axis=1)
        is_similar[pairs] = np.asarray(product).ravel() >= COSINE_LIMIT
    return {"rows": first[is_similar], "columns": second[is_similar]}
