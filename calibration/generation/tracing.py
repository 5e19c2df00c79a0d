"""Questions about the result of a Python program; running the program computes the reference."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from calibration.generation.draft import Draft, Maker, asked

_WORDS = ("lantern", "gravel", "meadow", "cobalt", "thimble", "orchard", "violet", "hammock", "pebble", "sardine")


def _filtering(rng: Random, level: int) -> tuple[str, str]:
    values = [rng.randint(-9, 20) for _ in range(4 + 2 * level)]
    step, cut = rng.randint(2, 4), rng.randint(3, 9)
    body = f"""def f(xs):
    out = []
    for i, x in enumerate(xs):
        if x % {step} == 0:
            continue
        out.append(x * i if x > {cut} else x - i)
    return out{"" if level == 0 else "[::-1]" if level == 1 else "[1:-1]"}"""
    return body, f"f({values})"


def _letters(rng: Random, level: int) -> tuple[str, str]:
    word = "".join(rng.sample(_WORDS, 1 + (level == 2)))
    body = f"""def f(s):
    seen = {{}}
    for c in s:
        seen[c] = seen.get(c, 0) + 1
    keep = [c for c in s if seen[c] == {1 if level < 2 else 2}]
    return ''.join({"keep" if level == 0 else "reversed(keep)"}) + str(len(seen))"""
    return body, f"f({word!r})"


def _grid(rng: Random, level: int) -> tuple[str, str]:
    size = 2 + (level > 0)
    grid = [[rng.randint(0, 9) for _ in range(size)] for _ in range(size)]
    twist = ("g[j][i]", "g[j][i] - g[i][j]", "g[j][len(g) - 1 - i]")[level]
    body = f"""def f(g):
    n = len(g)
    return [[{twist} for j in range(n)] for i in range(n)]"""
    return body, f"f({grid})"


def _loop(rng: Random, level: int) -> tuple[str, str]:
    start, add, limit = rng.randint(3, 30), rng.randint(1, 7), (5, 9, 14)[level]
    body = f"""def f(n):
    steps = 0
    while n != 1 and steps < {limit}:
        n = n // 2 if n % 2 == 0 else 3 * n + {1 if level < 2 else add * 2 - 1}
        steps += 1
    return n, steps"""
    return body, f"f({start})"


def _recursion(rng: Random, level: int) -> tuple[str, str]:
    a, b = rng.randint(1, 3), rng.randint(1, 4)
    body = f"""def f(n, memo=None):
    memo = {{}} if memo is None else memo
    if n < {2 + (level > 1)}:
        return n + {b}
    if n not in memo:
        memo[n] = f(n - 1, memo) {rng.choice("+-")} {a} * f(n - 2, memo)
    return memo[n]"""
    return body, f"f({rng.randint(4, (5, 8, 11)[level])})"


def _mutation(rng: Random, level: int) -> tuple[str, str]:
    values = [rng.randint(1, 9) for _ in range(3 + level)]
    second = ("b = a", "b = a[:]", "b = a if len(a) % 2 else list(a)")[level]
    body = f"""def f(a):
    {second}
    b.append({rng.randint(10, 20)})
    a[0] += b[-1]
    a.sort({"reverse=True" if rng.random() < 0.5 else ""})
    return sum(a) - len(b), b[0]"""
    return body, f"f({values})"


def _generator(rng: Random, level: int) -> tuple[str, str]:
    values = [rng.randint(1, 12) for _ in range(5 + level)]
    body = f"""def g(xs):
    total = 0
    for x in xs:
        if x == {rng.choice(values)}:
            total = {rng.randint(-3, 3)}
        total += x
        yield total

def f(xs):
    try:
        return max(g(xs)) - {"min(g(xs))" if level else "xs[0]"}
    finally:
        xs.clear()"""
    return body, f"f({values})"


def _slicing(rng: Random, level: int) -> tuple[str, str]:
    word = rng.choice(_WORDS) + rng.choice(_WORDS)[:3]
    a, b, step = rng.randint(0, 3), rng.randint(1, 3), rng.choice(((1, 2), (2, -1), (-2, 3))[level])
    body = f"""def f(s):
    t = s[{a}:-{b}][::{step}]
    return t.replace(t[0], '{rng.choice("*#-")}') + s[{b}].upper()"""
    return body, f"f({word!r})"


def _closure(rng: Random, level: int) -> tuple[str, str]:
    values = [rng.randint(1, 6) for _ in range(3)]
    late = "lambda x: x * n" if level == 2 else "lambda x, n=n: x * n"
    body = f"""def f(ns):
    fs = []
    for n in ns:
        fs.append({late})
    return [g({rng.randint(2, 9)}) for g in fs]{"" if level == 0 else "[::-1]"}"""
    return body, f"f({values})"


def _stack(rng: Random, level: int) -> tuple[str, str]:
    signs = [rng.choice("+-*") for _ in range(2 + level)]
    tokens = [str(rng.randint(1, 9)) for _ in range(2)] + [signs[0]]
    for sign in signs[1:]:
        tokens += [str(rng.randint(1, 9)), sign]
    body = """def f(s):
    stack = []
    for t in s.split():
        if t.isdigit():
            stack.append(int(t))
        else:
            b, a = stack.pop(), stack.pop()
            stack.append(a + b if t == '+' else a - b if t == '-' else a * b)
    return stack"""
    return body, f"f({' '.join(tokens)!r})"


def _records(rng: Random, level: int) -> tuple[str, str]:
    names = rng.sample(("ada", "bob", "cy", "dee", "eli"), 3 + (level > 0))
    log = [(rng.choice(names), rng.randint(-5, 12)) for _ in range(5 + 2 * level)]
    body = f"""class Account:
    def __init__(self):
        self.total, self.refused = 0, 0

    def book(self, amount):
        if self.total + amount < {-2 * level}:
            self.refused += 1
            return
        self.total += amount

def f(log):
    accounts = {{}}
    for name, amount in log:
        accounts.setdefault(name, Account()).book(amount)
    return sorted((a.total, a.refused) for a in accounts.values())"""
    return body, f"f({log})"


_ASK_PYTHON = (
    ("en", "{code}\n\nprint({call})\n\nWhat does this print?"),
    ("en", "Complete the assertion with a literal, and don't run anything:\n\n{code}\n\nassert {call} == ??"),
    ("en", "```python\n{code}\n```\nvalue of `{call}`?"),
    ("en", "Trace this by hand, please. What does {call} return?\n\n```python\n{code}\n```"),
    ("de", "Was gibt {call} zurück?\n\n```python\n{code}\n```"),
    ("fr", "Que renvoie {call} ?\n\n```python\n{code}\n```"),
    ("zh", "下面的代码中 {call} 的返回值是什么？\n\n```python\n{code}\n```"),
    ("ja", "{call} の戻り値は何ですか。\n\n```python\n{code}\n```"),
    ("pt", "O que {call} devolve?\n\n```python\n{code}\n```"),
)


def _asking(program: Callable[[Random, int], tuple[str, str]]) -> Maker:
    """A maker of questions about the return value of a kind of program."""
    return lambda rng, level: _python(rng, *program(rng, level))


def _python(rng: Random, code: str, call: str) -> Draft:
    scope: dict[str, object] = {}
    exec(code, scope)  # noqa: S102  code of this module
    result = eval(call, scope)  # noqa: S307  code of this module
    language, text = rng.choice(_ASK_PYTHON)
    question = text.format(code=code, call=call)
    return asked(rng, question, _spellings(result), "exact", what="Python literal", language=language)


_PROGRAMS = (
    *(_filtering, _letters, _grid, _loop, _recursion, _mutation, _generator, _slicing, _closure, _stack, _records),
)


def _spellings(result: object) -> list[str] | str:
    """The accepted spellings: the literal, the output of `print`, and the literal without spaces."""
    written = list(dict.fromkeys([repr(result), str(result), repr(result).replace(" ", "")]))
    if isinstance(result, tuple):
        written.append(repr(result)[1:-1])
    return written if len(written) > 1 else written[0]


KINDS: dict[str, tuple[Maker, ...]] = {"code/execution-tracing": tuple(map(_asking, _PROGRAMS))}
