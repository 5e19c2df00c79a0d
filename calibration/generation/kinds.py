"""The types of computed questions, and the rows of each from a seed.

The same seed, number and types give the same rows; another seed gives questions that no model has seen. A longer run
begins with the rows of a shorter one, type by type. The rows have the form that `calibration/questions/questions.py`
reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from calibration.generation import (
    archives,
    arithmetic,
    calls,
    competition,
    conversations,
    dates,
    passages,
    plans,
    puzzles,
    queries,
    tables,
    tracing,
    word_problems,
    wording,
)
from calibration.generation.draft import Maker

MAX_DRAWS = 200  # of one question whose text came up before

KINDS: dict[str, tuple[Maker, ...]] = {
    **arithmetic.KINDS,
    **dates.KINDS,
    **word_problems.KINDS,
    **competition.KINDS,
    **tracing.KINDS,
    **queries.KINDS,
    **puzzles.KINDS,
    **plans.KINDS,
    **wording.KINDS,
    **passages.KINDS,
    **tables.KINDS,
    **archives.KINDS,
    **conversations.KINDS,
    **calls.KINDS,
}


class GenerationError(ValueError):
    """There are no further different questions of a kind."""


def rows(seed: int, per_type: int, types: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a seed, type by type; of all types where none is named.

    Raises:
        GenerationError: a type has fewer different questions.
    """
    for question_type in types or KINDS:
        seen: set[str] = set()
        for number in range(per_type):
            yield _row(seed, question_type, number, seen)


def _row(seed: int, question_type: str, number: int, seen: set[str]) -> dict[str, Any]:
    """One row. Each has chance of its own, so that it does not depend on how many are written."""
    makers = KINDS[question_type]
    turn, which = divmod(number, len(makers))
    level = (turn + which) % 3
    for draw in range(MAX_DRAWS):
        rng = Random(f"{seed}/{question_type}/{number}/{draw}")  # noqa: S311  variety, not secrecy
        draft = makers[which](rng, level)
        text = "\n".join([*draft.before, draft.question])
        if text not in seen:
            seen.add(text)
            return draft.row(f"computed/{question_type}/{seed}-{number:03d}", question_type, level)
    raise GenerationError(f"{question_type} has no more than {number} different questions of this kind")
