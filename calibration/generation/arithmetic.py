"""Arithmetic, comparisons of numbers, and conversions of units."""

from __future__ import annotations

from fractions import Fraction
from random import Random

from calibration.generation.draft import Draft, Maker, asked, written_lists

_PLAIN = (
    ("en", "What is {sum}?"),
    ("en", "{sum} = ?"),
    ("en", "calculate {sum} for me pls"),
    ("en", "Work out {sum} exactly, no rounding."),
    ("de", "Was ergibt {sum}? Bitte ohne Tausendertrennzeichen."),
    ("fr", "Combien font {sum} ? Donne le nombre sans séparateur."),
    ("es", "¿Cuánto es {sum}? Sin separador de miles, por favor."),
    ("zh", "{sum} 等于多少？"),
    ("ja", "{sum} はいくつですか。数字だけで答えてください。"),
    ("hi", "{sum} कितना होता है? केवल संख्या लिखें।"),
    ("pt", "Quanto dá {sum}? Só o número."),
    ("ar", "كم يساوي {sum}؟ اكتب العدد فقط بالأرقام 0-9."),
)


def integers(rng: Random, level: int) -> Draft:
    """Evaluate an expression that depends on operator precedence."""
    top = (30, 200, 2_000)[level]
    a, b, c, d = (rng.randint(top // 10, top) for _ in range(4))
    text, value = rng.choice(
        (
            (f"{a} + {b} * {c}", a + b * c),
            (f"({a} - {b}) * {c} + {d}", (a - b) * c + d),
            (f"{a} * {b} - {c} * {d}", a * b - c * d),
            (f"{a} + {b} - {c} * ({d} - {a})", a + b - c * (d - a)),
        )
    )
    language, phrase = rng.choice(_PLAIN)
    return Draft(phrase.format(sum=text), value, "number", language)


def product(rng: Random, level: int) -> Draft:
    """Multiply two long numbers."""
    digits = (2, 3, 5)[level]
    a, b = (rng.randint(10 ** (digits - 1) + 1, 10**digits - 1) for _ in range(2))
    question = rng.choice(
        (f"Multiply {a} by {b}.", f"{a} times {b}", f"How much is {a} × {b}? Show the partial products.")
    )
    return asked(rng, question, a * b)


def fractions(rng: Random, level: int) -> Draft:
    """Add fractions and reduce the sum to lowest terms."""
    count = (2, 2, 3)[level]
    parts = [Fraction(rng.randint(1, 9 + 6 * level), rng.randint(2, 9 + 6 * level)) for _ in range(count)]
    signs = [1, *(rng.choice((1, -1)) for _ in parts[1:])]
    text = str(parts[0])
    for sign, part in zip(signs[1:], parts[1:], strict=True):
        text += f" {'+' if sign > 0 else '-'} {part}"
    total = sum((sign * part for sign, part in zip(signs, parts, strict=True)), Fraction(0))
    question = rng.choice((f"Simplify {text} to one fraction.", f"What is {text} in lowest terms?"))
    return asked(rng, question, str(total), what="fraction such as 3/4, or whole number")


def percentages(rng: Random, level: int) -> Draft:
    """A percentage of a number, or a sequence of percentage changes."""
    base = rng.randint(2, 90) * 100
    rates = [rng.choice((5, 10, 15, 20, 25, 30, 40)) for _ in range(level + 1)]
    value = Fraction(base)
    steps = []
    for rate in rates:
        up = rng.random() < 0.5
        value *= 1 + Fraction(rate if up else -rate, 100)
        steps.append(f"{'rises' if up else 'falls'} by {rate} %")
    question = f"A quantity starts at {base} and {', then '.join(steps)}. What is it in the end? Exact value, please."
    return asked(rng, question, float(value), tolerance=0.001)


def _decimal_pair(rng: Random) -> tuple[str, str]:
    """Two decimals that are easily confused because of their lengths, such as 9.11 and 9.9."""
    whole = rng.randint(1, 99)
    short, long = rng.randint(2, 9), rng.randint(10, 99)
    while str(long).rstrip("0") == str(short):
        long = rng.randint(10, 99)
    pair = [f"{whole}.{short}", f"{whole}.{long}"]
    rng.shuffle(pair)
    return pair[0], pair[1]


_BIGGER = (
    ("en", "Which is larger, {a} or {b}? Reply with the number only."),
    ("en", "{a} vs {b}, the bigger one? Just write the number."),
    ("en", "Is {a} or {b} the greater number? Only the number, please."),
    ("de", "Welche Zahl ist größer: {a} oder {b} (mit Dezimalpunkt)? Nur die Zahl."),
    ("fr", "Quel nombre est le plus grand, {a} ou {b} (point décimal) ? Réponds par le nombre seul."),
    ("es", "¿Qué número es mayor, {a} o {b}? Solo el número."),
    ("zh", "{a}和{b}哪个大？只回答数字。"),
    ("ja", "{a} と {b} ではどちらが大きいですか。数字だけ答えてください。"),
    ("hi", "{a} और {b} में बड़ी संख्या कौन सी है? केवल संख्या लिखें।"),
)


def bigger(rng: Random, level: int) -> Draft:
    """The larger of two decimals; negative ones at the hard level."""
    a, b = _decimal_pair(rng)
    if level == 2:
        a, b = f"-{a}", f"-{b}"
    language, phrase = rng.choice(_BIGGER)
    return Draft(phrase.format(a=a, b=b), max(a, b, key=Fraction), "number", language)


def fraction_or_decimal(rng: Random, level: int) -> Draft:
    """The largest of several fractions with similar values."""
    count = 2 + level
    seen: dict[Fraction, str] = {}
    while len(seen) < count:
        bottom = rng.randint(5, 20 + 30 * level)
        value = Fraction(rng.randint(bottom * 3 // 5, bottom * 4 // 5), bottom)
        seen.setdefault(value, str(value))
    names = list(seen.values())
    rng.shuffle(names)
    question = rng.choice(("Which of these is the greatest: {}?", "Pick the biggest: {}.", "Largest among {}?"))
    return asked(rng, question.format(", ".join(names)), str(max(seen)), what="fraction")


def order(rng: Random, level: int) -> Draft:
    """Sort decimals in ascending order."""
    whole = rng.randint(0, 20)
    values: dict[Fraction, str] = {}
    while len(values) < 3 + level:
        text = f"{whole}.{rng.randint(1, 9) if rng.random() < 0.4 else rng.randint(11, 999)}".rstrip("0")
        values.setdefault(Fraction(text), text)
    given = list(values.values())
    rng.shuffle(given)
    right = written_lists([values[key] for key in sorted(values)])
    question = f"Sort from smallest to largest: {', '.join(given)}."
    return asked(rng, question, right, "exact", what="list, separated by commas")


# Factors that are exact by definition (or in SI); the unit is named so that nothing has to be guessed.
_FACTORS = (
    ("miles", "kilometres", Fraction("1.609344"), 0.02),
    ("inches", "centimetres", Fraction("2.54"), 0.01),
    ("pounds", "kilograms", Fraction("0.45359237"), 0.01),
    ("feet", "metres", Fraction("0.3048"), 0.01),
    ("hectares", "square metres", Fraction(10_000), 0.0),
    ("nautical miles", "metres", Fraction(1852), 0.0),
    ("hours", "seconds", Fraction(3600), 0.0),
    ("bytes", "bits", Fraction(8), 0.0),
)


def units(rng: Random, level: int) -> Draft:
    """Convert between units with an exact factor, in either direction."""
    source, target, factor, slack = rng.choice(_FACTORS)
    amount = rng.randint(2, (12, 90, 900)[level])
    value = amount * factor
    question = rng.choice(
        (
            f"Convert {amount} {source} to {target}.",
            f"how many {target} are {amount} {source}",
            f"{amount} {source} in {target}? Two decimals are enough.",
        )
    )
    return asked(rng, question, round(float(value), 4), tolerance=float(round(slack * max(1, amount / 10), 3)))


def temperature(rng: Random, level: int) -> Draft:
    """Convert degrees Celsius to Fahrenheit, or back."""
    celsius = rng.randint((0, -40, -90)[level], (40, 120, 400)[level]) * 5
    fahrenheit = celsius * 9 // 5 + 32
    if rng.random() < 0.5:
        return asked(rng, f"{celsius} °C in Fahrenheit?", fahrenheit)
    return asked(rng, f"What is {fahrenheit} degrees Fahrenheit in Celsius?", celsius)


def speed(rng: Random, level: int) -> Draft:
    """Convert between metres per second and kilometres per hour."""
    metres_per_second = rng.randint(2, (15, 60, 340)[level]) * 5
    kilometres_per_hour = metres_per_second * 18 // 5
    if rng.random() < 0.5:
        return asked(rng, f"A train does {kilometres_per_hour} km/h. In m/s?", metres_per_second)
    return asked(rng, f"Wind at {metres_per_second} m/s, how many km/h is that?", kilometres_per_hour)


KINDS: dict[str, tuple[Maker, ...]] = {
    "math/arithmetic": (integers, product, fractions, percentages),
    "math/number-comparison": (bigger, fraction_or_decimal, order),
    "math/units": (units, temperature, speed),
}
