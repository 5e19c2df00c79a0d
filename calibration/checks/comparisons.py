"""How an answer and a reference are compared, for each of the exact checks (`checks.py` says what passes)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
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


def _final(answer: str) -> str | None:
    """What stands after the last marker of a final answer; None where there is none, or nothing after it."""
    markers = list(_MARKER.finditer(answer))
    for marker in reversed(markers):
        rest = answer[marker.end() :].strip()
        if rest.strip("*_`$ \n"):
            return rest
    return None


def number(answer: str, reference: Any, tolerance: float = 0.0) -> bool:
    expected = as_number(str(reference))
    final = _final(answer)
    found = None
    if final is not None:
        found = next(iter(_numbers(final)), None)
    if found is None:
        bold = [number for text in _BOLD.findall(answer) for number in _numbers(text)]
        found = next(reversed(bold or _numbers(answer)), None)
    return found is not None and expected is not None and abs(found - expected) <= Fraction(str(tolerance))


def _numbers(text: str) -> list[Fraction]:
    read = (as_number(match.group()) for match in _NUMBER.finditer(text.replace("\\$", "$").replace("\\!", "")))
    return [number for number in read if number is not None]


_LONG_EXPONENT = re.compile(r"[eE][-+]?[\d_]{5}")  # such a power of ten may take minutes and gigabytes to write out


def as_number(text: str) -> Fraction | None:
    plain = re.sub(r"[\s,$€£%+]", "", text).replace("−", "-").replace("–", "-")
    if _LONG_EXPONENT.search(plain):
        return None
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


_LETTER = re.compile(r"(?<![\w'’])([A-J])(?![\w'’])")
_LEADING_LETTER = re.compile(r"[\s*_`(\[{\"']*([A-J])(?:[\s*_`)\]}\"'.:,]|$)")


def choice(answer: str, reference: Any) -> bool:
    final = _final(answer)
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


def exact(answer: str, reference: Any) -> bool:
    right = {_normal(text) for text in (reference if isinstance(reference, list) else [reference])}
    final = _final(answer)
    return _normal(answer) in right or (final is not None and _normal(final.rstrip("}$")) in right)


def _normal(text: str) -> str:
    spaced = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return spaced.strip(" \"'`“”‘’*_").rstrip(".!").strip(" \"'`“”‘’*_")


def contains(answer: str, reference: Any) -> bool:
    text = _loose(answer)
    needed = reference if isinstance(reference, list) else [reference]
    return all(any(_occurs(_loose(t), text) for t in (each if isinstance(each, list) else [each])) for each in needed)


def _loose(text: str) -> str:
    """In one case and spacing, without emphasis, so that `**42** km` holds "42 km"."""
    return re.sub(r"\s+", " ", re.sub(r"[*`]+", "", unicodedata.normalize("NFKC", text).casefold())).strip()


def _occurs(phrase: str, text: str) -> bool:
    # 3.14 does not hold 14 nor 3, and 1,250 does not hold 250: a number goes on over its separators.
    before = r"(?<!\w)(?<!\d[.,])" if phrase[0].isdigit() else r"(?<!\w)" if phrase[0].isalpha() else ""
    after = r"(?!\w)(?![.,]\d)" if phrase[-1].isdigit() else r"(?!\w)" if phrase[-1].isalpha() else ""
    if not phrase.isascii() and not re.search(r"[a-zа-яα-ω]", unicodedata.normalize("NFD", phrase)):
        before = after = ""  # scripts that put no spaces between words
    return re.search(before + re.escape(phrase) + after, text) is not None


_FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)```", re.DOTALL)
_NOTHING = object()


def equal_json(answer: str, reference: Any) -> bool:
    return _equal(_json_value(answer), reference)


def holds_json(answer: str) -> bool:
    """Whether an answer holds one JSON value that could be compared."""
    return _json_value(answer) is not _NOTHING


def _json_value(answer: str) -> Any:
    """The one JSON value an answer holds: whole, in its only fence, or the only object or list in its prose."""
    fences = _FENCE.findall(answer)
    for text in [answer, *fences] if len(fences) <= 1 else [answer]:
        try:
            return decode(text)
        except ValueError:
            continue
    if fences:
        return _NOTHING
    found: list[Any] = []
    position, decoder = 0, JSONDecoder()
    while (start := re.compile(r"[{\[]").search(answer, position)) is not None:
        try:
            value, position = decoder.raw_decode(answer, start.start())
            found.append(value)
        except ValueError:
            position = start.end()
    return found[0] if len(found) == 1 else _NOTHING


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def regex(answer: str, reference: Any) -> bool:
    return re.fullmatch(str(reference), answer.strip()) is not None


def is_call(call: Any) -> bool:
    return (
        isinstance(call, Mapping) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), Mapping)
    )


def as_calls(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def plain_calls(reference: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": call["name"],
            "arguments": {k: _first(v) for k, v in call["arguments"].items() if _first(v) is not None},
        }
        for call in as_calls(reference)
    ]


def _first(value: Any) -> Any:
    return value["any"][0] if is_any(value) else value


def is_any(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and set(value) == {"any"} and isinstance(value["any"], list) and bool(value["any"])
    )


def tool_call(answer: str, reference: Any) -> bool:
    try:
        made = decode(answer)
    except ValueError:
        made = []  # prose: no tool was called
    if not isinstance(made, list) or not all(map(is_call, made)):
        return False
    expected = as_calls(reference)
    if len(made) != len(expected):
        return False
    left = list(made)
    for call in expected:
        match = next((m for m in left if _same_call(m, call)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_call(made: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    arguments, wanted = made["arguments"], expected["arguments"]
    if made["name"] != expected["name"] or not set(arguments) <= set(wanted):
        return False
    return all(_same_value(arguments.get(key), value) for key, value in wanted.items())


def _same_value(made: Any, wanted: Any) -> bool:
    if is_any(wanted):
        return any(_same_value(made, each) for each in wanted["any"])
    if isinstance(made, str) and isinstance(wanted, str):
        return _loose(made) == _loose(wanted)
    if isinstance(made, list) and isinstance(wanted, list):
        return len(made) == len(wanted) and all(map(_same_value, made, wanted))
    if isinstance(made, Mapping) and isinstance(wanted, Mapping):
        return set(made) <= set(wanted) and all(_same_value(made.get(key), value) for key, value in wanted.items())
    return _equal(made, wanted)
