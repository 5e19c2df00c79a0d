"""The Python program in a question, and the value it evaluates to, so that an answer can be checked against it.

The program is interpreted, never run (see `interpreter.py`). A program that is not supported has no value.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any, Literal

from router.policy.interpreter import Interpreter

MAX_PROGRAM_CHARACTERS = 2_000

_OPENING_FENCE = re.compile(r"(?:```(?:python|py)?|\[PYTHON\])[ ]*+\n", re.IGNORECASE)
_CLOSING_FENCE = re.compile(r"```|\[/PYTHON\]", re.IGNORECASE)
_FUNCTION = re.compile(r"^def \w+\(", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\?{2,}|\.{3,}|_{3,}")
_FILE = "<program in a question>"  # the file that the parser's warnings name
_IGNORE_WARNINGS: Any = ("ignore", None, Warning, re.compile(_FILE), 0)  # an entry of `warnings.filters`


def extract_program(question: str) -> str | None:
    """The program in a question, with placeholders such as `??` replaced by `None`; None if there is no program."""
    opening = _OPENING_FENCE.search(question)
    if opening and (closing := _CLOSING_FENCE.search(question, opening.end())):
        code = question[opening.end() : closing.start()]
    elif function := _FUNCTION.search(question):
        code = question[function.start() :]
    else:
        return None
    return _PLACEHOLDER.sub("None", code) if len(code) <= MAX_PROGRAM_CHARACTERS else None


def evaluate_program(question: str) -> tuple[Any] | None:
    """The value that the question about a program asks for, in a tuple; None if it is not known.

    It is the left side of the last `assert`, the argument of the last `print`, or the last expression.

    >>> evaluate_program("What is printed?\\n```python\\nx = [3, 1]\\nx.sort()\\nprint(x + [9])\\n```")
    ([1, 3, 9],)
    >>> evaluate_program("def f(n):\\n    return 'a' * n\\nassert f(3) == ??")
    ('aaa',)
    >>> evaluate_program("def f(n):\\n    while True:\\n        n += 1\\nassert f(3) == ??") is None
    True
    """
    code = extract_program(question)
    if code is None:
        return None
    try:
        module = _parse(code, "exec")
        assert isinstance(module, ast.Module)
        return Interpreter().run(module)
    except Exception:  # the program may raise anything; the limit on call depth bounds the stack
        return None


def matches_value(value: Any, literal: str) -> bool:
    """Whether a Python literal equals a value in type and content. A string may lack its quotes.

    >>> matches_value([1, 2], "[1,2]"), matches_value("ab", "ab"), matches_value("ab", "'abc'")
    (True, True, False)
    """
    if isinstance(value, str) and literal.strip("\"'") == value.strip("\"'"):
        return True
    if len(literal) > MAX_PROGRAM_CHARACTERS:
        return False
    try:
        parsed = ast.literal_eval(_parse(literal.strip(), "eval"))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return type(parsed) is type(value) and bool(parsed == value)


def _parse(code: str, mode: Literal["exec", "eval"]) -> ast.AST:
    """Parse code without printing the parser's warnings about it.

    `warnings.catch_warnings` is not thread-safe: it replaces the filters of all threads. So this sets one filter, for
    these warnings alone, and leaves it in place.
    """
    if warnings.filters[:1] != [_IGNORE_WARNINGS]:
        warnings.filterwarnings("ignore", module=_FILE)
    return ast.parse(code, _FILE, mode)
