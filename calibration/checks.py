"""Exact checks: an answer against its reference, without a judge.

| check | reference | an answer passes where |
|---|---|---|
| `number` | a number, or a text such as "3/4" | its number equals the reference (within the row's `tolerance`, 0 unless given) |
| `choice` | one letter, A to J | it names that option and no other |
| `exact` | a text, or a list of texts that are all right | it is that text, apart from case, spacing, quotes, markdown and a final stop |
| `contains` | a text, or a list of texts all needed; an inner list gives alternatives | each occurs in it as whole words |
| `json` | any JSON value | it holds one JSON value, and that is equal: no key more, none less, `true` is not 1 |
| `regex` | a Python pattern, with an `example` that it matches | the pattern matches the whole of it (spaces around it apart) |
| `tool_call` | `{"name", "arguments"}`, a list of them, or `[]` for none | it calls those tools, in any order, with equal arguments |

For `number`, `choice` and `exact`, what counts is the text after the last "Answer:", "the answer is" or inside the last
`\\boxed{}`; without one, the last number that is bold, else the last number (`number`); the sole option letter named
(`choice`); the whole answer (`exact`). In a `tool_call` reference, `{"any": [v, w]}` in place of an argument's value allows
each of them, and `null` among them allows leaving the argument out; texts are compared apart from case and spacing.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


class CheckError(ValueError):
    """A reference does not fit its check; says how it should look."""


@dataclass(frozen=True, slots=True)
class Check:
    """How an answer is compared with a reference."""

    name: str
    reference: Any
    tolerance: float = 0.0
    example: str | None = None

    def passes(self, answer: str) -> bool:
        """Whether `answer` is right. Tool calls are given as a JSON list of `{"name", "arguments"}`."""
        return _CHECKS[self.name](answer, self)

    def accepted_answer(self) -> str:
        """An answer that passes, made from the reference."""
        if self.name == "regex":
            return self.example or ""
        if self.name in ("json", "tool_call"):
            value = _plain_calls(self.reference) if self.name == "tool_call" else self.reference
            return json.dumps(value, ensure_ascii=False)
        if isinstance(self.reference, list):
            if self.name == "exact":
                return str(self.reference[0])
            return ", ".join(str(each[0] if isinstance(each, list) else each) for each in self.reference)
        return str(self.reference)


def parse(name: Any, reference: Any, tolerance: Any = None, example: Any = None) -> Check:
    """A check, its reference looked over.

    Raises:
        CheckError: the name is unknown, or the reference does not fit it.
    """
    if name not in _CHECKS:
        raise CheckError(f'"check" is {name!r}, not one of {", ".join(_CHECKS)}')
    if tolerance is not None and (
        isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or tolerance < 0
    ):
        raise CheckError('"tolerance" is not a number of 0 or more')
    check = Check(str(name), reference, float(tolerance or 0.0), None if example is None else str(example))
    problem = _problem(check)
    if problem is None and not check.passes(check.accepted_answer()):
        problem = (
            'the pattern does not match the row\'s "example"' if name == "regex" else "it refuses itself as an answer"
        )
    if problem is not None:
        raise CheckError(f'"reference" of check {name}: {problem}')
    return check


def _problem(check: Check) -> str | None:
    reference = check.reference
    if check.name == "number":
        return None if _as_number(str(reference)) is not None else f"{reference!r} is not a number"
    if check.name == "choice":
        right = isinstance(reference, str) and re.fullmatch("[A-J]", reference)
        return None if right else f"{reference!r} is not one letter from A to J"
    if check.name in ("exact", "contains"):
        texts = reference if isinstance(reference, list) else [reference]
        if check.name == "contains":
            texts = [t for each in texts for t in (each if isinstance(each, list) and each else [each])]
        right = texts and all(isinstance(t, str) and t.strip() for t in texts)
        return None if right else "expected a text or a list of texts"
    if check.name == "regex":
        try:
            re.compile(str(reference))
        except re.error as error:
            return f"not a pattern ({error})"
        return None if check.example is not None else 'the row needs an "example" that it matches'
    if check.name == "tool_call":
        right = isinstance(reference, list | dict) and all(map(_is_call, _calls(reference)))
        return None if right else 'expected {"name": ..., "arguments": {...}}, a list of them, or []'
    return None


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


def _number(answer: str, check: Check) -> bool:
    expected = _as_number(str(check.reference))
    final = _final(answer)
    found = None
    if final is not None:
        found = next(iter(_numbers(final)), None)
    if found is None:
        bold = [number for text in _BOLD.findall(answer) for number in _numbers(text)]
        found = (bold or _numbers(answer) or [None])[-1]
    return found is not None and expected is not None and abs(found - expected) <= Fraction(str(check.tolerance))


def _numbers(text: str) -> list[Fraction]:
    read = (_as_number(match.group()) for match in _NUMBER.finditer(text.replace("\\$", "$").replace("\\!", "")))
    return [number for number in read if number is not None]


def _as_number(text: str) -> Fraction | None:
    plain = re.sub(r"[\s,$€£%+]", "", text).replace("−", "-").replace("–", "-")
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


_LETTER = re.compile(r"(?<![\w'’])([A-J])(?![\w'’])")
_LEADING_LETTER = re.compile(r"[\s*_`(\[{\"']*([A-J])(?:[\s*_`)\]}\"'.:,]|$)")


def _choice(answer: str, check: Check) -> bool:
    final = _final(answer)
    if final is not None:
        first_line = re.sub(r"^(?:option|choice)\s+", "", final.split("\n")[0].strip("*_` "), flags=re.IGNORECASE)
        match = _LEADING_LETTER.match(first_line)
        others = {letter for letter in re.findall(r"\b(?:or|and)\s+\(?([A-J])\b", first_line)}
        return match is not None and {match.group(1)} | others == {check.reference}
    text = answer.strip()
    if re.match(r"[\s*_`(\[]*[A-J][*_`)\].:,]|[\s*_`(\[]*[A-J]\s*$", text) and not re.match(r"A,? ", text):
        leading = _LEADING_LETTER.match(text)
        others = {letter for letter in re.findall(r"^[^\n]{0,12}\b(?:or|and)\s+\(?([A-J])\b", text)}
        return leading is not None and {leading.group(1)} | others == {check.reference}
    named = set(re.findall(r"(?:option|choice)\s+\(?([A-J])\b|\(([A-J])\)|\*\*([A-J])[).:*]", answer, re.IGNORECASE))
    letters = {part.upper() for groups in named for part in groups if part}
    return (letters or set(_LETTER.findall(answer))) == {check.reference}


def _exact(answer: str, check: Check) -> bool:
    right = {_normal(text) for text in (check.reference if isinstance(check.reference, list) else [check.reference])}
    final = _final(answer)
    return _normal(answer) in right or (final is not None and _normal(final.rstrip("}$")) in right)


def _normal(text: str) -> str:
    spaced = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return spaced.strip(" \"'`“”‘’*_").rstrip(".!").strip(" \"'`“”‘’*_")


def _contains(answer: str, check: Check) -> bool:
    text = _loose(answer)
    needed = check.reference if isinstance(check.reference, list) else [check.reference]
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


def _json(answer: str, check: Check) -> bool:
    return _equal(_json_value(answer), check.reference)


def _json_value(answer: str) -> Any:
    """The one JSON value an answer holds: whole, in its only fence, or the only object or list in its prose."""
    fences = _FENCE.findall(answer)
    for text in [answer, *fences] if len(fences) <= 1 else [answer]:
        try:
            return json.loads(text)
        except ValueError:
            continue
    if fences:
        return _NOTHING
    found: list[Any] = []
    position, decoder = 0, json.JSONDecoder()
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


def _regex(answer: str, check: Check) -> bool:
    return re.fullmatch(str(check.reference), answer.strip()) is not None


def _is_call(call: Any) -> bool:
    return (
        isinstance(call, Mapping) and isinstance(call.get("name"), str) and isinstance(call.get("arguments"), Mapping)
    )


def _calls(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain_calls(reference: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": call["name"],
            "arguments": {k: _first(v) for k, v in call["arguments"].items() if _first(v) is not None},
        }
        for call in _calls(reference)
    ]


def _first(value: Any) -> Any:
    return value["any"][0] if _is_any(value) else value


def _is_any(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and set(value) == {"any"} and isinstance(value["any"], list) and bool(value["any"])
    )


def _tool_call(answer: str, check: Check) -> bool:
    try:
        made = json.loads(answer)
    except ValueError:
        made = []  # prose: no tool was called
    if not isinstance(made, list) or not all(map(_is_call, made)):
        return False
    expected = _calls(check.reference)
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
    if _is_any(wanted):
        return any(_same_value(made, each) for each in wanted["any"])
    if isinstance(made, str) and isinstance(wanted, str):
        return _loose(made) == _loose(wanted)
    if isinstance(made, list) and isinstance(wanted, list):
        return len(made) == len(wanted) and all(map(_same_value, made, wanted))
    if isinstance(made, Mapping) and isinstance(wanted, Mapping):
        return set(made) <= set(wanted) and all(_same_value(made.get(key), value) for key, value in wanted.items())
    return _equal(made, wanted)


_CHECKS: Mapping[str, Callable[[str, Check], bool]] = {
    "number": _number,
    "choice": _choice,
    "exact": _exact,
    "contains": _contains,
    "json": _json,
    "regex": _regex,
    "tool_call": _tool_call,
}
