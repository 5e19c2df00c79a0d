"""Checks whether the fenced Python and JSON in an answer parses.

Excerpts pass: code with an ellipsis, a placeholder or a prompt. Python 2 passes. Code that is too long or too deeply
nested for the parser passes.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import warnings

from router.verifying.finding import Fault
from router.verifying.parsing import UndecidedError, parse_json_values

MOST_CODE_CHARACTERS = 32 * 1024  # of a fence: the worst case takes 0.2 s to parse, during which no other thread runs
MOST_FENCES = 20
MOST_TEXT_CHARACTERS = 512 * 1024

# each expression runs in linear time, because the text is untrusted
_FENCE = re.compile(r"^([ \t]*(?:>[ \t]*)*)(`{3,}|~{3,})(.*)$", re.MULTILINE)
_PYTHON = frozenset({"python", "py", "python3", "py3"})
_JSON = frozenset({"json"})
_EXCERPT = re.compile(r"\.\.\.|…|<[A-Za-z_][\w -]*>|\{\{|\{%")  # an ellipsis or a placeholder
_SESSION = re.compile(r"^[ \t]*(>>>|In \[\d+\]:|Traceback \(most recent call last\))", re.MULTILINE)
_MAGIC = re.compile(r"^([ \t]*)[%!?].*$", re.MULTILINE)  # notebook magic
_PYTHON_2 = ("Missing parentheses in call", "multiple exception types must be parenthesized", "leading zeros in dec")


def check_code(text: str, *, may_be_open: bool = False) -> Fault | None:
    """The first fault in the fences of a text, or None. The last fence `may_be_open` if a stop word can end the text.

    >>> check_code("So:\\n```python\\nprint(1\\n```\\n")
    <Fault.PYTHON_SYNTAX: 'python_syntax'>
    >>> check_code("So:\\n```json\\n{\\"a\\": 1}\\n```\\n") is None
    True
    """
    if len(text) > MOST_TEXT_CHARACTERS:
        return None
    for language, code, closed in _fences(text):
        if len(code) > MOST_CODE_CHARACTERS or (may_be_open and not closed):
            continue
        if language in _PYTHON and not python_parses(code):
            return Fault.PYTHON_SYNTAX
        if language in _JSON and not json_parses(code):
            return Fault.JSON_SYNTAX
    return None


def _fences(text: str) -> list[tuple[str, str, bool]]:
    """The language and code of each fence, and whether it is closed (CommonMark 0.31, section 4.5)."""
    found: list[tuple[str, str, bool]] = []
    opened: re.Match[str] | None = None
    for line in _FENCE.finditer(text):
        marks, info = line[2], line[3].strip()
        if opened is None:
            if marks[0] == "~" or "`" not in info:
                opened = line
        elif marks[0] == opened[2][0] and len(marks) >= len(opened[2]) and not info:
            found.append((_language(opened), _inside(text[opened.end() + 1 : line.start()], opened[1]), True))
            opened = None
        if len(found) >= MOST_FENCES:
            return found
    if opened is not None:
        found.append((_language(opened), _inside(text[opened.end() + 1 :], opened[1]), False))
    return found


def _language(opened: re.Match[str]) -> str:
    return opened[3].strip().partition(" ")[0].lower()


def _inside(code: str, before: str) -> str:
    """The code without the `>` of a block quotation."""
    if ">" in before:
        code = re.sub(r"^[ \t]*(?:>[ \t]?)+", "", code, flags=re.MULTILINE)
    return code


def python_parses(code: str) -> bool:
    """Whether Python code parses. True for excerpts and if the parser cannot decide."""
    problem = _python_problem(code)
    if problem is None or _EXCERPT.search(code) or _SESSION.search(code) or problem.startswith(_PYTHON_2):
        return True
    if sys.version_info < (3, 12) and problem.startswith("f-string"):  # later versions accept more f-strings
        return True
    bare = textwrap.dedent(_MAGIC.sub(r"\1pass", code))
    return bare != code and _python_problem(bare) is None


def _python_problem(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes and comparisons of literals
            ast.parse(code)
    except SyntaxError as error:
        return error.msg or "invalid syntax"
    except (MemoryError, RecursionError, ValueError):  # nested too deeply, or a NUL character
        return None
    return None


def json_parses(code: str) -> bool:
    """Whether a JSON text parses. True for excerpts and if the parser cannot decide."""
    try:
        parse_json_values(code)
    except UndecidedError:
        return True
    except ValueError:
        return bool(_EXCERPT.search(code))
    return True
