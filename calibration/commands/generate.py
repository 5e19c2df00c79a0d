"""`generate`: write new questions with computed answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from calibration.commands.options import UsageError
from calibration.generation.kinds import KINDS, rows

SHIPPED_SEED = 2026
SHIPPED_PER_TYPE = 10
EXAMPLES = """
Examples:

  python -m calibration generate --list

  python -m calibration generate --seed 7 --per-type 20 --out mine.jsonl

  python -m calibration generate --seed 7 --per-type 50 --type math/dates --type code/sql-tracing --out mine.jsonl

  python -m calibration run --questions mine.jsonl
"""


def generate_command(
    seed: Annotated[int, typer.Option(help="Random seed. Another seed writes other questions.")] = SHIPPED_SEED,
    per_type: Annotated[int, typer.Option(min=1, help="Number of questions per type.")] = SHIPPED_PER_TYPE,
    type_: Annotated[
        list[str] | None, typer.Option("--type", help="Question type to write. Repeatable. Default: all types.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output file. Default: standard output.")] = None,
    list_types: Annotated[bool, typer.Option("--list", help="Print the question types and exit.")] = False,
) -> None:
    """Write new questions with computed answers, as JSON lines.

    The same options write the same bytes. Another seed writes questions that no model has seen in training.
    """
    if list_types:
        typer.echo("\n".join(KINDS))
        return
    unknown = sorted(set(type_ or ()) - set(KINDS))
    if unknown:
        raise UsageError(f"--type {unknown[0]}: unknown type; the types are {', '.join(KINDS)}")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(seed, per_type, type_ or ()))
    if out is None:
        sys.stdout.buffer.write(lines.encode())
    else:
        out.write_text(lines, encoding="utf-8", newline="\n")
        typer.echo(f"{lines.count(chr(10))} questions written to {out}", err=True)
