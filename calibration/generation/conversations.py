"""Conversations with a state that changes over the turns: lists, scores, seats, appointments."""

from __future__ import annotations

from random import Random

from calibration.generation.draft import PEOPLE, Draft, Maker, written_lists

_FOOD = ("apples", "bread", "cheese", "eggs", "flour", "honey", "lentils", "milk", "olives", "rice", "tea", "yeast")


def shopping_list(rng: Random, level: int) -> Draft:
    """A shopping list with items added and removed over the turns."""
    items = rng.sample(_FOOD, 3)
    before = [f"Keep a shopping list for me: {', '.join(items)}.", rng.choice(("Noted.", "Got it, three things."))]
    for _ in range(1 + 2 * level):
        new = rng.choice([food for food in _FOOD if food not in items])
        if len(items) > 2 and rng.random() < 0.5:
            old = items.pop(rng.randrange(len(items)))
            before += [f"We have {old} after all, take it off. But add {new}.", "Done."]
        else:
            before += [rng.choice((f"and {new}", f"Oh, {new} too.")), "Added."]
        items.append(new)
    question = "So what's on it now? Alphabetical, lower case, comma-separated, nothing else."
    return Draft(question, written_lists(sorted(items)), "exact", before=tuple(before))


def scores(rng: Random, level: int) -> Draft:
    """The score of a game, reported over several turns; one entry is corrected at the hard level."""
    a, b = rng.sample(PEOPLE, 2)
    points = {a: 0, b: 0}
    before = [f"I'll tell you points of a card game, {a} against {b}. Just say ok.", "ok"]
    last = (a, 0)
    for _ in range(3 + 2 * level):
        last = (rng.choice((a, b)), rng.randint(2, 25))
        points[last[0]] += last[1]
        before += [f"{last[1]} for {last[0]}", "ok"]
    if level:
        back = rng.randint(1, last[1])
        points[last[0]] -= back
        before += [f"sorry, that last one was {back} too many", "ok, corrected"]
    question = "By how many points does the leader lead? Only the number (0 if level)."
    return Draft(question, abs(points[a] - points[b]), "number", before=tuple(before))


def seats(rng: Random, level: int) -> Draft:
    """The person at a seat after several swaps."""
    people = rng.sample(PEOPLE, 3 + level)
    system = "You keep a seating plan. Seats are numbered from 1 in the order in which people are named first."
    before = [f"Seats in order: {', '.join(people)}.", "Saved."]
    order = list(people)
    for _ in range(1 + 2 * level):
        i, j = sorted(rng.sample(range(len(order)), 2))
        told = rng.choice(
            (
                f"{order[i]} and {order[j]} swap places.",
                f"Let seats {i + 1} and {j + 1} trade.",
                f"swap {i + 1} <-> {j + 1}",
            )
        )
        order[i], order[j] = order[j], order[i]
        before += [told, "Swapped."]
    place = rng.randrange(len(order))
    question = rng.choice(("Who is in seat {} now? Name only.", "and seat {}? just the name"))
    return Draft(question.format(place + 1), order[place], "exact", system=system, before=tuple(before))


def appointment(rng: Random, level: int) -> Draft:
    """The time of an appointment that moves several times."""
    minutes = rng.randint(8, 12) * 60
    who = rng.choice(PEOPLE)
    before = [f"Set a meeting with {who} at {minutes // 60:02d}:00.", "It is set."]
    for _ in range(1 + level):
        shift = rng.choice((-45, -30, -15, 15, 20, 45, 90))
        minutes += shift
        before += [f"Can you make it {abs(shift)} minutes {'later' if shift > 0 else 'earlier'}?", "Moved."]
    length = rng.choice((25, 40, 50))
    question = f"It will last {length} minutes. When does it end? HH:MM only"
    end = minutes + length
    return Draft(question, f"{end // 60:02d}:{end % 60:02d}", "exact", before=tuple(before))


KINDS: dict[str, tuple[Maker, ...]] = {"chat/conversation-state": (shopping_list, scores, seats, appointment)}
