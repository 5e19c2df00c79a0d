"""Questions about long documents: a service log, a contract with amendments, the minutes of a council.

The documents consist of random sentences, so the requested fact is surrounded by similar ones.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random

from calibration.generation.draft import PEOPLE, TOWNS, Draft, Maker, asked

_SIZES = (25, 60, 130)  # entries: about 4,000, 10,000 and 21,000 characters
_PARTS = ("belt", "filter", "valve", "bearing", "sensor", "pump seal", "fuse", "gearbox", "fan", "hose")
_REMARKS = (
    "No oil was lost and the line was back in service within the hour.",
    "The night shift had reported a rattling noise that could not be reproduced.",
    "Parts came from the central store; the paperwork is filed under the usual number.",
    "Temperature and vibration were within limits before and after the work.",
    "A follow-up is not planned unless the noise comes back.",
    "The operator was shown the new lock-out procedure and signed for it.",
)


def service_log(rng: Random, level: int) -> Draft:
    """A log of work on machines: find one entry, count entries, or find the last one."""
    day = date(2023, 1, 2)
    entries = []
    for _ in range(_SIZES[level]):
        day += timedelta(days=rng.randint(1, 4))
        entry = (
            day,
            rng.choice(PEOPLE[:9]),
            rng.choice(_PARTS),
            f"M{rng.randint(11, 19 + 6 * level)}",
            rng.randint(15, 240),
        )
        entries.append(entry)
    text = "\n".join(
        f"{when}  {who} replaced the {part} of machine {machine}; it took {minutes} minutes. {rng.choice(_REMARKS)}"
        for when, who, part, machine, minutes in entries
    )
    _, who, _, machine, _ = rng.choice(entries)
    if level == 0:
        question, right = f"In how many entries did {who} do the work?", sum(1 for e in entries if e[1] == who)
    elif level == 1:
        question = f"How many minutes did {who} spend on machine {machine} in total?"
        right = sum(e[4] for e in entries if e[1] == who and e[3] == machine)
    else:
        last = [e for e in entries if e[3] == machine][-1]
        question = f"How many minutes did the most recent work on machine {machine} take, whatever the part?"
        right = last[4]
    return asked(rng, _framed(rng, "maintenance log", text, question), right)


def _framed(rng: Random, kind: str, text: str, question: str) -> str:
    return rng.choice(
        (
            "Here is our {kind}. {question}\n\n{text}",
            "{text}\n\n---\nThe above is a {kind}. {question}",
            "{question} (see the {kind} below)\n\n<document>\n{text}\n</document>",
        )
    ).format(kind=kind, text=text, question=question)


_DUTIES = (
    "deliver the quarterly report",
    "inspect the boilers",
    "renew the insurance",
    "clean the façade",
    "return the keys",
    "pay the deposit",
    "announce repairs",
    "read the meters",
    "hand over the drawings",
    "test the alarms",
)
_BOILERPLATE = (
    "Notices under this clause are to be given in writing to the address named on the first page.",
    "This duty does not lapse if the other party fails to remind of it.",
    "Costs are borne by the party that causes them unless another clause says otherwise.",
    "A delay for which neither party is responsible extends the period by as many days.",
    "The parties may agree on another period in a single case, in text form.",
)


def contract(rng: Random, level: int) -> Draft:
    """A contract with amendments: find the period that applies after all of them."""
    parties = ("the Lessor", "the Lessee", "the Caretaker", "the Agent")
    pairs = [(duty, party) for duty in _DUTIES for party in parties]
    clauses = rng.sample(pairs, min(len(pairs), _SIZES[level] // 3))
    days = {clause: rng.randint(3, 90) for clause in clauses}
    lines = [
        f"§ {number}  {party[0].upper()}{party[1:]} shall {duty} within {days[duty, party]} days of a request. "
        + " ".join(rng.sample(_BOILERPLATE, 2))
        for number, (duty, party) in enumerate(clauses, 1)
    ]
    target = rng.randrange(len(clauses))
    for number in range(1, 3 + 3 * level):
        place = target if rng.random() < 0.4 else rng.randrange(len(clauses))
        change = rng.choice((-2, 3, 5, 10))
        days[clauses[place]] += change
        more = f"{abs(change)} days {'longer' if change > 0 else 'shorter'}"
        lines.append(
            f"Amendment {number}  The period in § {place + 1} shall be {more} than before. " + rng.choice(_BOILERPLATE)
        )
    duty, party = clauses[target]
    question = f"Within how many days must {party} {duty}, all amendments taken into account?"
    return asked(rng, _framed(rng, "contract", "\n\n".join(lines), question), days[duty, party])


_TOPICS = ("the playground", "the bus stop", "the market hall", "street lamps", "the swimming pool", "the library roof")
_CHATTER = (
    "Several members regretted that the papers had been sent out late.",
    "The chair reminded everyone to keep to three minutes.",
    "A member of the public asked about parking and was referred to the office.",
    "There was a short break because of a fire drill next door.",
    "The treasurer had no objection, provided that the reserve stayed untouched.",
)


def minutes(rng: Random, level: int) -> Draft:
    """Minutes of a council: find who voted against, or add up the granted sums."""
    council = PEOPLE[:7]
    text, votes = [], []
    for number in range(1, _SIZES[level] // 2 + 1):
        topic, sum_asked, mover = rng.choice(_TOPICS), rng.randint(2, 90) * 500, rng.choice(council)
        against = rng.sample(council, rng.randint(0, 5))
        granted = len(against) < len(council) - len(against)
        votes.append((number, topic, sum_asked, mover, against, granted))
        result = f"Voting against: {', '.join(against) or 'nobody'}. The motion was {'carried' if granted else 'lost'}."
        text.append(
            f"Item {number}. {mover} of {rng.choice(TOWNS)} moved to spend {sum_asked} on {topic}. "
            f"{' '.join(rng.sample(_CHATTER, 2))} {result}"
        )
    number, topic, _, mover, _, _ = rng.choice(votes)
    asking: tuple[Callable[[], tuple[str, int]], ...] = (
        lambda: (f"How many members voted against item {number}?", len(votes[number - 1][4])),
        lambda: (f"What did the council grant for {topic} altogether (carried motions only)?", _granted(votes, topic)),
        lambda: (f"How many of {mover}'s motions were lost?", sum(1 for v in votes if v[3] == mover and not v[5])),
    )
    question, right = asking[level]()
    return asked(rng, _framed(rng, "set of minutes", "\n".join(text), question), right)


def _granted(votes: list[tuple[int, str, int, str, list[str], bool]], topic: str) -> int:
    return sum(vote[2] for vote in votes if vote[1] == topic and vote[5])


KINDS: dict[str, tuple[Maker, ...]] = {"documents/long": (service_log, contract, minutes)}
