"""`describe`: what a file of questions holds and what it costs to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from calibration.questions import questions
from calibration.questions.description import by_language, by_type, costs, expected
from router.policy.distribution import DATA, QUESTIONS
from router.policy.prices import PriceBook

EXAMPLE = "Example: python -m calibration describe mine.jsonl --models gpt-4.1-nano,gpt-4.1"


def describe_command(
    file: Annotated[Path, typer.Argument(help="Questions, JSON lines.")] = QUESTIONS,
    models: Annotated[str, typer.Option(help="The models that are asked, comma-separated.")] = "gpt-4o-mini,gpt-4o",
    judge: Annotated[str, typer.Option(help="The judge.")] = "gpt-6-luna:none",
    prices: Annotated[Path, typer.Option(help="The price table.")] = DATA / "prices.json",
) -> None:
    """Print what a file of questions holds, and what it is expected to cost to run it once."""
    asked = questions.read(str(file))
    lines = file.read_text(encoding="utf-8").splitlines()
    given = {row.get("id"): row.get("difficulty", "unrated") for row in map(json.loads, filter(None, lines))}
    levels = {question.id: given.get(question.id, "unrated") for question in asked}
    book = PriceBook.parse(json.loads(prices.read_text(encoding="utf-8")))
    parts = (
        by_type(asked, levels),
        by_language(asked),
        costs(expected(asked, [name.strip() for name in models.split(",")], judge, book)),
    )
    typer.echo("\n\n".join("\n".join(part) for part in parts))
