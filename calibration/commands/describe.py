"""`describe`: summarise a question file and its expected cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from calibration.commands.options import parse_names
from calibration.questions import questions
from calibration.questions.description import cost_table, expected_costs, language_table, type_table
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
    costs = expected_costs(read, parse_names(models), judge, book)
    tables = (type_table(read, difficulties), language_table(read), cost_table(costs))
    typer.echo("\n\n".join("\n".join(lines) for lines in tables))
