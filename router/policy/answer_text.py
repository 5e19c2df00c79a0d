"""Parses an answer into its final statement and the steps before it, and checks the equations in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import msgspec

MAX_ANSWER_CHARACTERS = 12_000  # that are read: half from its start, half from its end
_MAX_EQUATIONS = 60  # that are checked

_ANSWER_FIELD = re.compile(r'"(?:final_)?answer"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,}][^\n}]*))', re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_ANSWER_PHRASE = re.compile(
    r"(?:#{4}|\b(?:final answer|answer|result|output|total)(?: is| are| will be|:)(?: equal to)?)\s*+(?::\s*+)?"
    r"([^\n]{1,200})",
    re.IGNORECASE,
)
NUMBER = re.compile(r"(?<![\w.])-?\$?\d[\d,]*(?:\.\d+)?(?!\w)")
_OPERAND = r"\$?(-?\d[\d,]{0,15}(?:\.\d{1,9})?)(?![\d,.]*\d)(?:\s[a-z]{1,9})?(?!%)"
_EQUATION = re.compile(
    rf"(?<![\w.,)^*/+=-])(?<![)^*/+-]\s)"
    rf"((?:{_OPERAND}\s*(?:[+*/×÷·-]|\\times|\\cdot|\\div)\s*){{1,5}}{_OPERAND})"
    rf"\s*=\s*{_OPERAND}(?![\d.,]*\s*[+*/×÷^-]\s*\S)(?![\w(%])"
)
_TOKEN = re.compile(r"\d[\d,]*(?:\.\d+)?|[+*/×÷·-]|\\times|\\cdot|\\div")
_OPERATORS = {"×": "*", "·": "*", "\\times": "*", "\\cdot": "*", "÷": "/", "\\div": "/"}


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """An answer as its steps and its final statement."""

    steps: str
    final: str
    is_marked: bool  # whether the final statement is marked: as a JSON field, in a box, or in words


@dataclass(frozen=True, slots=True)
class EquationCounts:
    """Equations of plain numbers in a text: how many are right and wrong, and the last result."""

    right: int
    wrong: int
    last: Fraction | None


def truncate_answer(answer: str) -> str:
    """The start and the end of a long answer."""
    half = MAX_ANSWER_CHARACTERS // 2
    return answer if len(answer) <= 2 * half else f"{answer[:half]}\n{answer[-half:]}"


def parse_answer(answer: str) -> ParsedAnswer:
    r"""Parse an answer into its final statement and the steps before it.

    >>> parse_answer('{"reasoning": "3 * 4 = 12", "answer": "12"}').final
    '12'
    >>> [parse_answer(text).final for text in ("We get \\boxed{7}.", "So the answer is **42**.", "Bonn")]
    ['7', '42', 'Bonn']
    """
    if field := _last(_ANSWER_FIELD, answer):
        final = field[2].strip() if field[1] is None else _unescape(field[1])
        return ParsedAnswer(answer[: field.start()], final, True)
    if phrase := _last(_BOXED, answer) or _last(_ANSWER_PHRASE, answer):
        return ParsedAnswer(answer[: phrase.start()], phrase[1].strip(' "*`$.'), True)
    lines = answer.strip().rsplit("\n", 1)
    return ParsedAnswer(lines[0] if len(lines) > 1 else answer, lines[-1].strip(), False)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    *_, last = (None, *pattern.finditer(text))
    return last


def _unescape(literal: str) -> str:
    try:
        return msgspec.json.decode(f'"{literal}"', type=str)
    except msgspec.DecodeError:
        return literal


def last_number(text: str) -> float | None:
    """The last number in a text; None if there is none.

    >>> last_number("about $1,250.50 a month")
    1250.5
    """
    number = _last(NUMBER, text)
    return None if number is None else parse_number(number[0])


def parse_number(literal: str) -> float:
    """A number from its literal, with or without a dollar sign and commas."""
    return float(literal.replace(",", "").replace("$", "") or 0.0)


def parse_decimal(literal: str) -> Fraction:
    """An exact number from a decimal literal, with or without commas."""
    return Fraction(literal.replace(",", ""))


def check_equations(text: str) -> EquationCounts:
    """Check the equations in a text by exact arithmetic. A result that is rounded to its digits counts as right.

    >>> check_equations("3 * 4 = 12 apples, 12 + 5 = 18, 10 / 3 = 3.33")
    EquationCounts(right=2, wrong=1, last=Fraction(333, 100))
    """
    right = wrong = 0
    last = None
    for number, equation in enumerate(_EQUATION.finditer(text)):
        if number == _MAX_EQUATIONS:
            break
        expression, result = equation[1], equation[equation.re.groups]
        value, last = _compute(expression), parse_decimal(result)
        if value is None:
            continue
        digits = len(result.partition(".")[2])
        if abs(value - last) < Fraction(1, 10**digits):
            right += 1
        else:
            wrong += 1
    return EquationCounts(right, wrong, last)


def _compute(expression: str) -> Fraction | None:
    """The value of an expression of + - * /; None if it divides by zero."""
    terms: list[Fraction] = []
    operator, sign = "+", 1
    for token in _TOKEN.findall(expression):
        plain = _OPERATORS.get(token, token)
        if plain in "+-*/":
            if operator:
                sign = -sign if plain == "-" else sign
            else:
                operator = plain
            continue
        value = sign * parse_decimal(token)
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
