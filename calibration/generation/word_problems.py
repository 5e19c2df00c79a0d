"""Word problems with several steps, and financial problems with all rates stated."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from calibration.generation.draft import PEOPLE, TOWNS, Draft, Maker, asked

_SHOPPING = (
    (
        "en",
        "{who} buys {n} notebooks at {p} each and {m} pens at {r} each, then hands in a voucher for {off} % off "
        "everything and pays with a {note} note. How much change is due?",
    ),
    (
        "de",
        "{who} kauft {n} Hefte zu je {p} Euro und {m} Stifte zu je {r} Euro, bekommt {off} % Rabatt auf alles und zahlt "
        "mit einem {note}-Euro-Schein. Wie viel Wechselgeld gibt es (Dezimalpunkt)?",
    ),
    (
        "es",
        "{who} compra {n} cuadernos a {p} euros cada uno y {m} bolígrafos a {r} euros, tiene un {off} % de descuento "
        "en todo y paga con un billete de {note}. ¿Cuánto le devuelven (con punto decimal)?",
    ),
    (
        "pt",
        "{who} compra {n} cadernos a {p} reais e {m} canetas a {r} reais, ganha {off} % de desconto no total e paga com "
        "uma nota de {note}. Quanto recebe de troco (com ponto decimal)?",
    ),
    ("zh", "{who}买了{n}本单价{p}元的本子和{m}支单价{r}元的笔，全部减价{off}%，付了{note}元。应找回多少元？"),
    (
        "hi",
        "{who} ने {p} रुपये वाली {n} कॉपियाँ और {r} रुपये वाले {m} पेन खरीदे, कुल पर {off} % की छूट मिली और {note} रुपये दिए। "
        "कितने रुपये वापस मिलेंगे?",
    ),
)


def shopping(rng: Random, level: int) -> Draft:
    """Prices, a discount and change."""
    n, m = rng.randint(2, 6 + 4 * level), rng.randint(2, 8 + 4 * level)
    p, r = rng.randint(2, 9), rng.randint(1, 4)
    off = (0, 10, 15)[level] or 10
    cost = Fraction((n * p + m * r) * (100 - off), 100)
    note = next(value for value in (20, 50, 100, 200, 500) if value > cost)
    language, text = rng.choice(_SHOPPING)
    question = text.format(who=rng.choice(PEOPLE), n=n, p=p, m=m, r=r, off=off, note=note)
    return asked(rng, question, float(note - cost), language=language)


def journey(rng: Random, level: int) -> Draft:
    """Two legs at two speeds and a break: the average speed, or the arrival time in minutes."""
    first, second = rng.choice((40, 60, 80, 90)), rng.choice((30, 50, 100, 120))
    minutes = [rng.randint(1, 4 + level) * 15 for _ in range(3)]
    here, there = rng.sample(TOWNS, 2)
    distance = Fraction(first * minutes[0] + second * minutes[1], 60)
    question = (
        f"{rng.choice(PEOPLE)} drives from {here} for {minutes[0]} minutes at {first} km/h, stops for {minutes[2]} minutes, and goes on for "
        f"{minutes[1]} minutes at {second} km/h to {there}. "
    )
    if level == 2:
        average = distance / Fraction(sum(minutes), 60)
        question += "What is the average speed over the whole time, stop included, in km/h (two decimals)?"
        return asked(rng, question, round(float(average), 2), tolerance=0.011)
    return asked(rng, question + "How many kilometres lie between the two?", float(distance), tolerance=0.001)


def stock(rng: Random, level: int) -> Draft:
    """A story of gains and losses with an irrelevant number; longer at harder levels."""
    thing = rng.choice(("eggs", "tickets", "seedlings", "bottles", "sandbags", "library books"))
    count = rng.randint(40, 120)
    question = f"A cooperative founded {rng.randint(3, 40)} years ago has {count} {thing}."
    for day in ("On Monday", "On Tuesday", "On Wednesday", "On Thursday", "On Friday")[: 2 + level]:
        kind = rng.choice(("more", "sold", "half", "doubled" if count < 200 else "sold"))
        if kind == "more":
            boxes, each = rng.randint(2, 9), rng.randint(3, 12)
            count += boxes * each
            question += f" {day} {boxes} boxes of {each} arrive."
        elif kind == "half" and count % 2 == 0:
            count //= 2
            question += f" {day} half of what is there is given away."
        elif kind == "doubled":
            count *= 2
            question += f" {day} a gift doubles the stock."
        else:
            gone = rng.randint(3, max(4, count // 3))
            count -= gone
            question += f" {day} {gone} are sold."
    return asked(rng, f"{question} How many {thing} are left?", count)


def ages(rng: Random, level: int) -> Draft:
    """Ages from a sum and a ratio, found by exhaustive search."""
    older, younger = rng.sample(PEOPLE, 2)
    times, years = rng.randint(2, 3 + level), rng.randint(2, 5 + 2 * level)
    young = rng.randint(4 + years, 14 + years)
    old = (young - years) * times + years
    fits = [
        (a, b)
        for a in range(1, 200)
        for b in range(1, 200)
        if a + b == old + young and a - years == times * (b - years) and b > years
    ]
    assert fits == [(old, young)]
    question = (
        f"{older} and {younger} are {old + young} years old together. {years} years ago {older} was {times} times as "
        f"old as {younger}. How old is {younger if level == 0 else older} today?"
    )
    return asked(rng, question, young if level == 0 else old)


def work(rng: Random, level: int) -> Draft:
    """The time that several pipes or people need together."""
    hours = rng.sample((2, 3, 4, 6, 8, 10, 12, 15), 2 + (level == 2))
    rate = sum((Fraction(1, each) for each in hours), Fraction(0))
    minutes = round(float(60 / rate), 2)
    names = rng.sample(("red", "blue", "green", "brass", "old"), len(hours))
    told = ", ".join(f"the {name} pump alone in {each} hours" for name, each in zip(names, hours, strict=True))
    question = f"A pool is emptied by {told}. How many minutes do all of them take together?"
    return asked(rng, question, minutes, tolerance=0.5)


def savings(rng: Random, level: int) -> Draft:
    """Compound interest; with yearly deposits at the hard level."""
    start, rate, years = rng.randint(5, 90) * 100, rng.randint(2, 8), rng.randint(2, 4 + 3 * level)
    deposit = rng.randint(1, 12) * 100 if level == 2 else 0
    balance = Fraction(start)
    for _ in range(years):
        balance = balance * (100 + rate) / 100 + deposit
    extra = f" At the end of each year, after the interest, {deposit} are paid in." if deposit else ""
    question = rng.choice(
        (
            f"I put {start} into an account at {rate} % a year, compounded yearly.{extra} Balance after {years} years?",
            f"Starting capital {start}, {rate} % p.a. with compound interest, {years} years.{extra} Final amount?",
        )
    )
    return asked(rng, f"{question} Two decimals.", round(float(balance), 2), tolerance=0.02)


def tax(rng: Random, level: int) -> Draft:
    """A tax with given brackets."""
    first, second = rng.randint(8, 14) * 1_000, rng.randint(30, 50) * 1_000
    low, high = rng.choice((15, 20, 22)), rng.choice((30, 35, 42))
    income = rng.randint(first // 1_000 + 2, (second // 1_000 - 1, 90, 180)[level]) * 1_000 + 500 * level
    owed = Fraction(max(0, min(income, second) - first) * low + max(0, income - second) * high, 100)
    question = (
        f"In the (invented) land of {rng.choice(TOWNS)} the first {first} of income are free of tax, what lies between "
        f"{first} and {second} is taxed at {low} %, and everything above at {high} %. "
        f"Tax on an income of {income}?"
    )
    return asked(rng, question, float(owed))


def margin(rng: Random, level: int) -> Draft:
    """The break-even point or the profit of a small business."""
    fixed, price = rng.randint(2, 30) * 500, rng.randint(20, 60)
    cost = rng.randint(5, price - 8)
    if level == 0:
        sold = rng.randint(100, 900)
        question = (
            f"Price {price}, variable cost {cost} a piece, fixed costs {fixed}. Profit if {sold} pieces are sold?"
        )
        return asked(rng, question, sold * (price - cost) - fixed)
    cut = rng.randint(1, 4) if level == 2 else 0
    needed = -(-fixed // (price - cut - cost))
    change = f" We also lower the price by {cut}." if cut else ""
    question = (
        f"Our stall has fixed costs of {fixed} a season, sells mugs at {price} and pays {cost} for each.{change} "
        "How many mugs at least must be sold so that there is no loss?"
    )
    return asked(rng, question, needed, what="whole number")


def exchange(rng: Random, level: int) -> Draft:
    """A conversion through two currencies with a percentage fee."""
    amount, rate, back = rng.randint(2, 50) * 100, rng.randint(110, 190), rng.randint(3, 9)
    fee = (0, 1, 2)[level]
    value = Fraction(amount) * rate * (100 - fee) / 10_000 * back
    cost = f" The bank keeps {fee} % of the dollars." if fee else ""
    question = (
        f"One florin buys {rate / 100:.2f} dollars, one dollar buys {back} crowns.{cost} "
        f"I change {amount} florins into dollars and these into crowns. How many crowns?"
    )
    return asked(rng, question, round(float(value), 2), tolerance=0.011)


KINDS: dict[str, tuple[Maker, ...]] = {
    "math/grade-school": (shopping, journey, stock, ages, work),
    "finance/calculation": (savings, tax, margin, exchange),
}
