"""Logic puzzles with one solution, found by exhaustive search, and conclusions checked with truth tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import permutations, product
from random import Random

from calibration.generation.draft import PEOPLE, Draft, Maker, asked, listed

_PETS = ("cat", "parrot", "tortoise", "hamster", "rabbit")
_DRINKS = ("tea", "cocoa", "cider", "water", "mate")
World = Mapping[str, int]  # person or thing -> house number
Clue = tuple[str, Callable[[World], bool]]


def _worlds(people: Sequence[str], pets: Sequence[str], drinks: Sequence[str]) -> Iterator[dict[str, int]]:
    places = range(1, len(people) + 1)
    for one in permutations(places):
        for two in permutations(places):
            for three in permutations(places) if drinks else [()]:
                yield dict(zip([*people, *pets, *drinks], [*one, *two, *three], strict=True))


def _clues(people: Sequence[str], pets: Sequence[str], drinks: Sequence[str], truth: World) -> list[Clue]:
    """All true clues of a few simple forms."""
    owns = [*((p, f"the owner of the {p}") for p in pets), *((d, f"whoever drinks {d}") for d in drinks)]
    named = [*((p, p) for p in people), *owns]
    clues: list[Clue] = []
    for a, told in named:
        for b, other in named:
            if a == b or (a in people and b in people and truth[a] > truth[b]):
                continue
            if truth[a] == truth[b] and a in people:
                clues.append((f"{told} is {other}", partial(lambda a, b, w: w[a] == w[b], a, b)))
            elif truth[a] == truth[b] - 1:
                clues.append(
                    (f"{told} lives directly to the left of {other}", partial(lambda a, b, w: w[a] == w[b] - 1, a, b))
                )
            elif truth[a] < truth[b] - 1:
                clues.append((f"{told} lives somewhere left of {other}", partial(lambda a, b, w: w[a] < w[b], a, b)))
            if a in people and b not in people and truth[a] != truth[b]:
                clues.append((f"{told} is not {other}", partial(lambda a, b, w: w[a] != w[b], a, b)))
    return clues


def houses(rng: Random, level: int) -> Draft:
    """A house puzzle: true clues in random order, until they leave one solution."""
    count = 3 + (level > 0)
    people, pets = rng.sample(PEOPLE, count), rng.sample(_PETS, count)
    drinks = rng.sample(_DRINKS, count) if level != 1 else []
    worlds = list(_worlds(people, pets, drinks))
    truth = rng.choice(worlds)
    pet = rng.choice(pets)
    owner = next(person for person in people if truth[person] == truth[pet])
    clues = [clue for clue in _clues(people, pets, drinks, truth) if clue[0] != f"{owner} is the owner of the {pet}"]
    rng.shuffle(clues)
    kept: list[Clue] = []
    left = worlds
    for clue in clues:
        fewer = [world for world in left if clue[1](world)]
        if len(fewer) < len(left):
            kept.append(clue)
            left = fewer
        if len(left) == 1:
            break
    assert left == [truth]
    told = "\n".join(f"- {text[0].upper()}{text[1:]}." for text, _ in kept)
    drink = f" and drink different things ({', '.join(sorted(drinks))})" if drinks else ""
    question = (
        f"{listed(people)} live in houses 1 to {count}, numbered from left to right. They keep different pets "
        f"({', '.join(sorted(pets))}){drink}.\n\n{told}\n\nWho keeps the {pet}?"
    )
    return asked(rng, question, owner, "exact", what="name")


def knights(rng: Random, level: int) -> Draft:
    """Knights tell the truth and knaves lie: statements are drawn until one solution is left."""
    people = rng.sample(PEOPLE, 2 + level)
    worlds = [dict(zip(people, kinds, strict=True)) for kinds in product((True, False), repeat=len(people))]
    while True:
        said = [(speaker, *_statement(rng, speaker, people)) for speaker in people]
        fits = [world for world in worlds if all(world[who] == claim(world) for who, _, claim in said)]
        if len(fits) == 1:
            break
    knights = [person for person in people if fits[0][person]]
    told = "\n".join(f'{who}: "{text}"' for who, text, _ in said)
    question = (
        f"On an island knights always tell the truth and knaves always lie. You meet {listed(people)}, each a knight "
        f"or a knave.\n\n{told}\n\nHow many knights are there"
    )
    if level == 0:
        return asked(rng, f"{question}?", len(knights))
    who = rng.choice(people)
    kind = "knight" if fits[0][who] else "knave"
    question = question.replace("How many knights are there", f"What is {who}, knight or knave?")
    return asked(rng, question, kind, "exact", what="word knight or knave")


def _statement(rng: Random, speaker: str, people: Sequence[str]) -> tuple[str, Callable[[Mapping[str, bool]], bool]]:
    a, b = (rng.choice([p for p in people if p != speaker]), rng.choice(people))
    name = "I" if b == speaker else b
    forms: list[tuple[str, Callable[[Mapping[str, bool]], bool]]] = [
        (f"{a} is a knave.", lambda w: not w[a]),
        (f"{a} is a knight.", lambda w: w[a]),
        ("At least one of us is a knave.", lambda w: not all(w.values())),
        ("Exactly one of us is a knight.", lambda w: sum(w.values()) == 1),
    ]
    if a != b:
        forms.append((f"Either {a} or {name}, but not both, tells the truth.", lambda w: w[a] != w[b]))
    return rng.choice(forms)


def ranking(rng: Random, level: int) -> Draft:
    """The person at a given place of a race, from comparisons."""
    people = rng.sample(PEOPLE, 4 + level)
    orders = list(permutations(people))
    truth = rng.choice(orders)
    pool: list[tuple[str, Callable[[tuple[str, ...]], bool]]] = []
    for a, b in permutations(people, 2):
        gap = truth.index(b) - truth.index(a)
        if gap > 0:
            pool.append((f"{a} finished before {b}", partial(lambda a, b, o: o.index(a) < o.index(b), a, b)))
        if gap == 2:
            pool.append(
                (f"exactly one runner came in between {a} and {b}", partial(lambda a, b, o: _apart(o, a, b) == 2, a, b))
            )
        if gap == 1 and level < 2:
            pool.append((f"{b} came in right after {a}", partial(lambda a, b, o: o.index(b) == o.index(a) + 1, a, b)))
    rng.shuffle(pool)
    kept, left = [], orders
    for text, test in pool:
        fewer = [order for order in left if test(order)]
        if len(fewer) < len(left):
            kept.append(text)
            left = fewer
    assert left == [truth]
    place = rng.randint(1, len(people))
    question = f"{listed(sorted(people))} ran a race without ties. {'. '.join(text[0].upper() + text[1:] for text in kept)}. Who came in at place {place}?"
    return asked(rng, question, truth[place - 1], "exact", what="name")


def _apart(order: Sequence[str], a: str, b: str) -> int:
    return abs(order.index(a) - order.index(b))


_THINGS = (
    ("the lamp is lit", "the lamp is not lit"),
    ("the gate is open", "the gate is not open"),
    ("the pump runs", "the pump does not run"),
    ("the bell rings", "the bell does not ring"),
    ("it rains", "it does not rain"),
)


def conclusion(rng: Random, level: int) -> Draft:
    """Whether a conclusion follows: yes, no or undetermined, by truth table."""
    count = 3 + (level > 0)
    things = rng.sample(_THINGS, count)
    worlds = list(product((True, False), repeat=count))
    while True:
        rules = [_rule(rng, things) for _ in range(2 + level)]
        fact, holds = rng.randrange(count), rng.random() < 0.5
        left = [w for w in worlds if w[fact] == holds and all(rule(w) for _, rule in rules)]
        asked_for = rng.choice([i for i in range(count) if i != fact])
        if left and len({text for text, _ in rules}) == len(rules):
            break
    values = {world[asked_for] for world in left}
    answer = "undetermined" if len(values) == 2 else "yes" if values == {True} else "no"
    given = [*(text for text, _ in rules), things[fact][0 if holds else 1]]
    told = " ".join(f"{text[0].upper()}{text[1:]}." for text in given)
    question = rng.choice(
        (
            "{told} Is it certain that {what}? Reply with one word: yes, no (it is certainly false), or undetermined.",
            "Given: {told}\nDoes it follow that {what}? One word: yes / no / undetermined, where no means it must be "
            "false.",
        )
    )
    return Draft(question.format(told=told, what=things[asked_for][0]), answer, "exact")


def _rule(rng: Random, things: Sequence[tuple[str, str]]) -> tuple[str, Callable[[tuple[bool, ...]], bool]]:
    (i, j), a, b = rng.sample(range(len(things)), 2), rng.random() < 0.6, rng.random() < 0.6
    one, two = things[i][0 if a else 1], things[j][0 if b else 1]
    forms: list[tuple[str, Callable[[tuple[bool, ...]], bool]]] = [
        (f"if {one}, then {two}", lambda w: w[i] != a or w[j] == b),
        (f"{one} or {two}, or both", lambda w: w[i] == a or w[j] == b),
    ]
    if a:  # "the gate is not open only if ..." is ambiguous
        forms.append((f"{one} only if {two}", lambda w: not w[i] or w[j] == b))
    return rng.choice(forms)


KINDS: dict[str, tuple[Maker, ...]] = {
    "logic/puzzles": (houses, knights, ranking),
    "logic/deduction": (conclusion,),
}
