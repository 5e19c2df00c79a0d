"""Questions as bytes, and what is counted in them: which terms each has, and its hand features.

A question is kept as its chat body and read when it is needed, so that of a million questions only bytes and numbers
are held. Terms are counted by their hashes: only those that enough questions use are ever held as words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import overload

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from calibration.workers import PART_ROWS, Arrays, Workers
from router.policy.asking import Asked
from router.policy.conversation import turns_of
from router.policy.features import Features, encode_question, read_body
from router.policy.inputs import match_tools, numbers, terms
from router.policy.vocabulary import Floats

MIN_TERM_QUESTIONS = 2  # a term that fewer questions use is not learnt
MIN_TERM_QUESTIONS_OF_MANY = 3  # the same from MANY questions on
MANY = 600
_MERGED_AT_ONCE = 1_000_000  # hashes that wait until they are counted together

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and its hand features."""

    asked: Asked
    counted: Sequence[float]  # in the order of `NUMBER_NAMES`


def question_of(features: Features) -> Question:
    """The question of a request, read as the proxy reads it."""
    asked = turns_of(features)[-1].asked
    return Question(asked, numbers(asked, match_tools(asked.question, features.tools)))


class Questions(Sequence[Features]):
    """Questions as the proxy sees them, read from their chat bodies each time."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self._bodies = bodies

    def __len__(self) -> int:
        return len(self._bodies)

    @overload
    def __getitem__(self, at: int) -> Features: ...

    @overload
    def __getitem__(self, at: slice) -> Questions: ...

    def __getitem__(self, at: int | slice) -> Features | Questions:
        return Questions(self._bodies[at]) if isinstance(at, slice) else read_body(self._bodies[at])

    def __iter__(self) -> Iterator[Features]:
        return map(read_body, self._bodies)

    def at(self, rows: Iterable[int]) -> Questions:
        """The questions of these rows."""
        return Questions([self._bodies[row] for row in rows])

    def parts(self) -> list[Questions]:
        """All of them in parts of `PART_ROWS`."""
        return [self[start : start + PART_ROWS] for start in range(0, len(self), PART_ROWS)]

    @property
    def bodies(self) -> Sequence[bytes]:
        """The chat bodies."""
        return self._bodies


def encoded(questions: Iterable[tuple[Sequence, Sequence | None]]) -> Questions:  # type: ignore[type-arg]
    """Questions given as messages and tools."""
    return Questions([encode_question(messages, tools) for messages, tools in questions])


@dataclass(frozen=True, slots=True)
class Corpus:
    """Questions with what is counted in them: n questions, G terms, N hand features."""

    questions: Questions
    terms: Sequence[str]  # ascending; those that are used often enough to be learnt from some part of the questions
    uses: sp.csr_matrix  # (n, G) 1 where a question has the term
    counted: Floats  # (n, N)

    def at(self, rows: Ints) -> Corpus:
        """The questions of these rows."""
        return Corpus(self.questions.at(rows), self.terms, self.uses[rows], self.counted[rows])


def least_uses(questions: int) -> int:
    """How many questions use a term at least that is learnt from so many."""
    return MIN_TERM_QUESTIONS_OF_MANY if questions >= MANY else MIN_TERM_QUESTIONS


def read_corpus(questions: Questions, workers: Workers) -> Corpus:
    """Count the terms of questions."""
    parts = questions.parts()
    known = _known_terms(workers.map(_term_counts, parts), least_uses(len(questions) // 2))
    read = list(workers.map(partial(_read, known), parts))
    words: dict[int, str] = {}
    for each in read:
        words.update(zip(each["numbers"].tolist(), each["words"].tobytes().decode().split("\n"), strict=False))
    names = [words[number] for number in range(len(known))]
    order = sorted(range(len(known)), key=names.__getitem__)
    column = np.empty(len(known), dtype=np.int32)
    column[order] = np.arange(len(known), dtype=np.int32)
    columns = column[np.concatenate([each["columns"] for each in read])]
    ends = np.cumsum([0, *np.concatenate([each["counts"] for each in read]).tolist()])
    uses = sp.csr_matrix((np.ones(len(columns), dtype=np.int8), columns, ends), shape=(len(questions), len(known)))
    return Corpus(questions, [names[number] for number in order], uses, np.concatenate([e["counted"] for e in read]))


def _known_terms(parts: Iterable[Arrays], least: int) -> Hashes:
    """The hashes, ascending, of terms that `least` questions use or more."""
    hashes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    waiting: list[Arrays] = []
    for each in parts:
        waiting.append(each)
        if sum(len(part["hashes"]) for part in waiting) > max(len(hashes), _MERGED_AT_ONCE):
            hashes, counts = _merged([{"hashes": hashes, "counts": counts}, *waiting])
            waiting = []
    hashes, counts = _merged([{"hashes": hashes, "counts": counts}, *waiting])
    return hashes[counts >= least]


def _merged(parts: Sequence[Arrays]) -> tuple[Hashes, Ints]:
    hashes, places = np.unique(np.concatenate([part["hashes"] for part in parts]), return_inverse=True)
    counts = np.concatenate([part["counts"] for part in parts])
    return hashes, np.bincount(places, counts, minlength=len(hashes)).astype(np.int64)


def _term_counts(questions: Questions) -> Arrays:
    """How many of the questions use each term."""
    found = [np.fromiter(map(_hash, _terms(features)), np.uint64) for features in questions]
    hashes, counts = np.unique(np.concatenate(found), return_counts=True)
    return {"hashes": hashes, "counts": counts}


def _read(known: Hashes, questions: Questions) -> Arrays:
    """The known terms of the questions, by their number in `known`, and the hand features."""
    columns: list[npt.NDArray[np.int32]] = []
    counted: list[Sequence[float]] = []
    words: dict[int, str] = {}
    for features in questions:
        question = question_of(features)
        its = sorted(set(terms(question.asked.question)))
        hashes = np.fromiter(map(_hash, its), np.uint64, len(its))
        places = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
        is_known = known[places] == hashes if len(known) else np.zeros(len(its), dtype=bool)
        columns.append(places[is_known].astype(np.int32))
        words.update((place, its[i]) for i, place in zip(np.flatnonzero(is_known), columns[-1].tolist(), strict=True))
        counted.append(question.counted)
    return {
        "columns": np.concatenate(columns),
        "counts": np.array([len(each) for each in columns]),
        "counted": np.array(counted, dtype=np.float64),
        "numbers": np.fromiter(words, np.int64, len(words)),
        "words": np.frombuffer("\n".join(words.values()).encode(), dtype=np.uint8),
    }


def _terms(features: Features) -> list[str]:
    return sorted(set(terms(turns_of(features)[-1].asked.question)))


def _hash(term: str) -> int:
    """64 bits of a term; of ten million terms, two share a hash with a chance of 3 in a million."""
    return int.from_bytes(hashlib.blake2b(term.encode(errors="surrogatepass"), digest_size=8).digest())
