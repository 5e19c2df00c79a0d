"""Planning under constraints, small enough for exhaustive search."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations
from random import Random

from calibration.generation.draft import PEOPLE, TOWNS, Draft, Maker, asked, listed


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def meeting(rng: Random, level: int) -> Draft:
    """The earliest slot in which everybody is free."""
    length = rng.choice((30, 45, 60))
    people = rng.sample(PEOPLE, 2 + level)
    while True:
        busy = {person: _appointments(rng, 2 + level) for person in people}
        free = (
            start
            for start in range(9 * 60, 17 * 60 - length + 1, 15)
            if all(start + length <= a or start >= b for times in busy.values() for a, b in times)
        )
        first = next(free, None)
        if first is not None and first > 9 * 60:
            break
    told = "\n".join(f"{who}: {', '.join(f'{_clock(a)}-{_clock(b)}' for a, b in busy[who])}" for who in people)
    question = rng.choice(
        (
            "Find the earliest {length}-minute meeting between 09:00 and 17:00, starting on a quarter of an hour, at "
            "which everybody is free. Busy times:\n{told}\nWhen does it start (HH:MM)?",
            "these are our blocked times\n{told}\nwe need {length} min together today, 9 to 17h, start on :00/:15/:30/"
            ":45, as early as possible. start time as HH:MM?",
        )
    )
    return asked(rng, question.format(length=length, told=told), _clock(first), "exact", what="time as HH:MM")


def _appointments(rng: Random, count: int) -> list[tuple[int, int]]:
    times: list[tuple[int, int]] = []
    clock = 9 * 60 + rng.choice((0, 0, 15, 30))
    for _ in range(count):
        end = clock + rng.choice((30, 45, 60, 90))
        times.append((clock, min(end, 17 * 60)))
        clock = end + rng.choice((15, 30, 45, 60))
        if clock >= 16 * 60 + 30:
            break
    return times


_TASKS = ("design", "permits", "foundation", "walls", "wiring", "plumbing", "roof", "painting")


def project(rng: Random, level: int) -> Draft:
    """The minimum duration of a project with dependent and parallel tasks."""
    tasks = _TASKS[: 4 + 2 * level]
    days = {task: rng.randint(1, 9) for task in tasks}
    needs = {
        task: sorted(rng.sample(tasks[:i], rng.randint(0 if i < 2 else 1, min(i, 2)))) for i, task in enumerate(tasks)
    }
    done: dict[str, int] = {}
    for task in tasks:
        done[task] = days[task] + max((done[each] for each in needs[task]), default=0)
    told = "\n".join(
        f"- {task}: {days[task]} day{'s' * (days[task] > 1)}"
        + (f", after {listed(needs[task])}" if needs[task] else "")
        for task in tasks
    )
    question = rng.choice(
        (
            f"Tasks and what they wait for (any number can run at once):\n{told}\nIn how many days can all be finished?",
            f"I need the minimum duration of this project, parallel work allowed:\n{told}",
        )
    )
    return asked(rng, question, max(done.values()), what="number of days")


_GOODS = ("tent", "stove", "camera", "rope", "books", "telescope", "drone", "guitar")


def packing(rng: Random, level: int) -> Draft:
    """The most valuable load under a weight limit."""
    goods = rng.sample(_GOODS, 4 + 2 * level)
    weight = {each: rng.randint(1, 9) for each in goods}
    value = {each: rng.randint(5, 40) for each in goods}
    limit = sum(weight.values()) * 2 // 5 + 2
    loads = [load for n in range(len(goods) + 1) for load in combinations(goods, n)]
    best = max(sum(map(value.__getitem__, load)) for load in loads if sum(map(weight.__getitem__, load)) <= limit)
    told = "; ".join(f"{each} {weight[each]} kg, worth {value[each]}" for each in goods)
    question = rng.choice(
        (
            f"A sledge carries at most {limit} kg. Things to choose from (each once): {told}. What is the greatest total worth?",
            f"max {limit} kg on the bike trailer. {told}. best total value I can take, no splitting?",
        )
    )
    return asked(rng, question, best)


def tour(rng: Random, level: int) -> Draft:
    """The shortest round trip through several towns."""
    towns = rng.sample(TOWNS, 4 + (level > 0) + (level > 1))
    distance = {frozenset(pair): rng.randint(8, 60) for pair in combinations(towns, 2)}
    home = towns[0]
    best = min(
        sum(distance[frozenset(step)] for step in zip((home, *middle), (*middle, home), strict=True))
        for middle in permutations(towns[1:])
    )
    told = "\n".join(f"{a} - {b}: {distance[frozenset((a, b))]} km" for a, b in combinations(towns, 2))
    question = (
        f"A courier starts in {home}, visits {listed(towns[1:])} once each in any order, and returns to {home}.\n"
        f"{told}\nHow long is the shortest tour in km?"
    )
    return asked(rng, question, best)


def table(rng: Random, level: int) -> Draft:
    """The number of seating orders that satisfy some rules."""
    people = rng.sample(PEOPLE, 4 + (level > 0))
    a, b, c = people[:3]
    rules: list[tuple[str, Callable[[tuple[str, ...]], bool]]] = [
        (f"{a} and {b} must sit next to each other", lambda s: abs(s.index(a) - s.index(b)) == 1),
        (f"{c} must not sit at either end", lambda s: s.index(c) not in (0, len(s) - 1)),
        (f"{a} must sit somewhere left of {c}", lambda s: s.index(a) < s.index(c)),
    ]
    chosen = rng.sample(rules, 1 + level)
    ways = sum(1 for seats in permutations(people) if all(test(seats) for _, test in chosen))
    question = (
        f"{listed(people)} sit in a row of {len(people)} chairs. {'; '.join(text for text, _ in chosen)}. "
        "How many seatings are there?"
    )
    return asked(rng, question, ways)


KINDS: dict[str, tuple[Maker, ...]] = {"planning/constraints": (meeting, project, packing, tour, table)}
