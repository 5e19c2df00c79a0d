"""Exact checks: compare an answer with a reference, without a judge.

- `number`: the reference is a number, or a text such as "3/4". An answer passes where its number equals it, or is
  within the row's `tolerance` of it.
- `choice`: the reference is one letter, A to J. The answer names this option and no other.
- `exact`: a text, or a list of accepted texts. The answer is one of them, apart from case, spacing, quotes, markdown
  and a final stop.
- `contains`: a text, or a list of texts that are all required; an inner list has alternatives. Each occurs in the
  answer as whole words, apart from case.
- `json`: any JSON value. The answer contains one JSON value that is equal to it; `true` is not equal to 1.
- `regex`: a Python pattern, with an `example` in the row that it matches. It matches the whole answer, apart from
  surrounding white space.
- `tool_call`: `{"name", "arguments"}`, a list of them, or `[]` for none. The answer calls those tools, in any order,
  with equal arguments; texts are compared apart from case and spacing. `{"any": [v, w]}` in place of an argument
  allows each of them, and `null` among them allows leaving the argument out.

For `number`, `choice` and `exact`, the final answer is the text after the last "Answer:" or "the answer is", or in the
last `\\boxed{}`. Without one it is the last number in bold, else the last number (`number`), the only option letter
that is named (`choice`), or the whole answer (`exact`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from calibration.checks import comparisons


class CheckError(ValueError):
    """A reference has the wrong form for its check."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check with its reference."""

    name: str
    reference: Any
    tolerance: float = 0.0
    example: str | None = None

    def passes(self, answer: str) -> bool:
        """Whether `answer` is correct. Tool calls are a JSON list of `{"name", "arguments"}`."""
        if self.name == "number":
            return comparisons.check_number(answer, self.reference, self.tolerance)
        return _CHECKS[self.name](answer, self.reference)

    def accepted_answer(self) -> str:
        """An answer that passes the check, built from the reference."""
        if self.name == "regex":
            return self.example or ""
        if self.name in ("json", "tool_call"):
            value = (
                comparisons.calls_with_first_alternatives(self.reference)
                if self.name == "tool_call"
                else self.reference
            )
            return json.dumps(value, ensure_ascii=False)
        if isinstance(self.reference, list):
            if self.name == "exact":
                return str(self.reference[0])
            return ", ".join(str(text[0] if isinstance(text, list) else text) for text in self.reference)
        return str(self.reference)


def parse_check(name: Any, reference: Any, tolerance: Any = None, example: Any = None) -> Check:
    """Build and validate a check.

    Raises:
        CheckError: the name is unknown, or the reference has the wrong form.
    """
    if not isinstance(name, str) or name not in _CHECKS:
        raise CheckError(f'"check" is {name!r}, not one of {", ".join(_CHECKS)}')
    if tolerance is not None and (
        isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or tolerance < 0
    ):
        raise CheckError('"tolerance" is not a number of 0 or more')
    check = Check(str(name), reference, float(tolerance or 0.0), None if example is None else str(example))
    problem = _find_problem(check)
    if problem is None and not check.passes(check.accepted_answer()):
        problem = (
            'the pattern does not match the row\'s "example"' if name == "regex" else "it does not pass its own check"
        )
    if problem is not None:
        raise CheckError(f'"reference" of check {name}: {problem}')
    return check


def _find_problem(check: Check) -> str | None:
    reference = check.reference
    if check.name == "number":
        return None if comparisons.parse_number(str(reference)) is not None else f"{reference!r} is not a number"
    if check.name == "choice":
        letter = isinstance(reference, str) and re.fullmatch("[A-J]", reference)
        return None if letter else f"{reference!r} is not one letter from A to J"
    if check.name in ("exact", "contains"):
        texts = reference if isinstance(reference, list) else [reference]
        if check.name == "contains":
            texts = [t for text in texts for t in (text if isinstance(text, list) and text else [text])]
        right = bool(texts) and all(isinstance(t, str) and t.strip() for t in texts)
        return None if right else "expected a text or a list of texts"
    if check.name == "regex":
        try:
            re.compile(str(reference))
        except re.error as error:
            return f"not a pattern ({error})"
        return None if check.example is not None else 'the row needs an "example" that it matches'
    if check.name == "tool_call":
        right = isinstance(reference, list | dict) and all(
            map(comparisons.is_call, comparisons.as_call_list(reference))
        )
        return None if right else 'expected {"name": ..., "arguments": {...}}, a list of them, or []'
    return None


_CHECKS: Mapping[str, Callable[[str, Any], bool]] = {
    "number": comparisons.check_number,
    "choice": comparisons.check_choice,
    "exact": comparisons.check_exact,
    "contains": comparisons.check_contains,
    "json": comparisons.json_equals,
    "regex": comparisons.check_regex,
    "tool_call": comparisons.check_tool_call,
}
