"""The inputs of a prediction: the terms of a question, its hand features, and the tools that match it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from router.policy.question_parts import QuestionParts

# `str.count` counts characters many times faster than an expression. Expressions start with a rare character, which the
# engine searches for first.
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
_DECIMALS = re.compile(r"\d\.\d")
_LATEX = re.compile(r"\\[a-zA-Z]+|\$")
_OPTIONS = re.compile(r"(?m)^\(?[A-Ja-j][).:] |\([A-Ja-j]\)")
_OPTION_HINT = re.compile(r"[A-Ja-j][).:]")  # occurs in every option
_OPERATORS = ("+", "*", "/", "=", "<", ">", "^", "%")
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
_CODE = ("{", "}", "(", ")", ";", "[", "]", "_", "::", "->", "=>")
_QUOTES = ('"', "'", "`")
_COUNTED = (
    "numbers",
    "decimals",
    "operators",
    "latex",
    "code",
    "options",
    "questions",
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
    "tool_share",
)

_WORD = re.compile(r"[^\W\d_]+(?:'[a-z]+)?|\d+(?:[.,]\d+)*|[^\w\s]")
_ASCII_WORD = re.compile(
    r"[a-z]+(?:'[a-z]+)?|[0-9]+(?:[.,][0-9]+)*|[^a-z0-9_\s]"
)  # equal to `_WORD` on lower-case ASCII, and faster

_DIGITS = str.maketrans("123456789", "000000000")
MAX_NUMBER_CHARACTERS = 8
IGNORED_WORDS = frozenset(
    ("please", "kindly", "thanks", "thank", "hi", "hello", "hey")
)  # words that carry no information about a question


def words(text: str) -> list[str]:
    """The words of a text in lower case. Digits become zeros, so that 13.11 and 27.45 are equal.

    >>> words("Is 13.11 bigger than 9? Don't guess.")
    ['is', '00.00', 'bigger', 'than', '0', '?', "don't", 'guess', '.']
    """
    lower = text.lower()
    if text.isascii():
        lower = lower.translate(_DIGITS)
        found = _ASCII_WORD.findall(lower)
    else:
        lower = "".join("0" if c.isdigit() else c for c in lower)
        found = _WORD.findall(lower)
    if not IGNORED_WORDS.isdisjoint(found):
        found = [word for word in found if word not in IGNORED_WORDS]
    return [word[:MAX_NUMBER_CHARACTERS] if word[0] == "0" else word for word in found] if "0" in lower else found


def terms(text: str) -> list[str]:
    """The words of a text and its pairs of adjacent words.

    >>> terms("what is it")
    ['what', 'is', 'it', 'what is', 'is it']
    """
    single = words(text)
    return single + [f"{a} {b}" for a, b in itertools.pairwise(single)]


def hand_features(parts: QuestionParts, tools: ToolMatch) -> list[float]:
    """The hand features of a question, in the order of `NUMBER_NAMES`."""
    text = parts.question
    count = len(text.split())
    foreign = 0 if text.isascii() else sum(map(len, _FOREIGN.findall(text)))
    return [
        math.log1p(len(text)),
        math.log1p(count),
        len(text) / (count + 1.0),
        foreign / (len(text) + 1.0),
        *map(math.log1p, _counts(text)),
        math.log1p(tools.matching),
        tools.share,
    ]


def _counts(text: str) -> tuple[int, ...]:
    """The number of occurrences of each of `_COUNTED`."""
    occurrences = text.count
    return (
        len(_NUMBERS.findall(text)),
        len(_DECIMALS.findall(text)) if "." in text else 0,
        sum(map(occurrences, _OPERATORS)),
        len(_LATEX.findall(text)) if "\\" in text or "$" in text else 0,
        sum(map(occurrences, _CODE)),
        len(_OPTIONS.findall(text)) if _OPTION_HINT.search(text) else 0,
        occurrences("?"),
        sum(map(occurrences, _QUOTES)),
        occurrences("\n"),
    )


@dataclass(frozen=True, slots=True)
class ToolMatch:
    """How well the offered tools match a question."""

    matching: int = 0  # number of matching tools
    share: float = 0.0  # of the question's content words that occur in the best matching tool


NO_MATCH = ToolMatch()
_CONTENT = re.compile(r"[^\W\d_]{3,}")
_PARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|[_.]")  # boundaries of words within a name
_STEM = 5  # letters of a word that are compared
_LEAST_TOOL_SHARE = 0.2  # of the content words that a matching tool has; two words suffice in any case
_COMMON = frozenset(
    word[:_STEM]
    for word in [
        "the",
        "and",
        "for",
        "you",
        "can",
        "with",
        "what",
        "which",
        "how",
        "that",
        "this",
        "are",
        "from",
        "have",
        "has",
        "was",
        "were",
        "will",
        "would",
        "could",
        "should",
        "give",
        "get",
        "find",
        "tell",
        "show",
        "use",
        "using",
        "need",
        "want",
        "please",
        "about",
        "into",
        "your",
        "their",
        "when",
        "where",
        "who",
        "does",
        "did",
        "all",
        "any",
        "more",
        "than",
        "then",
        "them",
        "they",
        "current",
        "information",
        "value",
        "name",
        "number",
        "list",
        "based",
        "following",
        "calculate",
    ]
)


def match_tools(question: str, tools: Sequence[str]) -> ToolMatch:
    """Match tools with a question by their common words. Other tools say nothing about the question.

    >>> weather = "get_weather The weather of a city. city"
    >>> match_tools("What is the weather in the city of Oslo?", [weather]).matching
    1
    >>> match_tools("Who wrote Faust?", [weather]).matching
    0
    """
    if not tools:
        return NO_MATCH
    stems = _stems(question)
    if not stems:
        return NO_MATCH
    common = [len(stems & tool_stems(tool)) for tool in tools]
    least = min(2.0, max(1.0, _LEAST_TOOL_SHARE * len(stems)))
    matching = sum(1 for count in common if count >= least)
    return ToolMatch(matching, max(common) / len(stems)) if matching else NO_MATCH


@lru_cache(maxsize=4096)
def tool_stems(tool: str) -> frozenset[str]:
    """The stems of a tool's words, cached because clients send the same tools repeatedly."""
    return _stems(_PARTS.sub(" ", tool))


def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:_STEM] for word in _CONTENT.findall(text.lower())) - _COMMON
