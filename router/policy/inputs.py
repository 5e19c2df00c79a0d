"""What a prediction is computed from: the words of a question, and what is counted in it beside them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from router.policy.question_parts import QuestionParts

# What is seen in a text beside its words: each is counted; the rest are lengths and shares. Characters are counted by
# `str.count`, many times faster than an expression; expressions start with what is rare, which the engine skips to.
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
_DECIMALS = re.compile(r"\d\.\d")
_LATEX = re.compile(r"\\[a-zA-Z]+|\$")
_OPTIONS = re.compile(r"(?m)^\(?[A-Ja-j][).:] |\([A-Ja-j]\)")
_OPTION_HINT = re.compile(r"[A-Ja-j][).:]")  # what every option has
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
_ASCII_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+(?:[.,][0-9]+)*|[^a-z0-9_\s]")  # the same, and faster

_DIGITS = str.maketrans("123456789", "000000000")
_SHAPE = 8  # characters of a number that are looked at
_COURTESY = frozenset(("please", "kindly", "thanks", "thank", "hi", "hello", "hey"))  # they say nothing of a question


def words(text: str) -> list[str]:
    """The words of a text in lower case; a number becomes its shape, so that 13.11 and 27.45 are alike.

    >>> words("Is 13.11 bigger than 9? Don't guess.")
    ['is', '00.00', 'bigger', 'than', '0', '?', "don't", 'guess', '.']
    """
    lower = text.lower()
    if text.isascii():
        found = _ASCII_WORD.findall(lower.translate(_DIGITS))
    else:
        found = _WORD.findall("".join("0" if c.isdigit() else c for c in lower))
    return [word[:_SHAPE] if word[0] == "0" else word for word in found if word not in _COURTESY]


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words.

    >>> terms("what is it")
    ['what', 'is', 'it', 'what is', 'is it']
    """
    single = words(text)
    return single + [f"{a} {b}" for a, b in itertools.pairwise(single)]


def numbers(asked: QuestionParts, tools: Tools) -> list[float]:
    """The hand features of what is asked, in the order of `NUMBER_NAMES`."""
    text = asked.question
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
        sum(map(occurrences, _QUOTES)),
        occurrences("\n"),
    )


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools that fit what is asked."""

    matching: int = 0
    share: float = 0.0  # of the question's content words, as far as the best tool has them


NO_TOOLS = Tools()
_CONTENT = re.compile(r"[^\W\d_]{3,}")
_PARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|[_.]")  # where a name is written together
_STEM = 5  # letters by which a word is known
_LEAST_TOOL_SHARE = 0.2  # of the content words; a tool with two of them fits in any case
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


def match_tools(question: str, tools: Sequence[str]) -> Tools:
    """Which of the tools have words in common with what is asked; the others are no sign of what it is.

    >>> weather = "get_weather The weather of a city. city"
    >>> match_tools("What is the weather in the city of Oslo?", [weather]).matching
    1
    >>> match_tools("Who wrote Faust?", [weather]).matching
    0
    """
    if not tools:
        return NO_TOOLS
    asked = _stems(question)
    if not asked:
        return NO_TOOLS
    common = [len(asked & tool_stems(tool)) for tool in tools]
    least = min(2.0, max(1.0, _LEAST_TOOL_SHARE * len(asked)))
    matching = sum(1 for count in common if count >= least)
    return Tools(matching, max(common) / len(asked)) if matching else NO_TOOLS


@lru_cache(maxsize=4096)
def tool_stems(tool: str) -> frozenset[str]:
    """The stems of a tool's words; clients send the same tools again and again."""
    return _stems(_PARTS.sub(" ", tool))


def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:_STEM] for word in _CONTENT.findall(text.lower())) - _COMMON
