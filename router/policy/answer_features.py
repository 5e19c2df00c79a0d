"""Computes the hand features of an answer and its question, which predict whether the answer is right."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from router.policy.answer_text import NUMBER, check_equations, last_number, parse_answer, parse_number, truncate_answer
from router.policy.program import evaluate_program, matches_value

FEATURE_NAMES = (
    "log_length",
    "log_length_beyond",  # the expected length
    "log_steps",
    "log_final",
    "is_marked",
    "is_cut_off",
    "is_refusal",
    "hedges",
    "doubts",  # words that revise an earlier step
    "repeated",
    "lines",
    "sums",
    "sums_wrong",
    "final_is_number",
    "final_is_integer",
    "final_in_steps",
    "final_is_last_number",
    "final_in_question",
    "log_final_number",
    "candidates",
    "order_holds",  # the answer is the requested one of two numbers
    "order_broken",
    "new_words",
    "calls",
    "prose_for_call",
    "values_in_question",
    "values",
    "has_code",
    "has_formulas",
    "trace_agrees",  # with the value of the program in the question
    "trace_differs",
)
_MAX_NUMBERS = 200  # that are read, of the steps and of the question
_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_REFUSAL = re.compile(
    r"\b(?:i (?:do not|don't|cannot|can't|could not|am not|'m not|am unable|'m unable|have no)|"
    r"i'm (?:sorry|unable|not)|unable to|no information|not (?:aware|available|able)|as an ai)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:may|might|maybe|perhaps|possibly|probably|likely|approximately|about|around|roughly|estimated?|it seems|"
    r"appears|generally|typically|usually|assum\w+|suppose|unclear|not sure|uncertain|guess|if)\b",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(?:however|but|wait|actually|instead|mistake|incorrect\w*|correction|re-?(?:check|evaluat|examin|calculat|"
    r"consider)\w*|let's (?:try|check|verify|see)|contradict\w*|error|misunderst\w+|upon|again)\b",
    re.IGNORECASE,
)
_LARGER = re.compile(
    r"\b(?:larger|largest|bigger|biggest|greater|greatest|higher|highest|more|maximum|max)\b", re.IGNORECASE
)
_SMALLER = re.compile(r"\b(?:smaller|smallest|lesser|less|least|lower|lowest|minimum|min|tinier)\b", re.IGNORECASE)


def compute_features(question: str, answer: str, expected_tokens: float, tools: Sequence[str] = ()) -> list[float]:
    """The hand features of an answer, in the order of `FEATURE_NAMES`."""
    text = truncate_answer(answer)
    parsed = parse_answer(text)
    steps = parsed.steps.replace("\\n", "\n").replace("\\\\", "\\")
    equations = check_equations(steps)
    final = last_number(parsed.final)
    in_steps = [parse_number(number) for number in NUMBER.findall(steps)[-_MAX_NUMBERS:]]
    in_question = [parse_number(number) for number in NUMBER.findall(question)[:_MAX_NUMBERS]]
    words, question_words = set(_WORD.findall(text.lower())), set(_WORD.findall(question.lower()))
    lines = [line.strip() for line in steps.split("\n") if line.strip()]
    calls, values, values_in_question = count_tool_calls(answer, question)
    is_requested_number = comparison_holds(question, in_question, final)
    value = evaluate_program(question)
    matches_program = None if value is None else matches_value(value[0], parsed.final)
    return [
        math.log1p(len(answer)),
        math.log1p(len(answer) / 4.0) - math.log1p(expected_tokens),
        math.log1p(len(steps)),
        math.log1p(len(parsed.final)),
        float(parsed.is_marked),
        float(_is_cut_off(text)),
        float(_REFUSAL.search(text[:400]) is not None),
        math.log1p(len(_HEDGE.findall(text))),
        math.log1p(len(_DOUBT.findall(text))),
        1.0 - len(set(lines)) / len(lines) if lines else 0.0,
        math.log1p(len(lines)),
        math.log1p(equations.right + equations.wrong),
        float(equations.wrong > 0),
        float(final is not None),
        float(final is not None and final.is_integer()),
        float(final is not None and final in in_steps),
        float(final is not None and bool(in_steps) and in_steps[-1] == final),
        float(final is not None and final in in_question),
        math.log1p(min(abs(final or 0.0), 1e15)),
        math.log1p(len({number for number in in_steps if number not in in_question})),
        float(is_requested_number is True),
        float(is_requested_number is False),
        len(words - question_words) / max(len(words), 1),
        float(calls),
        float(bool(tools) and not calls),
        values_in_question / values if values else 1.0,
        math.log1p(values),
        float("```" in text and "```json" not in text[:10]),
        float("\\(" in text or "\\[" in text or "$" in text),
        float(matches_program is True),
        float(matches_program is False),
    ]


def comparison_holds(question: str, numbers: Sequence[float], final: float | None) -> bool | None:
    """Whether the answer is the requested one of two numbers; None if the question does not compare two numbers."""
    distinct = sorted(set(numbers))
    larger, smaller = _LARGER.search(question) is not None, _SMALLER.search(question) is not None
    if len(distinct) != 2 or larger == smaller or final not in distinct or len(question) > 400:
        return None
    return final == distinct[-1 if larger else 0]


def count_tool_calls(answer: str, question: str) -> tuple[int, int, int]:
    """Numbers of tool calls in an answer, of their argument values, and of those values that the question contains."""
    if not answer.startswith("[{"):
        return 0, 0, 0
    try:
        calls = msgspec.json.decode(answer, type=list[dict[str, Any]])
        values = [value for call in calls for value in _scalar_values(_arguments(call))]
    except (msgspec.DecodeError, RecursionError):
        return 0, 0, 0
    lower = question.lower()
    return len(calls), len(values), sum(1 for value in values if value.lower() in lower)


def _arguments(call: dict[str, Any]) -> list[Any]:
    """The arguments of {"name", "arguments"}, or of {name: arguments}, as values or as JSON."""
    arguments = [call["arguments"]] if "arguments" in call else list(call.values())
    return [msgspec.json.decode(item) if isinstance(item, str) and item[:1] == "{" else item for item in arguments]


def _scalar_values(value: object) -> list[str]:
    if isinstance(value, dict):
        return [scalar for item in value.values() for scalar in _scalar_values(item)]
    if isinstance(value, list):
        return [scalar for item in value for scalar in _scalar_values(item)]
    return [str(value)]


def _is_cut_off(text: str) -> bool:
    end = text.rstrip()
    return end.count("```") % 2 == 1 or (len(end) > 200 and end[-1:] not in '.!?`}])"*$>')
