"""What a small Python program in a question evaluates to, so that an answer about it can be checked.

The program is interpreted, never run: plain values and their own methods only, no imports, classes, files or
attributes, and bounds on steps and sizes. What is beyond that has no value here.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MAX_PROGRAM_CHARACTERS = 2_000
MAX_STEPS = 4_000
MAX_SIZE = 1_000  # items of a value, those inside of it included, and characters of a string
MAX_INTEGER = 2**64
MAX_CALLS = 20  # that stand inside of each other

_OPENED = re.compile(r"(?:```(?:python|py)?|\[PYTHON\])[ ]*+\n", re.IGNORECASE)
_CLOSED = re.compile(r"```|\[/PYTHON\]", re.IGNORECASE)
_BEGIN = re.compile(r"^def \w+\(", re.MULTILINE)
_UNKNOWN = re.compile(r"\?{2,}|\.{3,}|_{3,}")
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
_COMPARE: Mapping[type, Callable[[Any, Any], Any]] = {
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
_UNARY: Mapping[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
_PLAIN = (str, int, float, bool, list, tuple, dict, set, frozenset, type(None), range)
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (abs, all, any, bool, chr, dict, divmod, enumerate, float, int, len, list, max, min, ord, range, reversed)
} | {f.__name__: f for f in (round, set, sorted, str, sum, tuple, zip)}
_TEXT_METHODS = """capitalize casefold center count endswith expandtabs find index isalnum isalpha isascii isdecimal
    isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition
    removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines startswith strip
    swapcase title upper zfill"""
_SET_METHODS = """add clear copy difference discard intersection issubset issuperset pop remove union update"""
_MOST_DIGITS = 20  # that are rounded to: a negative number of digits is a power of ten
_METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    list: frozenset(
        ["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"]
    ),
    tuple: frozenset(["count", "index"]),
    dict: frozenset(["clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"]),
    set: frozenset(_SET_METHODS.split()),
}


class UntraceableError(Exception):
    """The program uses what is not interpreted, or more than it may."""


class _Return(Exception):  # noqa: N818 - control flow
    def __init__(self, value: Any) -> None:
        self.value = value


class _Break(Exception):  # noqa: N818 - the same
    pass


class _Continue(Exception):  # noqa: N818 - the same
    pass


def program_of(question: str) -> str | None:
    """The program in a question, with what is left open in it as `None`."""
    opened = _OPENED.search(question)
    if opened and (closed := _CLOSED.search(question, opened.end())):  # what does not close the first closes no other
        code = question[opened.end() : closed.start()]
    elif begin := _BEGIN.search(question):
        code = question[begin.start() :]
    else:
        return None
    return _UNKNOWN.sub("None", code) if len(code) <= MAX_PROGRAM_CHARACTERS else None


def traced(question: str) -> tuple[Any] | None:
    """The value that a question's program asks for, in a tuple; None where there is none or it is not known.

    Asked for is what the last `assert` compares, the last `print` prints, or the last expression.

    >>> traced("What is printed?\\n```python\\nx = [3, 1]\\nx.sort()\\nprint(x + [9])\\n```")
    ([1, 3, 9],)
    >>> traced("def f(n):\\n    return 'a' * n\\nassert f(3) == ??")
    ('aaa',)
    >>> traced("def f(n):\\n    while True:\\n        n += 1\\nassert f(3) == ??") is None
    True
    """
    code = program_of(question)
    if code is None:
        return None
    try:
        return _Tracing().program(_quietly(ast.parse, code))
    except Exception:  # a program may fail in any way; the stack stays small by MAX_CALLS and the parser's own limits
        return None


def _quietly(read: Callable[[str], Any], code: str) -> Any:
    """Read code without the warnings that the parser would print of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(code)


class _Tracing:
    """One program while it is interpreted."""

    def __init__(self) -> None:
        self._steps = self._depth = 0

    def program(self, module: ast.Module) -> tuple[Any] | None:
        names: dict[str, Any] = {}
        asked: tuple[Any] | None = None
        for statement in module.body:
            if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare):
                asked = (self._value(statement.test.left, names),)
            elif isinstance(statement, ast.Expr):
                value = statement.value
                if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
                    value = value.args[0]
                asked = (self._value(value, names),)
            else:
                self._statement(statement, names)
        return asked if asked is not None and isinstance(asked[0], _PLAIN) else None

    def _step(self, count: int = 1) -> None:
        self._steps += count
        if self._steps > MAX_STEPS:
            raise UntraceableError

    def _checked(self, value: Any) -> Any:
        if isinstance(value, int | float | None):
            if not isinstance(value, bool | None) and abs(value) > MAX_INTEGER:
                raise UntraceableError
            return value
        self._step(_size(value) // 16)
        return value

    def _block(self, statements: list[ast.stmt], names: dict[str, Any]) -> None:
        for statement in statements:
            self._statement(statement, names)

    def _statement(self, node: ast.stmt, names: dict[str, Any]) -> None:
        self._step()
        match node:
            case ast.FunctionDef(decorator_list=[]):
                names[node.name] = self._function(node, names)
            case ast.Return():
                raise _Return(None if node.value is None else self._value(node.value, names))
            case ast.Assign():
                value = self._value(node.value, names)
                for target in node.targets:
                    self._assign(target, value, names)
            case ast.AnnAssign(value=ast.expr() as given):
                self._assign(node.target, self._value(given, names), names)
            case ast.AugAssign():
                before, more = self._value(node.target, names), self._value(node.value, names)
                if isinstance(before, list) and isinstance(node.op, ast.Add):
                    before.extend(more)
                    self._checked(before)
                else:
                    self._assign(node.target, self._binary(node.op, before, more), names)
            case ast.For() | ast.While():
                self._loop(node, names)
            case ast.If():
                self._block(node.body if self._value(node.test, names) else node.orelse, names)
            case ast.Expr():
                self._value(node.value, names)
            case ast.Delete(targets=[ast.Subscript() as target]):
                del self._value(target.value, names)[self._index(target.slice, names)]
            case ast.Pass():
                pass
            case ast.Break():
                raise _Break
            case ast.Continue():
                raise _Continue
            case _:
                raise UntraceableError

    def _loop(self, node: ast.For | ast.While, names: dict[str, Any]) -> None:
        for _ in self._turns(node, names):
            self._step()
            try:
                self._block(node.body, names)
            except _Break:
                return
            except _Continue:
                continue
        self._block(node.orelse, names)

    def _turns(self, node: ast.For | ast.While, names: dict[str, Any]) -> Iterator[None]:
        if isinstance(node, ast.While):
            while self._value(node.test, names):
                yield
            return
        for value in self._value(node.iter, names):
            self._assign(node.target, value, names)
            yield

    def _assign(self, target: ast.expr, value: Any, names: dict[str, Any]) -> None:
        match target:
            case ast.Name():
                names[target.id] = value
            case ast.Subscript():
                held = self._value(target.value, names)
                held[self._index(target.slice, names)] = value
                self._checked(held)
            case ast.Tuple() | ast.List():
                values = list(value)
                starred = [i for i, each in enumerate(target.elts) if isinstance(each, ast.Starred)]
                if starred or len(values) != len(target.elts):
                    raise UntraceableError
                for each, part in zip(target.elts, values, strict=True):
                    self._assign(each, part, names)
            case _:
                raise UntraceableError

    def _function(self, node: ast.FunctionDef | ast.Lambda, outer: dict[str, Any]) -> Callable[..., Any]:
        a = node.args
        if a.vararg or a.kwarg or a.kwonlyargs or a.posonlyargs:
            raise UntraceableError
        parameters = [each.arg for each in a.args]
        defaults = [self._value(each, outer) for each in a.defaults]

        def call(*given: Any, **named: Any) -> Any:
            self._step()
            if self._depth >= MAX_CALLS or len(given) > len(parameters) or not set(named) <= set(parameters):
                raise UntraceableError
            filled = dict(zip(parameters[len(parameters) - len(defaults) :], defaults, strict=True))
            names = {**outer, **filled, **dict(zip(parameters, given, strict=False)), **named}
            self._depth += 1
            try:
                if isinstance(node, ast.Lambda):
                    return self._value(node.body, names)
                self._block(node.body, names)
            except _Return as returned:
                return returned.value
            finally:
                self._depth -= 1
            return None

        return call

    def _value(self, node: ast.expr, names: dict[str, Any]) -> Any:
        self._step()
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                return value
            case ast.Name():
                return names[node.id] if node.id in names else _FUNCTIONS[node.id]
            case ast.BinOp():
                return self._binary(node.op, self._value(node.left, names), self._value(node.right, names))
            case ast.UnaryOp():
                return _UNARY[type(node.op)](self._value(node.operand, names))
            case ast.BoolOp():
                value = None
                for each in node.values:
                    value = self._value(each, names)
                    if bool(value) is isinstance(node.op, ast.Or):
                        break
                return value
            case ast.Compare():
                left = self._value(node.left, names)
                for op, each in zip(node.ops, node.comparators, strict=True):
                    right = self._value(each, names)
                    if not _COMPARE[type(op)](left, right):
                        return False
                    left = right
                return True
            case ast.IfExp():
                return self._value(node.body if self._value(node.test, names) else node.orelse, names)
            case ast.List():
                return self._checked([self._value(each, names) for each in node.elts])
            case ast.Tuple():
                return self._checked(tuple(self._value(each, names) for each in node.elts))
            case ast.Set():
                return {self._value(each, names) for each in node.elts}
            case ast.Dict():
                pairs = zip(node.keys, node.values, strict=True)
                return self._checked({self._value(k, names): self._value(v, names) for k, v in pairs if k is not None})
            case ast.ListComp() | ast.GeneratorExp():
                return self._checked([self._value(node.elt, n) for n in self._scopes(node.generators, dict(names))])
            case ast.SetComp():
                return {self._value(node.elt, n) for n in self._scopes(node.generators, dict(names))}
            case ast.DictComp():
                scopes = self._scopes(node.generators, dict(names))
                return self._checked({self._value(node.key, n): self._value(node.value, n) for n in scopes})
            case ast.Subscript():
                return self._checked(self._value(node.value, names)[self._index(node.slice, names)])
            case ast.JoinedStr():
                return self._checked("".join(self._part(each, names) for each in node.values))
            case ast.Lambda():
                return self._function(node, names)
            case ast.Call():
                return self._call(node, names)
            case _:
                raise UntraceableError

    def _scopes(self, generators: list[ast.comprehension], names: dict[str, Any]) -> Iterator[dict[str, Any]]:
        first, *others = generators
        for value in self._value(first.iter, names):
            self._step()
            self._assign(first.target, value, names)
            if all(self._value(each, names) for each in first.ifs):
                if others:
                    yield from self._scopes(others, names)
                else:
                    yield names

    def _index(self, node: ast.expr, names: dict[str, Any]) -> Any:
        if not isinstance(node, ast.Slice):
            return self._value(node, names)
        ends = (node.lower, node.upper, node.step)
        return slice(*(None if each is None else self._value(each, names) for each in ends))

    def _part(self, node: ast.expr, names: dict[str, Any]) -> str:
        if isinstance(node, ast.FormattedValue):
            if node.format_spec is not None or node.conversion != -1:
                raise UntraceableError
            return str(self._checked(self._value(node.value, names)))
        return str(self._value(node, names))

    def _binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(op, ast.Pow):
            if not (isinstance(left, int) and isinstance(right, int) and abs(left) <= 1_000 and 0 <= right <= 20):
                raise UntraceableError
            return self._checked(left**right)
        if isinstance(op, ast.Mod) and isinstance(left, str):
            raise UntraceableError  # a width may be of any size
        if isinstance(op, ast.Mult):
            sizes = [abs(each) if isinstance(each, int) else _size(each) for each in (left, right)]
            if (
                not (isinstance(left, int | float) and isinstance(right, int | float))
                and sizes[0] * sizes[1] > MAX_SIZE
            ):
                raise UntraceableError
        return self._checked(_BINARY[type(op)](left, right))

    def _call(self, node: ast.Call, names: dict[str, Any]) -> Any:
        held = None
        if isinstance(node.func, ast.Attribute):
            held = self._value(node.func.value, names)
            if node.func.attr not in _METHODS.get(type(held), ()):
                raise UntraceableError
            function = getattr(held, node.func.attr)
        else:
            function = self._value(node.func, names)
            function = _rounded if function is round else function
            if not callable(function):
                raise UntraceableError
        if any(isinstance(each, ast.Starred) for each in node.args):
            raise UntraceableError
        given = [self._value(each, names) for each in node.args]
        named = {each.arg: self._value(each.value, names) for each in node.keywords if each.arg is not None}
        if isinstance(held, str) and any(
            isinstance(each, int) and abs(each) > MAX_SIZE for each in (*given, *named.values())
        ):
            raise UntraceableError  # a width may be of any size
        value = function(*given, **named)
        if isinstance(value, range) and len(value) > MAX_SIZE:
            raise UntraceableError
        if held is not None:
            self._checked(held)
        plain = value if isinstance(value, _PLAIN) or callable(value) else list(value)
        return plain if callable(plain) else self._checked(plain)


def _rounded(value: Any, ndigits: int | None = None) -> Any:
    if ndigits is not None and abs(ndigits) > _MOST_DIGITS:
        raise UntraceableError
    return round(value, ndigits)


def _size(value: Any, most: int = MAX_SIZE) -> int:
    """Items of a value with those inside of it, or characters.

    Raises:
        UntraceableError: there are more than `most`.
    """
    if isinstance(value, str | range):
        count = len(value)
    elif isinstance(value, list | tuple | set | frozenset | dict):
        count = len(value)
        if count <= most:
            for each in value.values() if isinstance(value, dict) else value:
                if not isinstance(each, int | float | None):
                    count += _size(each, most - count)
                    if count > most:
                        break
    else:
        count = 1
    if count > most:
        raise UntraceableError
    return count


def agrees(value: Any, stated: str) -> bool:
    """Whether a stated literal is this value; a string may stand without its quotes.

    >>> agrees([1, 2], "[1,2]"), agrees("ab", "ab"), agrees("ab", "'abc'")
    (True, True, False)
    """
    if isinstance(value, str) and stated.strip("\"'") == value.strip("\"'"):
        return True
    if len(stated) > MAX_PROGRAM_CHARACTERS:
        return False
    try:
        told = _quietly(ast.literal_eval, stated.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return type(told) is type(value) and bool(told == value)
