"""Interprets a small subset of Python without running it: built-in values and their methods only.

Imports, classes, files, and attributes other than methods are not supported. Steps, call depth and sizes are limited.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any

from router.policy.interpreted_values import (
    COMPARE,
    FUNCTIONS,
    MAX_INTEGER,
    MAX_SIZE,
    METHODS,
    UNARY,
    VALUE_TYPES,
    UnsupportedProgramError,
    apply_binary,
    size_of,
)

MAX_STEPS = 4_000
MAX_CALL_DEPTH = 20
_SIZE_PER_STEP = 16  # a value costs a step for each 16 items or characters

Scope = dict[str, Any]


class _Return(Exception):  # noqa: N818 - control flow
    def __init__(self, value: Any) -> None:
        self.value = value


class _Break(Exception):  # noqa: N818 - control flow
    pass


class _Continue(Exception):  # noqa: N818 - control flow
    pass


class Interpreter:
    """Interprets one program. The limits on steps and call depth hold for the whole program."""

    def __init__(self) -> None:
        self._steps = self._depth = 0

    def run(self, module: ast.Module) -> tuple[Any] | None:
        """The value that a program is about, in a tuple; None if it has no such value.

        It is the left side of the last `assert`, the argument of the last `print`, or the last expression.

        Raises:
            UnsupportedProgramError: the program uses a feature that is not interpreted, or exceeds a limit.
            Exception: whatever the program raises.
        """
        scope: Scope = {}
        result: tuple[Any] | None = None
        for statement in module.body:
            if isinstance(statement, ast.Assert) and isinstance(statement.test, ast.Compare):
                result = (self._evaluate(statement.test.left, scope),)
            elif isinstance(statement, ast.Expr):
                value = statement.value
                if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
                    value = value.args[0]
                result = (self._evaluate(value, scope),)
            else:
                self._execute(statement, scope)
        return result if result is not None and isinstance(result[0], VALUE_TYPES) else None

    def _count_steps(self, count: int = 1) -> None:
        self._steps += count
        if self._steps > MAX_STEPS:
            raise UnsupportedProgramError

    def _checked(self, value: Any) -> Any:
        """The value itself, once its size is checked and counted."""
        if isinstance(value, int | float | None):
            if not isinstance(value, bool | None) and abs(value) > MAX_INTEGER:
                raise UnsupportedProgramError
            return value
        self._count_steps(size_of(value) // _SIZE_PER_STEP)
        return value

    def _execute_all(self, statements: list[ast.stmt], scope: Scope) -> None:
        for statement in statements:
            self._execute(statement, scope)

    def _execute(self, node: ast.stmt, scope: Scope) -> None:
        self._count_steps()
        match node:
            case ast.FunctionDef(decorator_list=[]):
                scope[node.name] = self._function(node, scope)
            case ast.Return():
                raise _Return(None if node.value is None else self._evaluate(node.value, scope))
            case ast.Assign():
                value = self._evaluate(node.value, scope)
                for target in node.targets:
                    self._assign(target, value, scope)
            case ast.AnnAssign(value=ast.expr() as expression):
                self._assign(node.target, self._evaluate(expression, scope), scope)
            case ast.AugAssign():
                self._assign_augmented(node, scope)
            case ast.For() | ast.While():
                self._loop(node, scope)
            case ast.If():
                self._execute_all(node.body if self._evaluate(node.test, scope) else node.orelse, scope)
            case ast.Expr():
                self._evaluate(node.value, scope)
            case ast.Delete(targets=[ast.Subscript() as target]):
                del self._evaluate(target.value, scope)[self._index(target.slice, scope)]
            case ast.Pass():
                pass
            case ast.Break():
                raise _Break
            case ast.Continue():
                raise _Continue
            case _:
                raise UnsupportedProgramError

    def _assign_augmented(self, node: ast.AugAssign, scope: Scope) -> None:
        left, right = self._evaluate(node.target, scope), self._evaluate(node.value, scope)
        if isinstance(left, list) and isinstance(node.op, ast.Add):
            left.extend(right)
            self._checked(left)
        else:
            self._assign(node.target, self._checked(apply_binary(node.op, left, right)), scope)

    def _loop(self, node: ast.For | ast.While, scope: Scope) -> None:
        for _ in self._iterations(node, scope):
            self._count_steps()
            try:
                self._execute_all(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self._execute_all(node.orelse, scope)

    def _iterations(self, node: ast.For | ast.While, scope: Scope) -> Iterator[None]:
        if isinstance(node, ast.While):
            while self._evaluate(node.test, scope):
                yield
            return
        for value in self._evaluate(node.iter, scope):
            self._assign(node.target, value, scope)
            yield

    def _assign(self, target: ast.expr, value: Any, scope: Scope) -> None:
        match target:
            case ast.Name():
                scope[target.id] = value
            case ast.Subscript():
                container = self._evaluate(target.value, scope)
                container[self._index(target.slice, scope)] = value
                self._checked(container)
            case ast.Tuple() | ast.List():
                values = list(value)
                if any(isinstance(item, ast.Starred) for item in target.elts) or len(values) != len(target.elts):
                    raise UnsupportedProgramError
                for item, part in zip(target.elts, values, strict=True):
                    self._assign(item, part, scope)
            case _:
                raise UnsupportedProgramError

    def _function(self, node: ast.FunctionDef | ast.Lambda, outer: Scope) -> Callable[..., Any]:
        signature = node.args
        if signature.vararg or signature.kwarg or signature.kwonlyargs or signature.posonlyargs:
            raise UnsupportedProgramError
        parameters = [parameter.arg for parameter in signature.args]
        defaults = [self._evaluate(default, outer) for default in signature.defaults]

        def call(*positional: Any, **named: Any) -> Any:
            self._count_steps()
            too_deep = self._depth >= MAX_CALL_DEPTH
            if too_deep or len(positional) > len(parameters) or not set(named) <= set(parameters):
                raise UnsupportedProgramError
            default_values = dict(zip(parameters[len(parameters) - len(defaults) :], defaults, strict=True))
            scope = {**outer, **default_values, **dict(zip(parameters, positional, strict=False)), **named}
            self._depth += 1
            try:
                if isinstance(node, ast.Lambda):
                    return self._evaluate(node.body, scope)
                self._execute_all(node.body, scope)
            except _Return as returned:
                return returned.value
            finally:
                self._depth -= 1
            return None

        return call

    def _evaluate(self, node: ast.expr, scope: Scope) -> Any:
        self._count_steps()
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                return value
            case ast.Name():
                return scope[node.id] if node.id in scope else FUNCTIONS[node.id]
            case ast.BinOp():
                left, right = self._evaluate(node.left, scope), self._evaluate(node.right, scope)
                return self._checked(apply_binary(node.op, left, right))
            case ast.UnaryOp():
                return UNARY[type(node.op)](self._evaluate(node.operand, scope))
            case ast.BoolOp():
                return self._boolean(node, scope)
            case ast.Compare():
                return self._compare(node, scope)
            case ast.IfExp():
                return self._evaluate(node.body if self._evaluate(node.test, scope) else node.orelse, scope)
            case ast.Subscript():
                return self._checked(self._evaluate(node.value, scope)[self._index(node.slice, scope)])
            case ast.JoinedStr():
                return self._checked("".join(self._format(part, scope) for part in node.values))
            case ast.Lambda():
                return self._function(node, scope)
            case ast.Call():
                return self._call(node, scope)
            case _:
                return self._collection(node, scope)

    def _collection(self, node: ast.expr, scope: Scope) -> Any:
        match node:
            case ast.List():
                return self._checked([self._evaluate(item, scope) for item in node.elts])
            case ast.Tuple():
                return self._checked(tuple(self._evaluate(item, scope) for item in node.elts))
            case ast.Set():
                return {self._evaluate(item, scope) for item in node.elts}
            case ast.Dict():
                pairs = [(key, value) for key, value in zip(node.keys, node.values, strict=True) if key is not None]
                return self._checked({self._evaluate(k, scope): self._evaluate(v, scope) for k, v in pairs})
            case ast.ListComp() | ast.GeneratorExp():
                scopes = self._scopes(node.generators, dict(scope))
                return self._checked([self._evaluate(node.elt, inner) for inner in scopes])
            case ast.SetComp():
                return {self._evaluate(node.elt, inner) for inner in self._scopes(node.generators, dict(scope))}
            case ast.DictComp():
                scopes = self._scopes(node.generators, dict(scope))
                return self._checked({self._evaluate(node.key, s): self._evaluate(node.value, s) for s in scopes})
            case _:
                raise UnsupportedProgramError

    def _boolean(self, node: ast.BoolOp, scope: Scope) -> Any:
        value = None
        for operand in node.values:
            value = self._evaluate(operand, scope)
            if bool(value) is isinstance(node.op, ast.Or):
                break
        return value

    def _compare(self, node: ast.Compare, scope: Scope) -> bool:
        left = self._evaluate(node.left, scope)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self._evaluate(comparator, scope)
            if not COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def _scopes(self, generators: list[ast.comprehension], scope: Scope) -> Iterator[Scope]:
        """The scope of a comprehension, once for each combination of its variables; it is changed in place."""
        first, *others = generators
        for value in self._evaluate(first.iter, scope):
            self._count_steps()
            self._assign(first.target, value, scope)
            if all(self._evaluate(condition, scope) for condition in first.ifs):
                if others:
                    yield from self._scopes(others, scope)
                else:
                    yield scope

    def _index(self, node: ast.expr, scope: Scope) -> Any:
        if not isinstance(node, ast.Slice):
            return self._evaluate(node, scope)
        bounds = (node.lower, node.upper, node.step)
        return slice(*(None if bound is None else self._evaluate(bound, scope) for bound in bounds))

    def _format(self, node: ast.expr, scope: Scope) -> str:
        if isinstance(node, ast.FormattedValue):
            if node.format_spec is not None or node.conversion != -1:
                raise UnsupportedProgramError
            return str(self._checked(self._evaluate(node.value, scope)))
        return str(self._evaluate(node, scope))

    def _call(self, node: ast.Call, scope: Scope) -> Any:
        owner = None
        if isinstance(node.func, ast.Attribute):
            owner = self._evaluate(node.func.value, scope)
            if node.func.attr not in METHODS.get(type(owner), ()):
                raise UnsupportedProgramError
            function = getattr(owner, node.func.attr)
        else:
            function = self._evaluate(node.func, scope)
            if not callable(function):
                raise UnsupportedProgramError
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            raise UnsupportedProgramError
        positional = [self._evaluate(argument, scope) for argument in node.args]
        named = {keyword.arg: self._evaluate(keyword.value, scope) for keyword in node.keywords if keyword.arg}
        if isinstance(owner, str):
            for argument in (*positional, *named.values()):
                if isinstance(argument, int) and abs(argument) > MAX_SIZE:
                    raise UnsupportedProgramError  # a field width
        value = function(*positional, **named)
        if isinstance(value, range) and len(value) > MAX_SIZE:
            raise UnsupportedProgramError
        if owner is not None:
            self._checked(owner)
        if callable(value):
            return value
        return self._checked(value if isinstance(value, VALUE_TYPES) else list(value))
