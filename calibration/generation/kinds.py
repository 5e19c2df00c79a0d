"""The types of computed questions, and the generation of their rows from a seed.

The same seed, number and types give the same rows. Another seed gives questions that no model has seen in training. For
each type, a larger number gives the rows of a smaller number first. `calibration/questions/questions.py` reads the rows.
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

MAX_DRAWS = 200  # attempts to draw a question with a new text

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
    """A type has no further different questions."""


def rows(seed: int, per_type: int, types: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a seed, type by type; of all types if `types` is empty.

    Raises:
        GenerationError: a type has fewer different questions.
    """
    for question_type in types or KINDS:
        seen: set[str] = set()
        for number in range(per_type):
            yield _row(seed, question_type, number, seen)


def _row(seed: int, question_type: str, number: int, seen: set[str]) -> dict[str, Any]:
    """One row. It has its own random generator, so it does not depend on the number of rows."""
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
