"""`python -m router usage`: print the usage tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from router.settings import SettingsError, load
from router.usage.ledger import engine
from router.usage.sums import UsageError, as_csv, read_question, usage


def show(since: str, until: str, group_by: str, form: str) -> None:
    """Print the usage as a table, JSON or CSV.

    Raises:
        SettingsError: an option is invalid, or nothing is recorded.
    """
    settings = load()
    if settings.usage_database is None and not settings.home.is_dir():
        raise SettingsError(f"{settings.home}: no records found")
    try:
        answer = usage(engine(settings.usage_url), read_question(since, until, group_by))
    except UsageError as error:
        raise SettingsError(str(error)) from error
    if form == "json":
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    elif form == "csv":
        sys.stdout.write(as_csv(answer))
    else:
        _print(answer)


def _print(answer: Mapping[str, Any]) -> None:
    table = Table()
    for name in answer["group_by"]:
        table.add_column(name)
    for name in ("requests", "input", "cached", "output", "cost", "unknown cost", "always strong", "saved (95 %)"):
        table.add_column(name, justify="right")
    for row in answer["rows"]:
        table.add_row(*(str(row[name]) or "-" for name in answer["group_by"]), *_cells(row))
    total = answer["total"]
    table.add_section()
    table.add_row(*(["total"] + [""] * len(answer["group_by"]))[: len(answer["group_by"])], *_cells(total))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    net, spent = total["net_saved_usd"], total["calibration_usd"]
    interval = f"${net['low']:.4f} to ${net['high']:.4f}"
    console.print(f"net savings after ${spent:.4f} for calibration: ${net['estimate']:.4f} ({interval})")
    if total["verified_requests"]:
        failures = f"{total['found_requests']:,} failed, {total['escalated_requests']:,} of them were escalated"
        console.print(
            f"{total['verified_requests']:,} answers were verified: {failures}, for ${total['escalation_usd']:.4f}"
        )
    for name, kind in (
        ("wasted_usd", "retries, fallbacks and replaced answers"),
        ("vain_usd", "requests without a complete answer"),
    ):
        console.print(f"part of the cost for {kind}: ${total[name]:.4f}")
    if total["unknown_cost_attempts"]:
        console.print(f"{total['unknown_cost_attempts']} failed attempts may have been billed; cost unknown")
    if total["simulated_requests"]:
        dollars = f"${total['simulated_usd']:.4f} that was not billed"
        console.print(f"{total['simulated_requests']:,} requests were SIMULATED: {dollars}")
    if total["unrecorded_requests"]:
        console.print(f"{total['unrecorded_requests']} requests were not recorded because the disk was full")
    for prices in answer["prices"]:
        console.print(f"prices: {prices['source']}, {prices['as_of']}")


def _cells(row: Mapping[str, Any]) -> list[str]:
    saved = row["saved_usd"]
    return [
        *(f"{row[name]:,}" for name in ("requests", "input_tokens", "cached_input_tokens", "output_tokens")),
        "unknown" if row["cost_usd"] is None else f"${row['cost_usd']:.4f}",
        f"{row['unknown_cost_requests']:,}",
        f"${row['always_strong_usd']['estimate']:.4f}",
        f"${saved['estimate']:.4f} ({saved['low']:.4f} to {saved['high']:.4f})",
    ]
