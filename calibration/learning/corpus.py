"""Questions, with the terms that they contain and their handcrafted features.

A question is stored as the bytes of its chat body and parsed when it is needed, so that a million questions fit into
memory. Terms are counted by their hashes; only frequent terms are stored as text.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
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
from router.policy.vocabulary import MAX_MATERIAL_CHARACTERS, Floats

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
    term_counts: sp.csr_matrix  # (n, G) in each question; a row has the order in which the terms occur
    material_counts: sp.csr_matrix  # (n, G) the same in the material of each question
    has_material: npt.NDArray[np.bool_]  # (n,)
    numbers: Floats  # (n, N) handcrafted features

    def at(self, rows: Ints) -> Corpus:
        """The questions of these rows."""
        return Corpus(
            self.questions.at(rows),
            self.terms,
            self.term_counts[rows],
            self.material_counts[rows],
            self.has_material[rows],
            self.numbers[rows],
        )


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
    return Corpus(
        questions,
        [words[number] for number in order],
        _count_matrix(read_parts, "question", column),
        _count_matrix(read_parts, "material", column),
        np.concatenate([part["has_material"] for part in read_parts]),
        np.concatenate([part["numbers"] for part in read_parts]),
    )


def _count_matrix(parts: Sequence[Arrays], name: str, column: npt.NDArray[np.int32]) -> sp.csr_matrix:
    """The counts of one text of all questions (n, G), from the results of `_read_part`."""
    places, counts, lengths = (
        np.concatenate([part[f"{name}_{array}"] for part in parts]) for array in ("places", "counts", "lengths")
    )
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_matrix((counts, column[places], ends), shape=(len(lengths), len(column)))


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
    """The counts of known terms in each question, by their number in `known`, and the handcrafted features."""
    read = [question_of(features) for features in questions]
    texts: dict[int, str] = {}
    counts = [_known_counts(known, question.asked.question, texts) for question in read]
    material = [_known_counts(known, question.asked.material[:MAX_MATERIAL_CHARACTERS], {}) for question in read]
    return {
        **_joined("question", counts),
        **_joined("material", material),
        "has_material": np.array([bool(question.asked.material) for question in read]),
        "numbers": np.array([question.numbers for question in read], dtype=np.float64),
        "term_numbers": np.fromiter(texts, np.int64, len(texts)),
        "texts": np.frombuffer("\n".join(texts.values()).encode(), dtype=np.uint8),
    }


def _known_counts(known: Hashes, text: str, texts: dict[int, str]) -> Arrays:
    """The counts of the known terms of a text in the order in which they occur. Adds the terms to `texts`."""
    by_term = Counter(terms(text))
    hashes = np.fromiter(map(_hash, by_term), np.uint64, len(by_term))
    places = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
    is_known = known[places] == hashes if len(known) else np.zeros(len(hashes), dtype=bool)
    texts.update(zip(places[is_known].tolist(), itertools.compress(by_term, is_known), strict=True))
    counts = np.fromiter(by_term.values(), np.uint16, len(by_term))  # a text has at most 4,000 characters
    return {"places": places[is_known].astype(np.int32), "counts": counts[is_known]}


def _joined(name: str, counts: Sequence[Arrays]) -> dict[str, np.ndarray]:
    lengths = np.array([len(of_text["places"]) for of_text in counts])
    joined = {f"{name}_{array}": np.concatenate([each[array] for each in counts]) for array in ("places", "counts")}
    return joined | {f"{name}_lengths": lengths}


def _terms(features: Features) -> list[str]:
    return sorted(set(terms(current_turns(features)[-1].parts.question)))


def _hash(term: str) -> int:
    """A 64-bit hash. The probability that any two of ten million terms share a hash is 3 in a million."""
    return int.from_bytes(hashlib.blake2b(term.encode(errors="surrogatepass"), digest_size=8).digest())
