"""`reprice`: update the champion to current prices."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from calibration.answers import tracking
from calibration.commands.options import Prices
from calibration.comparison.verdict import format_percent
from calibration.locations import tracking_uri
from calibration.policies import load_prices
from calibration.registry import registration
from calibration.registry.repricing import RepricedPolicy, reprice
from router.policy.document import CHAMPION

console = Console()
EXAMPLES = """
Examples:

  python -m calibration reprice --dry-run

  python -m calibration reprice --prices mine.json
"""


def reprice_command(
    version: Annotated[
        str, typer.Argument(help="Version in the registry. Default: the champion, else the challenger.")
    ] = "",
    prices: Prices = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the changes and exit without writing.")] = False,
) -> None:
    """Certify the thresholds of a policy again at current prices, from its stored outcomes. Calls no model.

    A threshold is quality per dollar, so the same threshold keeps and saves a different share when prices change.
    """
    experiment = tracking.prepare(tracking_uri())
    number = version or registration.version_number(CHAMPION) or registration.version_number(registration.CHALLENGER)
    if number is None:
        raise registration.RegistryError("there is no policy to reprice; create one with `python -m calibration run`")
    loaded = registration.load_version(number)
    book = load_prices(prices)
    with console.status(f"replaying {len(loaded.outcomes):,} outcomes at current prices"):
        repriced = reprice(loaded, book)
    if repriced is None:
        console.print(f"version {number} already has the current prices; nothing to do", highlight=False)
        return
    for change in repriced.price_changes:
        console.print(change.description, highlight=False)
    console.print(_targets_table(repriced))
    if dry_run:
        return
    headline = f"version {number} at prices of {book.as_of or 'today'}"
    challenger, policy = registration.register_policy(
        experiment, f"reprice {headline}", repriced.policy, loaded.outcomes, headline, loaded.seed
    )
    console.print(
        f"Policy {policy.version} is version {challenger}, with alias {registration.CHALLENGER!r}. "
        "Next: python -m calibration promote",
        highlight=False,
        soft_wrap=True,
    )


def _targets_table(repriced: RepricedPolicy) -> Table:
    table = Table(title="cost saved, relative to always using the strong model", title_justify="left")
    for heading in (
        *("target", "as certified", "current prices, old thresholds", "quality kept"),
        *("current prices, new thresholds", "promise"),
    ):
        table.add_column(heading, justify="left" if heading in ("target", "promise") else "right")
    for change in repriced.targets:
        shares = (change.saved_then, change.saved_unchanged, change.kept_unchanged, change.saved)
        table.add_row(format_percent(change.target), *(f"{value:.1%}" for value in shares), change.promise)
    return table
