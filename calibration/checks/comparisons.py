"""The comparison of an answer with a reference, for each exact check; `checks.py` documents what passes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from fractions import Fraction
from json import JSONDecoder
from json import loads as decode
from typing import Any

_MARKER = re.compile(r"(?:\banswer\s*(?:is\b|[:=])|\\boxed\s*\{)\s*:?", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.,])[-+−–]?\s?[$€£]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?:\s?/\s?\d+)?"
    r"(?![\w]*\d)(?!\.\d)"
)
_BOLD = re.compile(r"\*\*(.+?)\*\*", re.DOTALL)


def _final_answer(answer: str) -> str | None:
    """The text after the last marker of a final answer; None where there is no marker or no text after it."""
    markers = list(_MARKER.finditer(answer))
    for marker in reversed(markers):
        rest = answer[marker.end() :].strip()
        if rest.strip("*_`$ \n"):
            return rest
    return None


def check_number(answer: str, reference: Any, tolerance: float = 0.0) -> bool:
    expected = parse_number(str(reference))
    final = _final_answer(answer)
    value = None
    if final is not None:
        value = next(iter(_find_numbers(final)), None)
    if value is None:
        bold = [number for text in _BOLD.findall(answer) for number in _find_numbers(text)]
        value = next(reversed(bold or _find_numbers(answer)), None)
    return value is not None and expected is not None and abs(value - expected) <= Fraction(str(tolerance))


def _find_numbers(text: str) -> list[Fraction]:
    read = (parse_number(match.group()) for match in _NUMBER.finditer(text.replace("\\$", "$").replace("\\!", "")))
    return [number for number in read if number is not None]


_LONG_EXPONENT = re.compile(r"[eE][-+]?[\d_]{5}")  # such a power of ten could take minutes and gigabytes to compute


def parse_number(text: str) -> Fraction | None:
    plain = re.sub(r"[\s,$€£%+]", "", text).replace("−", "-").replace("–", "-")
    if _LONG_EXPONENT.search(plain):
        return None
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


_LETTER = re.compile(r"(?<![\w'’])([A-J])(?![\w'’])")
_LEADING_LETTER = re.compile(r"[\s*_`(\[{\"']*([A-J])(?:[\s*_`)\]}\"'.:,]|$)")


def check_choice(answer: str, reference: Any) -> bool:
    final = _final_answer(answer)
    if final is not None:
        first_line = re.sub(r"^(?:option|choice)\s+", "", final.split("\n")[0].strip("*_` "), flags=re.IGNORECASE)
        match = _LEADING_LETTER.match(first_line)
        others = set(re.findall(r"\b(?:or|and)\s+\(?([A-J])\b", first_line))
        return match is not None and {match.group(1)} | others == {reference}
    text = answer.strip()
    if re.match(r"[\s*_`(\[]*[A-J][*_`)\].:,]|[\s*_`(\[]*[A-J]\s*$", text) and not re.match(r"A,? ", text):
        leading = _LEADING_LETTER.match(text)
        others = set(re.findall(r"^[^\n]{0,12}\b(?:or|and)\s+\(?([A-J])\b", text))
        return leading is not None and {leading.group(1)} | others == {reference}
    named = set(re.findall(r"(?:option|choice)\s+\(?([A-J])\b|\(([A-J])\)|\*\*([A-J])[).:*]", answer, re.IGNORECASE))
    letters = {part.upper() for groups in named for part in groups if part}
    return (letters or set(_LETTER.findall(answer))) == {reference}


def check_exact(answer: str, reference: Any) -> bool:
    right = {_normalise(text) for text in (reference if isinstance(reference, list) else [reference])}
    final = _final_answer(answer)
    return _normalise(answer) in right or (final is not None and _normalise(final.rstrip("}$")) in right)


def _normalise(text: str) -> str:
    spaced = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return spaced.strip(" \"'`“”‘’*_").rstrip(".!").strip(" \"'`“”‘’*_")


def check_contains(answer: str, reference: Any) -> bool:
    text = _normalise_loosely(answer)
    needed = reference if isinstance(reference, list) else [reference]
    return all(
        any(_occurs_in(_normalise_loosely(t), text) for t in (phrase if isinstance(phrase, list) else [phrase]))
        for phrase in needed
    )


def _normalise_loosely(text: str) -> str:
    """Normalise case and spacing, and remove emphasis, so that `**42** km` contains "42 km"."""
    return re.sub(r"\s+", " ", re.sub(r"[*`]+", "", unicodedata.normalize("NFKC", text).casefold())).strip()


def _occurs_in(phrase: str, text: str) -> bool:
    # separators are part of a number: 3.14 contains neither 14 nor 3, and 1,250 does not contain 250
    before = r"(?<!\w)(?<!\d[.,])" if phrase[0].isdigit() else r"(?<!\w)" if phrase[0].isalpha() else ""
    after = r"(?!\w)(?![.,]\d)" if phrase[-1].isdigit() else r"(?!\w)" if phrase[-1].isalpha() else ""
    if not phrase.isascii() and not re.search(r"[a-zа-яα-ω]", unicodedata.normalize("NFD", phrase)):
        before = after = ""  # scripts without spaces between words
    return re.search(before + re.escape(phrase) + after, text) is not None


_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.DOTALL)
_NOTHING = object()


def json_equals(answer: str, reference: Any) -> bool:
    return _values_equal(_find_json_value(answer), reference)


def contains_json(answer: str) -> bool:
    """Whether an answer contains one JSON value."""
    return _find_json_value(answer) is not _NOTHING


def _find_json_value(answer: str) -> Any:
    """The JSON value of an answer: the whole text, its only code fence, or the only object or list in its text."""
    fences = _FENCE.findall(answer)
    for text in [answer, *fences] if len(fences) <= 1 else [answer]:
        try:
            return decode(text)
        except ValueError:
            continue
    if fences:
        return _NOTHING
    values: list[Any] = []
    position, decoder = 0, JSONDecoder()
    while (start := re.compile(r"[{\[]").search(answer, position)) is not None:
        try:
            value, position = decoder.raw_decode(answer, start.start())
            values.append(value)
        except ValueError:
            position = start.end()
    return values[0] if len(values) == 1 else _NOTHING


def _values_equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_values_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_values_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def check_regex(answer: str, reference: Any) -> bool:
    return re.fullmatch(str(reference), answer.strip()) is not None


def is_call(call: Any) -> bool:
    return (
        isinstance(call, Mapping) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), Mapping)
    )


def as_call_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def calls_with_first_alternatives(reference: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": call["name"],
            "arguments": {name: v for name, v in _first_alternatives(call["arguments"]) if v is not None},
        }
        for call in as_call_list(reference)
    ]


def _first_alternatives(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value["any"][0] if is_any_of(value) else value) for name, value in arguments.items())


def is_any_of(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and set(value) == {"any"} and isinstance(value["any"], list) and bool(value["any"])
    )


def check_tool_call(answer: str, reference: Any) -> bool:
    try:
        calls = decode(answer)
    except ValueError:
        calls = []  # text without tool calls
    if not isinstance(calls, list) or not all(map(is_call, calls)):
        return False
    expected = as_call_list(reference)
    if len(calls) != len(expected):
        return False
    unmatched = list(calls)
    for call in expected:
        match = next((m for m in unmatched if _call_matches(m, call)), None)
        if match is None:
            return False
        unmatched.remove(match)
    return True


def _call_matches(call: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    arguments, expected_arguments = call["arguments"], expected["arguments"]
    if call["name"] != expected["name"] or not set(arguments) <= set(expected_arguments):
        return False
    return all(_value_matches(arguments.get(key), value) for key, value in expected_arguments.items())


def _value_matches(actual: Any, expected: Any) -> bool:
    if is_any_of(expected):
        return any(_value_matches(actual, alternative) for alternative in expected["any"])
    if isinstance(actual, str) and isinstance(expected, str):
        return _normalise_loosely(actual) == _normalise_loosely(expected)
    if isinstance(actual, list) and isinstance(expected, list):
        return len(actual) == len(expected) and all(map(_value_matches, actual, expected))
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        return set(actual) <= set(expected) and all(_value_matches(actual.get(k), v) for k, v in expected.items())
    return _values_equal(actual, expected)
