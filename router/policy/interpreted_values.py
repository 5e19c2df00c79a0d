"""The values, functions and methods that interpreted programs may use, and the limits on their size."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

MAX_SIZE = 1_000  # items of a value, including nested ones, or characters of a string
MAX_INTEGER = 2**64
MAX_ROUNDING_DIGITS = 20  # a negative number of digits is a power of ten
MAX_POWER_BASE = 1_000
MAX_EXPONENT = 20

VALUE_TYPES = (str, int, float, bool, list, tuple, dict, set, frozenset, type(None), range)
_BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
COMPARE: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
UNARY: Mapping[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
_STRING_METHODS = """capitalize casefold center count endswith expandtabs find index isalnum isalpha isascii isdecimal
    isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition
    removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip
    swapcase title upper zfill"""
_LIST_METHODS = """append clear copy count extend index insert pop remove reverse sort"""
_DICT_METHODS = """clear copy get items keys pop popitem setdefault update values"""
_SET_METHODS = """add clear copy difference discard intersection issubset issuperset pop remove union update"""
METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(_STRING_METHODS.split()),
    list: frozenset(_LIST_METHODS.split()),
    tuple: frozenset(["count", "index"]),
    dict: frozenset(_DICT_METHODS.split()),
    set: frozenset(_SET_METHODS.split()),
}


class UnsupportedProgramError(Exception):
    """The program uses a feature that is not interpreted, or exceeds a limit."""


def rounded(value: Any, ndigits: int | None = None) -> Any:
    """`round` with a limit on the number of digits.

    Raises:
        UnsupportedProgramError: `ndigits` exceeds the limit.
    """
    if ndigits is not None and abs(ndigits) > MAX_ROUNDING_DIGITS:
        raise UnsupportedProgramError
    return round(value, ndigits)


_BUILTINS = (abs, all, any, bool, chr, dict, divmod, enumerate, float, int, len, list, max, min, ord, range, reversed)
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    **{function.__name__: function for function in (*_BUILTINS, set, sorted, str, sum, tuple, zip)},
    "round": rounded,
}


def size_of(value: Any, limit: int = MAX_SIZE) -> int:
    """The number of items of a value, including nested ones, or the number of characters of a string.

    Raises:
        UnsupportedProgramError: the size exceeds `limit`.
    """
    if isinstance(value, str | range):
        size = len(value)
    elif isinstance(value, list | tuple | set | frozenset | dict):
        size = len(value)
        if size <= limit:
            for item in value.values() if isinstance(value, dict) else value:
                if not isinstance(item, int | float | None):
                    size += size_of(item, limit - size)
                    if size > limit:
                        break
    else:
        size = 1
    if size > limit:
        raise UnsupportedProgramError
    return size


def apply_binary(op: ast.operator, left: Any, right: Any) -> Any:
    """Apply a binary operator.

    Raises:
        UnsupportedProgramError: the result could exceed a limit.
    """
    if isinstance(op, ast.Pow):
        if not (isinstance(left, int) and isinstance(right, int)):
            raise UnsupportedProgramError
        if abs(left) > MAX_POWER_BASE or not 0 <= right <= MAX_EXPONENT:
            raise UnsupportedProgramError
        return left**right
    if isinstance(op, ast.Mod) and isinstance(left, str):
        raise UnsupportedProgramError  # a field width has no limit
    if isinstance(op, ast.Mult) and not (isinstance(left, int | float) and isinstance(right, int | float)):
        sizes = [abs(operand) if isinstance(operand, int) else size_of(operand) for operand in (left, right)]
        if sizes[0] * sizes[1] > MAX_SIZE:
            raise UnsupportedProgramError
    return _BINARY[type(op)](left, right)
