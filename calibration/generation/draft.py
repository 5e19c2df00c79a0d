"""The output of every question maker: a question, its computed reference, and the check that compares answers.

A maker takes a random generator and a level (0 easy, 1 medium, 2 hard) and returns a `Draft`. It computes the reference
or obtains it by running code. No reference is written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

LEVELS = ("easy", "medium", "hard")


@dataclass(frozen=True, slots=True)
class Draft:
    """A question without an id. `before` has the earlier turns, starting with the user's."""

    question: str
    reference: Any
    check: str
    language: str = "en"
    system: str = ""
    before: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    tolerance: float | None = None

    def row(self, identity: str, question_type: str, level: int) -> dict[str, Any]:
        """The draft as a row of `data/questions.jsonl`."""
        row: dict[str, Any] = {
            "id": identity,
            "question_type": question_type,
            "difficulty": LEVELS[level],
            "language": self.language,
            "system": self.system,
        }
        if self.before:
            turns = [*self.before, self.question]
            row["messages"] = [
                {"role": "assistant" if place % 2 else "user", "content": turn} for place, turn in enumerate(turns)
            ]
        else:
            row["question"] = self.question
        if self.tools:
            row["tools"] = list(self.tools)
        whole = isinstance(self.reference, float) and self.reference.is_integer()
        row["reference"] = int(self.reference) if whole else self.reference
        row["check"] = self.check
        if self.tolerance is not None:
            row["tolerance"] = self.tolerance
        return row


Maker = Callable[[Random, int], Draft]

# Instructions for the form of the answer. In real traffic they are in the system prompt or in the question.
_SYSTEM_ENDINGS = (
    "Think it through, then finish with one line: Answer: <{what}>",
    "You are a careful assistant. The last line of every reply is 'Answer: ' and then the {what}, nothing after it.",
    "Be brief. Close with 'Answer: <{what}>'.",
)
_QUESTION_ENDINGS = (
    "Finish with 'Answer: <{what}>'.",
    "Last line should read Answer: <{what}>",
    "Give your final {what} after 'Answer:'.",
    "End with the {what} in the form 'Answer: ...'",
)


def asked(
    rng: Random, question: str, reference: Any, check: str = "number", what: str = "number", **more: Any
) -> Draft:
    """A draft that requests a last line "Answer: ...", in the system prompt or in the question, at random."""
    if rng.random() < 0.5:
        system = rng.choice(_SYSTEM_ENDINGS).format(what=what)
        return Draft(question, reference, check, system=system, **more)
    ending = rng.choice(_QUESTION_ENDINGS).format(what=what)
    return Draft(f"{question}{rng.choice((' ', chr(10), chr(10) * 2))}{ending}", reference, check, **more)


def written_lists(items: Sequence[str]) -> list[str]:
    """The accepted spellings of a list."""
    return list(dict.fromkeys(mark.join(items) for mark in (", ", ",", "\n")))


def listed(items: Sequence[str], last: str = " and ") -> str:
    """Items as prose.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return last.join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else items[0]


PEOPLE = (
    *("Amara", "Bruno", "Chidi", "Dagny", "Emre", "Farah", "Goran", "Hana", "Ivo", "Jolanta", "Kwame", "Leila"),
    *("Mateo", "Nadia", "Oskar", "Priya", "Quentin", "Rosa", "Sven", "Tomoko", "Uma", "Viktor", "Wanda", "Yusuf"),
)
TOWNS = (
    *("Alderby", "Brixholm", "Corvale", "Dunmere", "Eastwick", "Farrow", "Glenhurst", "Hollin", "Ivybridge"),
    *("Jarrow", "Kestrel Bay", "Lowmoor", "Marden", "Northgate", "Oakham", "Penrow"),
)
