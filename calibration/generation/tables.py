"""Pasted tables: look up a cell, add up a column, find or count rows."""

from __future__ import annotations

from random import Random

from calibration.generation.draft import TOWNS, Draft, Maker, asked

_COLUMNS = {
    "en": ("Town", "Visitors", "Nights", "Museums"),
    "de": ("Ort", "Besucher", "Nächte", "Museen"),
    "fr": ("Ville", "Visiteurs", "Nuitées", "Musées"),
    "es": ("Ciudad", "Visitantes", "Noches", "Museos"),
    "zh": ("城镇", "游客", "过夜", "博物馆"),
    "ja": ("町", "来訪者", "宿泊", "博物館"),
}
Row = tuple[str, int, int, int]


def _rows(rng: Random, level: int) -> list[Row]:
    towns = rng.sample(TOWNS, (5, 9, 14)[level])
    visitors = rng.sample(range(100, 9_900), len(towns))
    return [(town, many, rng.randint(50, many), rng.randint(0, 9)) for town, many in zip(towns, visitors, strict=True)]


def _written(rng: Random, rows: list[Row], language: str) -> str:
    """The table as Markdown, CSV, or aligned columns."""
    cells = [_COLUMNS[language], *(tuple(map(str, row)) for row in rows)]
    form = rng.choice(("markdown", "csv", "tabs"))
    if form == "csv":
        return "\n".join(",".join(row) for row in cells)
    if form == "tabs":
        return "\n".join("\t".join(row) for row in cells)
    cells.insert(1, ("---",) * 4)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


_ASK_CELL = (
    ("en", "How many museums does {town} have?"),
    ("en", "museums in {town}?"),
    ("de", "Wie viele Museen hat {town}?"),
    ("fr", "Combien de musées à {town} ?"),
    ("es", "¿Cuántos museos tiene {town}?"),
    ("zh", "{town}有多少个博物馆？"),
    ("ja", "{town} に博物館はいくつありますか。"),
)


def cell(rng: Random, level: int) -> Draft:
    """Look up one cell."""
    rows = _rows(rng, level)
    language, text = rng.choice(_ASK_CELL)
    town, _, _, museums = rng.choice(rows)
    question = f"{_written(rng, rows, language)}\n\n{text.format(town=town)}"
    return asked(rng, question, museums, language=language)


def total(rng: Random, level: int) -> Draft:
    """Add up a column over the rows that satisfy a condition."""
    rows = _rows(rng, level)
    least = rng.randint(1, 5)
    chosen = [row for row in rows if row[3] >= least] if level else rows
    where = f" of the towns with at least {least} museum{'s' * (least > 1)}" if level else ""
    question = rng.choice((f"Add up the visitors{where}.", f"What is the sum of Visitors{where}?"))
    return asked(rng, f"{question}\n\n{_written(rng, rows, 'en')}", sum(row[1] for row in chosen))


def best(rng: Random, level: int) -> Draft:
    """Find the row with the largest value, ratio or rank."""
    rows = _rows(rng, level)
    if level == 0:
        told, right = "has the most visitors", max(rows, key=lambda row: row[1])
    elif level == 1:
        some = [row for row in rows if row[3] > 2]
        if not some:
            return best(rng, level)
        told, right = "has the fewest visitors among those with more than 2 museums", min(some, key=lambda row: row[1])
    else:
        told = "has the most nights per visitor (nights divided by visitors)"
        right = max(rows, key=lambda row: row[2] / row[1])
    question = f"{_written(rng, rows, 'en')}\n\n{rng.choice(('Which town', 'which one'))} {told}?"
    return asked(rng, question, right[0], "exact", what="name of the town")


def how_many(rng: Random, level: int) -> Draft:
    """Count the rows that satisfy one or two conditions."""
    rows = _rows(rng, level)
    many, museums = rng.randint(10, 60) * 100, rng.randint(2, 6)
    chosen = [row for row in rows if row[1] > many and (level == 0 or row[3] < museums)]
    extra = f" and fewer than {museums} museums" if level else ""
    question = f"In the table, how many towns have more than {many} visitors{extra}?"
    return asked(rng, f"{_written(rng, rows, 'en')}\n\n{question}", len(chosen))


KINDS: dict[str, tuple[Maker, ...]] = {"tables/look-up": (cell, total, best, how_many)}
