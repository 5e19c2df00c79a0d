"""Questions, with the terms that they contain and their handcrafted features.

A question is stored as the bytes of its chat body and parsed when it is needed, so that a million questions fit into
memory. Terms are counted by their hashes; only frequent terms are stored as text.
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
from router.policy.conversation import current_turns
from router.policy.features import Features, encode_question, read_body
from router.policy.inputs import hand_features, match_tools, terms
from router.policy.question_parts import QuestionParts
from router.policy.vocabulary import Floats

MIN_TERM_QUESTIONS = 2  # questions that contain a term, for the term to be learnt
MIN_TERM_QUESTIONS_OF_LARGE_SET = 3  # the same for LARGE_SET_QUESTIONS or more
LARGE_SET_QUESTIONS = 600
_HASHES_PER_MERGE = 1_000_000

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Question:
    """The parts of a question, and its handcrafted features."""

    asked: QuestionParts
    numbers: Sequence[float]  # handcrafted features in the order of `NUMBER_NAMES`


def question_of(features: Features) -> Question:
    """The question of a request, parsed as the proxy parses it."""
    asked = current_turns(features)[-1].parts
    return Question(asked, hand_features(asked, match_tools(asked.question, features.tools)))


class Questions(Sequence[Features]):
    """A sequence of questions as the proxy sees them, parsed from their chat bodies at every access."""

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
        """The questions in parts of `PART_ROWS`."""
        return [self[start : start + PART_ROWS] for start in range(0, len(self), PART_ROWS)]

    @property
    def bodies(self) -> Sequence[bytes]:
        """The chat bodies, in JSON."""
        return self._bodies


def encode_questions(questions: Iterable[tuple[Sequence, Sequence | None]]) -> Questions:  # type: ignore[type-arg]
    """Questions from their messages and tools."""
    return Questions([encode_question(messages, tools) for messages, tools in questions])


@dataclass(frozen=True, slots=True)
class Corpus:
    """n questions with the G terms that they contain and N handcrafted features."""

    questions: Questions
    terms: Sequence[str]  # ascending; those that are frequent enough to be learnt from a part of the questions
    term_matrix: sp.csr_matrix  # (n, G) 1 where a question contains the term
    numbers: Floats  # (n, N) handcrafted features

    def at(self, rows: Ints) -> Corpus:
        """The questions of these rows."""
        return Corpus(self.questions.at(rows), self.terms, self.term_matrix[rows], self.numbers[rows])


def min_term_questions(questions: int) -> int:
    """The number of questions that must contain a term, for the term to be learnt from `questions` questions."""
    return MIN_TERM_QUESTIONS_OF_LARGE_SET if questions >= LARGE_SET_QUESTIONS else MIN_TERM_QUESTIONS


def read_corpus(questions: Questions, workers: Workers) -> Corpus:
    """Find the frequent terms of questions, and the questions that contain them."""
    parts = questions.parts()
    hashes = _frequent_terms(workers.map(_count_terms, parts), min_term_questions(len(questions) // 2))
    read_parts = list(workers.map(partial(_read_part, hashes), parts))
    texts: dict[int, str] = {}
    for part in read_parts:
        texts.update(zip(part["term_numbers"].tolist(), part["texts"].tobytes().decode().split("\n"), strict=False))
    words = [texts[number] for number in range(len(hashes))]
    order = sorted(range(len(hashes)), key=words.__getitem__)
    column = np.empty(len(hashes), dtype=np.int32)
    column[order] = np.arange(len(hashes), dtype=np.int32)
    columns = column[np.concatenate([part["columns"] for part in read_parts])]
    ends = np.cumsum([0, *np.concatenate([part["counts"] for part in read_parts]).tolist()])
    shape = (len(questions), len(hashes))
    term_matrix = sp.csr_matrix((np.ones(len(columns), dtype=np.int8), columns, ends), shape=shape)
    numbers = np.concatenate([part["numbers"] for part in read_parts])
    return Corpus(questions, [words[number] for number in order], term_matrix, numbers)


def _frequent_terms(parts: Iterable[Arrays], least: int) -> Hashes:
    """The hashes, ascending, of the terms that at least `least` questions contain."""
    hashes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    waiting: list[Arrays] = []
    for part in parts:
        waiting.append(part)
        if sum(len(waiting_part["hashes"]) for waiting_part in waiting) > max(len(hashes), _HASHES_PER_MERGE):
            hashes, counts = _merge_counts([{"hashes": hashes, "counts": counts}, *waiting])
            waiting = []
    hashes, counts = _merge_counts([{"hashes": hashes, "counts": counts}, *waiting])
    return hashes[counts >= least]


def _merge_counts(parts: Sequence[Arrays]) -> tuple[Hashes, Ints]:
    hashes, places = np.unique(np.concatenate([part["hashes"] for part in parts]), return_inverse=True)
    counts = np.concatenate([part["counts"] for part in parts])
    return hashes, np.bincount(places, counts, minlength=len(hashes)).astype(np.int64)


def _count_terms(questions: Questions) -> Arrays:
    """The number of questions that contain each term."""
    hashes_by_question = [np.fromiter(map(_hash, _terms(features)), np.uint64) for features in questions]
    hashes, counts = np.unique(np.concatenate(hashes_by_question), return_counts=True)
    return {"hashes": hashes, "counts": counts}


def _read_part(known: Hashes, questions: Questions) -> Arrays:
    """The known terms of the questions, by their number in `known`, and the handcrafted features."""
    columns: list[npt.NDArray[np.int32]] = []
    rows: list[Sequence[float]] = []
    texts: dict[int, str] = {}
    for features in questions:
        question = question_of(features)
        words = sorted(set(terms(question.asked.question)))
        hashes = np.fromiter(map(_hash, words), np.uint64, len(words))
        places = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
        is_known = known[places] == hashes if len(known) else np.zeros(len(words), dtype=bool)
        columns.append(places[is_known].astype(np.int32))
        texts.update((place, words[i]) for i, place in zip(np.flatnonzero(is_known), columns[-1].tolist(), strict=True))
        rows.append(question.numbers)
    return {
        "columns": np.concatenate(columns),
        "counts": np.array([len(places) for places in columns]),
        "numbers": np.array(rows, dtype=np.float64),
        "term_numbers": np.fromiter(texts, np.int64, len(texts)),
        "texts": np.frombuffer("\n".join(texts.values()).encode(), dtype=np.uint8),
    }


def _terms(features: Features) -> list[str]:
    return sorted(set(terms(current_turns(features)[-1].parts.question)))


def _hash(term: str) -> int:
    """A 64-bit hash. The probability that any two of ten million terms share a hash is 3 in a million."""
    return int.from_bytes(hashlib.blake2b(term.encode(errors="surrogatepass"), digest_size=8).digest())
