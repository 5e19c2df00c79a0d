"""An answer beside its question becomes numbers and words: what a prediction of whether it holds reads."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from router.policy.answer_text import NUMBER, capped, number_of, plain_number, stated, sums
from router.policy.program import evaluate_program, matches_value

NUMBERS = (
    "log_length",
    "log_length_beyond",  # the length that was expected
    "log_steps",
    "log_final",
    "is_marked",
    "is_cut_off",
    "is_refusal",
    "hedges",
    "doubts",  # where it takes a step back
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
    "order_holds",  # of two numbers, the one that was asked for
    "order_broken",
    "new_words",
    "calls",
    "prose_for_call",
    "values_in_question",
    "values",
    "has_code",
    "has_formulas",
    "trace_agrees",  # with what the program in the question evaluates to
    "trace_differs",
)
_MOST_NUMBERS = 200  # of the steps, and of the question, that are read
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


def answer_numbers(question: str, answer: str, expected_tokens: float, tools: Sequence[str] = ()) -> list[float]:
    """Hand features of an answer, in the order of `NUMBERS`."""
    text = capped(answer)
    its = stated(text)
    steps = its.steps.replace("\\n", "\n").replace("\\\\", "\\")
    checked = sums(steps)
    final = number_of(its.final)
    in_steps = [plain_number(found) for found in NUMBER.findall(steps)[-_MOST_NUMBERS:]]
    in_question = [plain_number(found) for found in NUMBER.findall(question)[:_MOST_NUMBERS]]
    words, asked = set(_WORD.findall(text.lower())), set(_WORD.findall(question.lower()))
    lines = [line.strip() for line in steps.split("\n") if line.strip()]
    count, values, found = calls_of(answer, question)
    order = order_of(question, in_question, final)
    value = evaluate_program(question)
    program = None if value is None else matches_value(value[0], its.final)
    return [
        math.log1p(len(answer)),
        math.log1p(len(answer) / 4.0) - math.log1p(expected_tokens),
        math.log1p(len(steps)),
        math.log1p(len(its.final)),
        float(its.is_marked),
        float(_is_cut_off(text)),
        float(_REFUSAL.search(text[:400]) is not None),
        math.log1p(len(_HEDGE.findall(text))),
        math.log1p(len(_DOUBT.findall(text))),
        1.0 - len(set(lines)) / len(lines) if lines else 0.0,
        math.log1p(len(lines)),
        math.log1p(checked.right + checked.wrong),
        float(checked.wrong > 0),
        float(final is not None),
        float(final is not None and final.is_integer()),
        float(final is not None and final in in_steps),
        float(final is not None and bool(in_steps) and in_steps[-1] == final),
        float(final is not None and final in in_question),
        math.log1p(min(abs(final or 0.0), 1e15)),
        math.log1p(len({found for found in in_steps if found not in in_question})),
        float(order is True),
        float(order is False),
        len(words - asked) / max(len(words), 1),
        float(count),
        float(bool(tools) and not count),
        found / values if values else 1.0,
        math.log1p(values),
        float("```" in text and "```json" not in text[:10]),
        float("\\(" in text or "\\[" in text or "$" in text),
        float(program is True),
        float(program is False),
    ]


def order_of(question: str, numbers: Sequence[float], final: float | None) -> bool | None:
    """Whether an answer to "which is larger?" is the larger of two numbers; None where that is not asked."""
    distinct = sorted(set(numbers))
    larger, smaller = _LARGER.search(question) is not None, _SMALLER.search(question) is not None
    if len(distinct) != 2 or larger == smaller or final not in distinct or len(question) > 400:
        return None
    return final == distinct[-1 if larger else 0]


def calls_of(answer: str, question: str) -> tuple[int, int, int]:
    """Tool calls in an answer, the values of their arguments, and how many of these the question has word by word."""
    if not answer.startswith("[{"):
        return 0, 0, 0
    try:
        calls = msgspec.json.decode(answer, type=list[dict[str, Any]])
        leaves = [leaf for call in calls for leaf in _leaves(_arguments(call))]
    except (msgspec.DecodeError, RecursionError):
        return 0, 0, 0
    low = question.lower()
    return len(calls), len(leaves), sum(1 for leaf in leaves if leaf.lower() in low)


def _arguments(call: dict[str, Any]) -> list[Any]:
    """The arguments of {"name", "arguments"}, or of {name: arguments}, as values or as JSON."""
    given = [call["arguments"]] if "arguments" in call else list(call.values())
    return [msgspec.json.decode(each) if isinstance(each, str) and each[:1] == "{" else each for each in given]


def _leaves(value: object) -> list[str]:
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in _leaves(each)]
    return [str(value)]


def _is_cut_off(text: str) -> bool:
    end = text.rstrip()
    return end.count("```") % 2 == 1 or (len(end) > 200 and end[-1:] not in '.!?`}])"*$>')
