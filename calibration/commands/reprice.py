"""`reprice`: the champion at the prices of now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calibration.answers import tracking
from calibration.comparison.verdict import format_percent
from calibration.locations import tracking_uri
from calibration.policies import load_prices
from calibration.registry import registration
from calibration.registry.repricing import Repriced, repriced
from router.policy.document import CHAMPION

console = Console()
EXAMPLES = """
Examples:

  python -m calibration reprice --dry-run

  python -m calibration reprice --prices mine.json
"""


def reprice_command(
    version: Annotated[
        str, typer.Argument(help="A version in the registry; without it the champion, or challenger.")
    ] = "",
    prices: Annotated[Path | None, typer.Option(help="Prices that add to or replace data/prices.json.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and write nothing.")] = False,
) -> None:
    """Certify a policy's thresholds anew at the prices of today, from its stored outcomes. Nothing is asked.

    A threshold is quality for a dollar. Where prices change, the same threshold keeps and saves something else.
    """
    experiment = tracking.prepare(tracking_uri())
    number = version or registration.number_of(CHAMPION) or registration.number_of(registration.CHALLENGER)
    if number is None:
        raise registration.RegistryError("there is no policy to reprice yet; `python -m calibration run` makes one")
    loaded = registration.load(number)
    book = load_prices(prices)
    with console.status(f"replaying {len(loaded.outcomes):,} outcomes at the prices of today"):
        made = repriced(loaded, book)
    if made is None:
        console.print(f"version {number} was made at the prices of today: nothing changes", highlight=False)
        return
    for each in made.price_changes:
        console.print(each.description, highlight=False)
    console.print(_table(made))
    if dry_run:
        return
    headline = f"version {number} at prices of {book.as_of or 'today'}"
    challenger, policy = registration.register_policy(
        experiment, f"reprice {headline}", made.policy, loaded.outcomes, headline, loaded.seed
    )
    console.print(
        f"Policy {policy.version} is version {challenger}, with alias {registration.CHALLENGER!r}. "
        "Next: python -m calibration promote",
        highlight=False,
        soft_wrap=True,
    )


def _table(made: Repriced) -> Table:
    table = Table(title="dollars saved, as a share of always-strong", title_justify="left")
    for heading in ("target", "when certified", "now, thresholds unchanged", "and keeps", "now, repriced", "promise"):
        table.add_column(heading, justify="left" if heading in ("target", "promise") else "right")
    for each in made.targets:
        shares = (each.saved_then, each.saved_unchanged, each.kept_unchanged, each.saved)
        table.add_row(format_percent(each.target), *(f"{value:.1%}" for value in shares), each.promise)
    return table
