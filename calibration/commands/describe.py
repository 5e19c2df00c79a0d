"""`describe`: summarise a question file and its expected cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from calibration.commands.options import parse_names
from calibration.questions import questions
from calibration.questions.description import by_language, by_type, costs, expected
from router.policy.distribution import DATA, QUESTIONS
from router.policy.prices import PriceBook

EXAMPLE = "Example: python -m calibration describe mine.jsonl --models gpt-4.1-nano,gpt-4.1"


def describe_command(
    file: Annotated[Path, typer.Argument(help="Question file: JSON lines.")] = QUESTIONS,
    models: Annotated[str, typer.Option(help="Models to ask, comma-separated.")] = "gpt-4o-mini,gpt-4o",
    judge: Annotated[str, typer.Option(help="Model that judges answers.")] = "gpt-6-luna:none",
    prices: Annotated[Path, typer.Option(help="Price file.")] = DATA / "prices.json",
) -> None:
    """Count the questions of a file by type and language, and estimate the cost of a calibration with them."""
    read = questions.read(str(file))
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    rated = {row.get("id"): row.get("difficulty", "unrated") for row in rows}
    difficulties = {question.id: rated.get(question.id, "unrated") for question in read}
    book = PriceBook.parse(json.loads(prices.read_text(encoding="utf-8")))
    tables = (by_type(read, difficulties), by_language(read), costs(expected(read, parse_names(models), judge, book)))
    typer.echo("\n\n".join("\n".join(lines) for lines in tables))
