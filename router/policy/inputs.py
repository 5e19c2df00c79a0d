"""What a prediction is computed from: the words of a turn, and what is counted in it beside them."""

from __future__ import annotations

import itertools
import math
import re

from router.policy.features import Features

# What is seen in a text beside its words: each is counted; the rest are lengths and shares. Characters are counted by
# `str.count`, many times faster than an expression; expressions start with what is rare, which the engine skips to.
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
_DECIMALS = re.compile(r"\d\.\d")
_LATEX = re.compile(r"\\[a-zA-Z]+|\$")
_OPTIONS = re.compile(r"(?m)^\s*\(?[A-J][).:]\s|\([A-J]\)")
_OPTION_HINT = re.compile(r"[A-J][).:]")  # what every option has
_CAPITALISED = re.compile(r"[A-Z](?<=\b[A-Z])(?<![.!?]\s[A-Z])(?<!^[A-Z])[a-z]+")  # not at a sentence's start
_OPERATORS = ("+", "*", "/", "=", "<", ">", "^", "%")
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_CODE = ("{", "}", "(", ")", ";", "[", "]", "_", "::", "->", "=>")
_QUOTES = ('"', "'", "`")
_CURLY_QUOTES = ("“", "”")
_COUNTED = (
    "numbers",
    "decimals",
    "operators",
    "latex",
    "code",
    "options",
    "questions",
    "capitalised",
    "quoted",
    "lines",
)
NUMBER_NAMES: tuple[str, ...] = (
    "log_characters",
    "log_words",
    "word_length",
    "foreign_share",
    *(f"log_{name}" for name in _COUNTED),
    "tools",
    "log_tool_characters",
    "images",
    "structured_output",
    "has_system",
    "log_system_characters",
)

_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?|\d+(?:[.,]\d+)*|[^\w\s]")
_ASCII_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+(?:[.,][0-9]+)*|[^a-z0-9_\s]")  # the same, and faster


def words(text: str) -> list[str]:
    """The words of a text in lower case; a number becomes its shape, so that 13.11 and 27.45 are alike.

    >>> words("Is 13.11 bigger than 9? Don't guess.")
    ['is', '00.00', 'bigger', 'than', '0', '?', "don't", 'guess', '.']
    """
    found = (_ASCII_WORD if text.isascii() else _WORD).findall(text.lower())
    return [_shape(word) if word[0].isdigit() else word for word in found]


def _shape(number: str) -> str:
    shown = number[:8]
    return "0" * len(shown) if shown.isdigit() else "".join("0" if c.isdigit() else c for c in shown)


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words.

    >>> terms("what is it")
    ['what', 'is', 'it', 'what is', 'is it']
    """
    single = words(text)
    return single + [f"{a} {b}" for a, b in itertools.pairwise(single)]


def numbers(features: Features, turn: str) -> list[float]:
    """The hand features of one user turn in its request, in the order of `NUMBER_NAMES`."""
    count = len(turn.split())
    foreign = 0 if turn.isascii() else sum(map(len, _FOREIGN.findall(turn)))
    return [
        math.log1p(len(turn)),
        math.log1p(count),
        len(turn) / (count + 1.0),
        foreign / (len(turn) + 1.0),
        *map(math.log1p, _counts(turn)),
        float(len(features.tool_names)),
        math.log1p(features.tool_characters),
        float(len(features.images)),
        float(features.structured_output),
        float(bool(features.system)),
        math.log1p(len(features.system)),
    ]


def _counts(turn: str) -> tuple[int, ...]:
    """How often each of `_COUNTED` is in a turn."""
    occurrences = turn.count
    return (
        len(_NUMBERS.findall(turn)),
        len(_DECIMALS.findall(turn)) if "." in turn else 0,
        sum(map(occurrences, _OPERATORS)),
        len(_LATEX.findall(turn)) if "\\" in turn or "$" in turn else 0,
        sum(map(occurrences, _CODE)),
        len(_OPTIONS.findall(turn)) if _OPTION_HINT.search(turn) else 0,
        occurrences("?"),
        len(_CAPITALISED.findall(turn)),
        sum(map(occurrences, _QUOTES)) + (0 if turn.isascii() else sum(map(occurrences, _CURLY_QUOTES))),
        occurrences("\n"),
    )


def turn_text(features: Features, turn: str) -> str:
    """What the words of a turn are taken from: what the user said, and the names of the tools that are offered."""
    return f"{turn}\n{' '.join(features.tool_names)}" if features.tool_names else turn
