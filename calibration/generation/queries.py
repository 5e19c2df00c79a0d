"""Questions about the result of an SQL query; SQLite runs the query to compute the reference."""

from __future__ import annotations

import sqlite3
from random import Random

from calibration.generation.draft import PEOPLE, Draft, Maker, asked

_SCHEMA = """CREATE TABLE staff (name TEXT, team TEXT, pay INTEGER, boss TEXT);
INSERT INTO staff VALUES
{rows};"""
_QUERIES: tuple[tuple[str, ...], ...] = (
    (
        "SELECT COUNT(*) FROM staff WHERE pay > {pay} AND team <> 'ops';",
        "SELECT MAX(pay) - MIN(pay) FROM staff WHERE team = 'sales';",
        "SELECT SUM(pay) FROM staff WHERE boss IS NOT NULL;",
    ),
    (
        "SELECT COUNT(*) FROM staff WHERE boss <> '{boss}';",
        "SELECT SUM(n) FROM (SELECT COUNT(*) AS n FROM staff GROUP BY team HAVING SUM(pay) > {pay} * 2);",
        "SELECT COUNT(DISTINCT boss) + COUNT(boss) FROM staff;",
    ),
    (
        "SELECT COUNT(*) FROM staff AS s JOIN staff AS b ON s.boss = b.name WHERE s.pay >= b.pay;",
        "SELECT SUM(pay) FROM staff WHERE name NOT IN (SELECT boss FROM staff WHERE boss IS NOT NULL);",
        "SELECT COUNT(*) FROM staff AS s LEFT JOIN staff AS o ON o.team = s.team AND o.pay > s.pay WHERE o.name IS NULL;",
    ),
)


def staff(rng: Random, level: int) -> Draft:
    """A query over a small table with NULLs."""
    names = rng.sample(PEOPLE, 5 + 2 * level)
    rows = []
    for place, name in enumerate(names):
        boss = None if place == 0 or rng.random() < 0.2 else rng.choice(names[:place])
        rows.append((name, rng.choice(("ops", "sales", "lab")), rng.randint(20, 60) * 100, boss))
    written = ",\n".join(f"  ({str(row)[1:-1].replace('None', 'NULL')})" for row in rows)
    query = rng.choice(_QUERIES[level]).format(pay=rng.randint(25, 50) * 100, boss=names[0])
    schema = _SCHEMA.format(rows=written)
    return _asked_sql(rng, schema, query) or staff(rng, level)


def _asked_sql(rng: Random, schema: str, query: str) -> Draft | None:
    """A question about the query; None if its result is NULL, such as the sum of no rows."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema)
    (found,) = connection.execute(query).fetchone()
    connection.close()
    if found is None:
        return None
    text = rng.choice(
        (
            "What single number does the last statement return?\n\n{}\n{}",
            "{}\n\n{}\n-- result??",
            "Here's my test data and a query. Without running it: what comes out?\n\n```sql\n{}\n\n{}\n```",
        )
    )
    return asked(rng, text.format(schema, query), found)


_LOANS: tuple[tuple[str, ...], ...] = (
    (
        "SELECT COUNT(*) FROM loans WHERE back IS NULL;",
        "SELECT COUNT(DISTINCT reader) FROM loans;",
        "SELECT SUM(back - taken) FROM loans WHERE back IS NOT NULL;",
    ),
    (
        "SELECT COUNT(*) FROM loans WHERE back - taken > {days} OR back IS NULL AND taken < {day};",
        "SELECT COUNT(*) FROM (SELECT book FROM loans GROUP BY book HAVING COUNT(*) > COUNT(back));",
        "SELECT MAX(n) FROM (SELECT reader, COUNT(*) AS n FROM loans WHERE taken > {day} GROUP BY reader);",
    ),
    (
        "SELECT COUNT(*) FROM loans a JOIN loans b ON a.reader = b.reader AND a.taken < b.taken;",
        "SELECT SUM(r) FROM (SELECT RANK() OVER (PARTITION BY book ORDER BY taken) AS r FROM loans);",
        "SELECT SUM(COALESCE(back, 100) - taken) FROM loans WHERE book IN (SELECT book FROM loans WHERE back IS NULL);",
    ),
)


def loans(rng: Random, level: int) -> Draft:
    """A query over the loans of a library; days are numbers, and a book on loan has no return day."""
    readers = rng.sample(PEOPLE, 2 + level)
    days = rng.sample(range(1, 60), 5 + 2 * level)
    rows = [
        f"  ('{rng.choice(readers)}', '{rng.choice(('Emma', 'Faust', 'Odyssey', 'Walden'))}', {day}, "
        f"{'NULL' if rng.random() < 0.3 else day + rng.randint(1, 40)})"
        for day in days
    ]
    schema = "CREATE TABLE loans (reader TEXT, book TEXT, taken INTEGER, back INTEGER);\nINSERT INTO loans VALUES\n"
    query = rng.choice(_LOANS[level]).format(days=rng.randint(10, 25), day=rng.randint(10, 40))
    return _asked_sql(rng, schema + ",\n".join(rows) + ";", query) or loans(rng, level)


KINDS: dict[str, tuple[Maker, ...]] = {"code/sql-tracing": (staff, loans)}
