"""Competition mathematics that is small enough for exhaustive search."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import product
from math import comb, gcd, isqrt
from random import Random

from calibration.generation.draft import Draft, Maker, asked


def counting(rng: Random, level: int) -> Draft:
    """Count the integers in a range that have some properties."""
    top = (100, 500, 2_000)[level]
    a, b = rng.sample((3, 4, 5, 6, 7, 8, 9, 11), 2)
    digit = rng.randint(1, 9)
    tests: tuple[tuple[str, Callable[[int], bool]], ...] = (
        (f"divisible by {a} or by {b}, but not by both", lambda n: (n % a == 0) != (n % b == 0)),
        (f"divisible by {a} and having no digit {digit}", lambda n: n % a == 0 and str(digit) not in str(n)),
        (f"whose digits add up to {digit + 4}", lambda n: sum(map(int, str(n))) == digit + 4),
        (f"coprime to {a * b}", lambda n: gcd(n, a * b) == 1),
        ("that are perfect squares or perfect cubes", lambda n: isqrt(n) ** 2 == n or round(n ** (1 / 3)) ** 3 == n),
    )
    told, test = rng.choice(tests)
    top += rng.randint(0, 99)
    question = rng.choice(
        (
            f"How many positive integers $n \\le {top}$ are there {told}?",
            f"Count the integers from 1 to {top} {told}.",
        )
    )
    return asked(rng, question, sum(1 for n in range(1, top + 1) if test(n)))


def powers(rng: Random, level: int) -> Draft:
    """The remainder of a large power."""
    base, exponent = rng.randint(2, 19), rng.randint(20, (60, 300, 5_000)[level])
    modulus = rng.choice(((7, 9, 11, 13), (17, 23, 31, 100), (97, 101, 1_000, 1_001))[level])
    question = rng.choice(
        (
            f"Find the remainder of ${base}^{{{exponent}}}$ on division by ${modulus}$.",
            f"What is {base}^{exponent} mod {modulus}?",
        )
    )
    return asked(rng, question, pow(base, exponent, modulus))


def paths(rng: Random, level: int) -> Draft:
    """Count lattice paths that avoid a blocked point."""
    width, height = rng.randint(3, 4 + level), rng.randint(3, 4 + level)
    blocked = (rng.randint(1, width - 1), rng.randint(1, height - 1)) if level else None
    ways: dict[tuple[int, int], int] = {}
    for x, y in product(range(width + 1), range(height + 1)):
        free = (x, y) != blocked
        ways[x, y] = free * (1 if x == y == 0 else ways.get((x - 1, y), 0) + ways.get((x, y - 1), 0))
    if blocked is None:
        assert ways[width, height] == comb(width + height, width)
    without = f" without passing through $({blocked[0]},{blocked[1]})$" if blocked else ""
    question = (
        f"A token moves on lattice points from $(0,0)$ to $({width},{height})$ by steps of one unit right or up"
        f"{without}. How many routes are there?"
    )
    return asked(rng, question, ways[width, height])


def dice(rng: Random, level: int) -> Draft:
    """A probability with fair dice, as a fraction."""
    count, sides = (2, 3, 3)[level], rng.choice(((6,), (6,), (6, 8))[level])
    total = rng.randint(count + 2, count * sides - 2)
    rolls = list(product(range(1, sides + 1), repeat=count))
    events: list[tuple[str, Callable[[tuple[int, ...]], bool]]] = [
        (f"the sum is exactly {total}", lambda roll: sum(roll) == total),
        (f"the sum is at least {total}", lambda roll: sum(roll) >= total),
        ("the highest roll occurs only once", lambda roll: roll.count(max(roll)) == 1),
    ]
    told, event = rng.choice(events[: 2 + (level > 0)])
    chance = Fraction(sum(1 for roll in rolls if event(roll)), len(rolls))
    question = f"{count} fair {sides}-sided dice are rolled. Find the probability that {told}, as a reduced fraction."
    return asked(rng, question, str(chance), what="fraction")


def solutions(rng: Random, level: int) -> Draft:
    """Count the integer solutions of an equation or an inequality."""
    a, b = rng.randint(2, 5), rng.randint(2, 7)
    total = rng.randint(20, (50, 90, 200)[level])
    if level == 2:
        found = sum(1 for x, y in product(range(-total, total + 1), repeat=2) if x * x + y * y <= total)
        return asked(rng, f"How many pairs of integers $(x,y)$ satisfy $x^2+y^2\\le {total}$?", found)
    found = sum(1 for x, y in product(range(1, total), repeat=2) if a * x + b * y == total)
    return asked(rng, f"How many pairs of positive integers $(x,y)$ satisfy ${a}x+{b}y={total}$?", found)


def digits(rng: Random, level: int) -> Draft:
    """Trailing zeros of a factorial, the number of divisors, or the digit sum of a product."""
    if level == 0:
        number = rng.randint(30, 400)
        found = sum(1 for d in range(1, number + 1) if number % d == 0)
        return asked(rng, f"How many positive divisors has {number}?", found)
    if level == 1:
        number = rng.randint(20, 130)
        value = 1
        for factor in range(2, number + 1):
            value *= factor
        zeros = len(str(value)) - len(str(value).rstrip("0"))
        return asked(rng, f"With how many zeros does $ {number}! $ end?", zeros)
    nines = rng.randint(8, 30)
    factor = rng.randint(12, 998)
    value = (10**nines - 1) * factor
    question = f"Let $N$ be the number written with {nines} nines. Find the sum of the digits of ${factor}N$."
    return asked(rng, question, sum(map(int, str(value))))


KINDS: dict[str, tuple[Maker, ...]] = {
    "math/competition": (counting, powers, paths, dice, solutions, digits),
}
