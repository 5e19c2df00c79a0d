"""`python -m router prices`: show our price table, and compare it with a public one."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from router.commands.pricing.comparison import compare
from router.commands.pricing.public_map import MapError, PublicMap
from router.commands.pricing.tables import as_json, print_comparison, print_prices
from router.policy.distribution import DATA
from router.policy.prices import day_unix_ns
from router.serving.policy import prices
from router.settings import SettingsError, load

SHOW_EXAMPLES = """
Examples:

  python -m router prices show

  python -m router prices show gpt-5.6-luna gpt-4o

  python -m router prices show gpt-5.6-luna --on 2026-07-15
"""
CHECK_EXAMPLES = """
FILE has the form of model_prices_and_context_window.json, which LiteLLM publishes.

A model is found in FILE under its exact name, else under openai/NAME.

Exit code 0: nothing differs; 1: something does; 2: a file or an option cannot be read.

Examples:

  python -m router prices check model_prices_and_context_window.json

  python -m router prices check map.json --models gpt-4o-mini,gpt-4o --json

  python -m router prices check map-of-july.json --on 2026-07-15
"""

app = typer.Typer(no_args_is_help=True, help="Show the price table, or compare it with a public one.")
On = Annotated[str, typer.Option("--on", help="A day in UTC, as 2026-07-15: the prices of that day.")]


@app.command(epilog=SHOW_EXAMPLES)
def show(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Only these models.")] = None,
    on: On = "",
) -> None:
    """Print what models cost, from which day on, on which tier, and by which source."""
    book = prices(load())
    for model in models or ():
        if not book.history(model):
            raise SettingsError(f"{model!r} has no price; python -m router prices show lists those that have one")
    print_prices(book, models or list(book.prices), _unix_ns(on) if on else None)


@app.command(epilog=CHECK_EXAMPLES)
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A price map in the form of LiteLLM's.")],
    models: Annotated[str, typer.Option(help="Only these models, comma-separated.")] = "",
    on: On = "",
    as_data: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare our prices, those of the settings included, with a public price map. Without --on, those of today."""
    moment = _unix_ns(on) if on else time.time_ns()
    book = prices(load())
    public = _read(file)
    named = [name.strip() for name in models.split(",") if name.strip()] or None
    for name in named or ():
        if not book.history(name) and public.row(name) is None:
            raise SettingsError(f"--models: {name!r} is neither in our table nor in {file}")
    comparison = compare(book, public, moment, named, _leaves())
    day = datetime.fromtimestamp(moment // 10**9, UTC).date()
    if as_data:
        sys.stdout.write(json.dumps(as_json(comparison, str(file), day), indent=2, allow_nan=False) + "\n")
    else:
        print_comparison(comparison, str(file), day)
    raise typer.Exit(1 if comparison.differences else 0)


def _read(file: Path) -> PublicMap:
    try:
        return PublicMap.parse(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror or error}") from error
    except MapError as error:
        raise SettingsError(f"{file}: {error}") from error


def _leaves() -> dict[str, str]:
    """Days of shutdown by model, as far as `data/models.json` knows them."""
    try:
        models = json.loads((DATA / "models.json").read_bytes())["models"]
        return {model: row["leaves"] for model, row in models.items() if row.get("leaves")}
    except FileNotFoundError:
        return {}


def _unix_ns(day: str) -> int:
    try:
        return day_unix_ns(date.fromisoformat(day))
    except ValueError:
        raise SettingsError(f"--on: expected a day such as 2026-07-15: {day!r}") from None
