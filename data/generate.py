"""Write fresh questions with computed answers: `python data/generate.py --seed 7 --per-type 20 --out mine.jsonl`.

The same seed, number and types write the same bytes; another seed writes questions that no model has seen. A longer run
begins with the rows of a shorter one, type by type. The rows have the form that `python -m calibration run --questions`
reads (`calibration/questions.py`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer
from computed import (
    archives,
    arithmetic,
    calls,
    competition,
    conversations,
    dates,
    passages,
    plans,
    puzzles,
    queries,
    tables,
    tracing,
    word_problems,
    wording,
)
from computed.draft import Maker

SHIPPED_SEED = 2026
SHIPPED_PER_TYPE = 10
MAX_DRAWS = 200  # of one question whose text came up before

KINDS: dict[str, tuple[Maker, ...]] = {
    **arithmetic.KINDS,
    **dates.KINDS,
    **word_problems.KINDS,
    **competition.KINDS,
    **tracing.KINDS,
    **queries.KINDS,
    **puzzles.KINDS,
    **plans.KINDS,
    **wording.KINDS,
    **passages.KINDS,
    **tables.KINDS,
    **archives.KINDS,
    **conversations.KINDS,
    **calls.KINDS,
}


def rows(seed: int, per_type: int, types: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a seed, type by type; of all types where none is named."""
    for question_type in types or KINDS:
        seen: set[str] = set()
        for number in range(per_type):
            yield _row(seed, question_type, number, seen)


def _row(seed: int, question_type: str, number: int, seen: set[str]) -> dict[str, Any]:
    """One row. Each has chance of its own, so that it does not depend on how many are written."""
    makers = KINDS[question_type]
    turn, which = divmod(number, len(makers))
    level = (turn + which) % 3
    for draw in range(MAX_DRAWS):
        rng = Random(f"{seed}/{question_type}/{number}/{draw}")  # noqa: S311  variety, not secrecy
        draft = makers[which](rng, level)
        text = "\n".join([*draft.before, draft.question])
        if text not in seen:
            seen.add(text)
            return draft.row(f"computed/{question_type}/{seed}-{number:03d}", question_type, level)
    raise typer.BadParameter(f"{question_type} has no more than {number} different questions of this kind")


def main(
    seed: Annotated[int, typer.Option(help="Where chance starts; another seed, other questions.")] = SHIPPED_SEED,
    per_type: Annotated[int, typer.Option(min=1, help="Questions of each type.")] = SHIPPED_PER_TYPE,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type; may be given several times.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; standard output where absent.")] = None,
    list_types: Annotated[bool, typer.Option("--list", help="Name the types and stop.")] = False,
) -> None:
    """Write questions with computed answers, as JSON lines.

    Examples:

      python data/generate.py --list

      python data/generate.py --seed 7 --per-type 20 --out mine.jsonl

      python data/generate.py --seed 7 --per-type 50 --type math/dates --type code/sql-tracing --out mine.jsonl

      python -m calibration run --questions mine.jsonl
    """
    if list_types:
        typer.echo("\n".join(KINDS))
        return
    unknown = sorted(set(type_ or ()) - set(KINDS))
    if unknown:
        raise typer.BadParameter(f"unknown type {unknown[0]!r}; known are {', '.join(KINDS)}", param_hint="--type")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(seed, per_type, type_ or ()))
    if out is None:
        sys.stdout.buffer.write(lines.encode())
    else:
        out.write_text(lines, encoding="utf-8", newline="\n")
        typer.echo(f"{lines.count(chr(10))} questions written to {out}", err=True)


if __name__ == "__main__":
    typer.run(main)
