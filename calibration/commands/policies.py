"""`report`, `promote` and `rollback`: what a calibration found, and which policy serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from calibration.answers import tracking
from calibration.locations import tracking_uri
from calibration.registry import promotion, registration

console = Console()


def report_command(
    run_id: Annotated[str, typer.Argument(help="A calibration's run in MLflow; without it, the newest.")] = "",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
) -> None:
    """Fetch the report and the tables of a calibration from MLflow."""
    experiment = tracking.prepare(tracking_uri())
    for path in registration.fetch_report(experiment, run_id, out):
        console.print(str(path))


def promote_command(
    force: Annotated[str | None, typer.Option(help="Promote whatever the replay says; the reason is recorded.")] = None,
) -> None:
    """Make the challenger the champion, if it is better on questions it was not fitted on.

    A running proxy takes the champion up within seconds.
    """
    tracking.prepare(tracking_uri())
    with console.status("replaying the challenger and the champion"):
        done = promotion.promote(force)
    for name, its in (("challenger", done.challenger), ("champion", done.champion)):
        if its is not None:
            gain = its.gain_over_mix
            console.print(
                f"{name}: keeps {its.quality_kept:.1%} of the strong model's quality and saves {its.saving:.1%}; "
                f"over a random mix {gain.estimate * 100:+.1f} points "
                f"({gain.low * 100:+.1f} to {gain.high * 100:+.1f})",
                highlight=False,
            )
    if not done.promoted:
        why = "; ".join(done.reasons)
        raise registration.RegistryError(
            f"version {done.version} was not promoted: {why}. To do it anyway: --force REASON"
        )
    console.print(f"version {done.version} is now the champion" + (f", forced: {force}" if done.reasons else ""))


def rollback_command() -> None:
    """Give the alias back to the champion before this one, or to the shipped policy where there is none.

    A running proxy takes it up within seconds.
    """
    tracking.prepare(tracking_uri())
    left, reached = promotion.rollback()
    if reached is None:
        console.print(f"{promotion.SHIPPED} serves again, no longer version {left}")
    else:
        console.print(f"the champion is version {reached} again, no longer {left}")
