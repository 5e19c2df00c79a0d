"""An answer's parts: what it states at its end, the steps before, and sums that can be checked exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import msgspec

MAX_ANSWER_CHARACTERS = 12_000  # that are read: half from its head, half from its tail
_MOST_SUMS = 60  # that are checked

_STATED = re.compile(r'"(?:final_)?answer"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,}][^\n}]*))', re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SAID = re.compile(
    r"(?:#{4}|\b(?:final answer|answer|result|output|total)(?: is| are| will be|:)(?: equal to)?)\s*+(?::\s*+)?"
    r"([^\n]{1,200})",
    re.IGNORECASE,
)
NUMBER = re.compile(r"(?<![\w.])-?\$?\d[\d,]*(?:\.\d+)?(?!\w)")
_OPERAND = r"\$?(-?\d[\d,]{0,15}(?:\.\d{1,9})?)(?![\d,.]*\d)(?:\s[a-z]{1,9})?(?!%)"
_SUM = re.compile(
    rf"(?<![\w.,)^*/+=-])(?<![)^*/+-]\s)"
    rf"((?:{_OPERAND}\s*(?:[+*/×÷·-]|\\times|\\cdot|\\div)\s*){{1,5}}{_OPERAND})"
    rf"\s*=\s*{_OPERAND}(?![\d.,]*\s*[+*/×÷^-]\s*\S)(?![\w(%])"
)
_TOKEN = re.compile(r"\d[\d,]*(?:\.\d+)?|[+*/×÷·-]|\\times|\\cdot|\\div")
_PLAIN = {"×": "*", "·": "*", "\\times": "*", "\\cdot": "*", "÷": "/", "\\div": "/"}


@dataclass(frozen=True, slots=True)
class Stated:
    """An answer as steps and what is stated at the end."""

    steps: str
    final: str
    is_marked: bool  # whether the end is marked as such: as a field, boxed, or in words


@dataclass(frozen=True, slots=True)
class Sums:
    """Equations of plain numbers in a text: how many hold, how many do not, and the last result."""

    right: int
    wrong: int
    last: Fraction | None


def capped(answer: str) -> str:
    """The head and the tail of a long answer."""
    half = MAX_ANSWER_CHARACTERS // 2
    return answer if len(answer) <= 2 * half else f"{answer[:half]}\n{answer[-half:]}"


def stated(answer: str) -> Stated:
    r"""What an answer states, and the steps before it.

    >>> stated('{"reasoning": "3 * 4 = 12", "answer": "12"}').final
    '12'
    >>> stated("We get \\boxed{7}.").final, stated("So the answer is **42**.").final, stated("Bonn").final
    ('7', '42', 'Bonn')
    """
    if field := _last(_STATED, answer):
        return Stated(answer[: field.start()], field[2].strip() if field[1] is None else _unescaped(field[1]), True)
    if said := _last(_BOXED, answer) or _last(_SAID, answer):
        return Stated(answer[: said.start()], said[1].strip(' "*`$.'), True)
    lines = answer.strip().rsplit("\n", 1)
    return Stated(lines[0] if len(lines) > 1 else answer, lines[-1].strip(), False)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    *_, found = (None, *pattern.finditer(text))
    return found


def _unescaped(written: str) -> str:
    try:
        return msgspec.json.decode(f'"{written}"', type=str)
    except msgspec.DecodeError:
        return written


def number_of(text: str) -> float | None:
    """The last number of a text.

    >>> number_of("about $1,250.50 a month")
    1250.5
    """
    found = _last(NUMBER, text)
    return None if found is None else plain_number(found[0])


def plain_number(written: str) -> float:
    """A number as it is written, with or without a dollar sign and commas."""
    return float(written.replace(",", "").replace("$", "") or 0.0)


def exact(written: str) -> Fraction:
    """A plain decimal with or without commas."""
    return Fraction(written.replace(",", ""))


def sums(text: str) -> Sums:
    """The equations of a text, each computed exactly; a result that is rounded as it is written counts as right.

    >>> sums("3 * 4 = 12 apples, 12 + 5 = 18, 10 / 3 = 3.33")
    Sums(right=2, wrong=1, last=Fraction(333, 100))
    """
    right = wrong = 0
    last = None
    for number, found in enumerate(_SUM.finditer(text)):
        if number == _MOST_SUMS:
            break
        left, told = found[1], found[found.re.groups]
        value, last = _value(left), exact(told)
        if value is None:
            continue
        digits = len(told.partition(".")[2])
        if abs(value - last) < Fraction(1, 10**digits):
            right += 1
        else:
            wrong += 1
    return Sums(right, wrong, last)


def _value(left: str) -> Fraction | None:
    """The value of operands and operators, multiplication first; None where it has none."""
    terms: list[Fraction] = []
    operator, sign = "+", 1
    for token in _TOKEN.findall(left):
        plain = _PLAIN.get(token, token)
        if plain in "+-*/":
            if operator:
                sign = -sign if plain == "-" else sign
            else:
                operator = plain
            continue
        value = sign * exact(token)
        if operator in ("+", "-"):
            terms.append(value if operator == "+" else -value)
        elif operator == "*":
            terms[-1] *= value
        elif value:
            terms[-1] /= value
        else:
            return None
        operator, sign = "", 1
    return sum(terms, Fraction(0))
