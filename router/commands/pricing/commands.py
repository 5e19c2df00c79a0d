"""`python -m router prices`: show the price table, and compare it with a public price map."""

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
FILE has the format of model_prices_and_context_window.json, which LiteLLM publishes.

A model is looked up in FILE by its exact name, then as openai/NAME.

Exit codes: 0: no difference; 1: differences; 2: a file or an option is invalid.

Examples:

  python -m router prices check model_prices_and_context_window.json

  python -m router prices check map.json --models gpt-4o-mini,gpt-4o --json

  python -m router prices check map-of-july.json --on 2026-07-15
"""

app = typer.Typer(no_args_is_help=True, help="Show the price table, or compare it with a public price map.")
On = Annotated[str, typer.Option("--on", help="Use the prices of this day (UTC), such as 2026-07-15.")]


@app.command(epilog=SHOW_EXAMPLES)
def show(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Only these models.")] = None,
    on: On = "",
) -> None:
    """Print the prices of models with start day, service tier and source."""
    book = prices(load())
    for model in models or ():
        if not book.history(model):
            raise SettingsError(f"{model!r} has no price; `python -m router prices show` lists all priced models")
    print_prices(book, models or list(book.prices), _unix_ns(on) if on else None)


@app.command(epilog=CHECK_EXAMPLES)
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Price map in LiteLLM's format.")],
    models: Annotated[str, typer.Option(help="Only these models, comma-separated.")] = "",
    on: On = "",
    as_data: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the price table, including prices from the settings, with a public price map. Default day: today."""
    moment = _unix_ns(on) if on else time.time_ns()
    book = prices(load())
    public = _read(file)
    named = [name.strip() for name in models.split(",") if name.strip()] or None
    for name in named or ():
        if not book.history(name) and public.row(name) is None:
            raise SettingsError(f"--models: {name!r} is neither in the price table nor in {file}")
    comparison = compare(book, public, moment, named, _shutdown_days())
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
        raise SettingsError(f"{file} cannot be read: {error.strerror or error}") from error
    except MapError as error:
        raise SettingsError(f"{file}: {error}") from error


def _shutdown_days() -> dict[str, str]:
    """Shutdown days by model, from `data/models.json`."""
    try:
        models = json.loads((DATA / "models.json").read_bytes())["models"]
        return {model: row["leaves"] for model, row in models.items() if row.get("leaves")}
    except FileNotFoundError:
        return {}


def _unix_ns(day: str) -> int:
    try:
        return day_unix_ns(date.fromisoformat(day))
    except ValueError:
        raise SettingsError(f"--on: expected a day such as 2026-07-15, not {day!r}") from None
