"""`report`, `promote` and `rollback`: fetch a report, and choose the policy that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from calibration.answers import tracking
from calibration.locations import tracking_uri
from calibration.registry import promotion, registration

console = Console()
REPORT_EXAMPLE = "Example: python -m calibration report --out reports"
PROMOTE_EXAMPLE = 'Example: python -m calibration promote --force "prices fell"'
ROLLBACK_EXAMPLE = "Example: python -m calibration rollback"


def report_command(
    run_id: Annotated[str, typer.Argument(help="MLflow run of a calibration. Default: the newest.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path(),
) -> None:
    """Download the report and tables of a calibration from MLflow."""
    experiment = tracking.prepare(tracking_uri())
    for path in registration.fetch_report(experiment, run_id, out):
        console.print(str(path))


def promote_command(
    force: Annotated[
        str | None, typer.Option(help="Promote regardless of the comparison. The value is recorded as the reason.")
    ] = None,
) -> None:
    """Make the challenger the champion if it is better on held-out questions.

    Running routers load the new champion within seconds.
    """
    tracking.prepare(tracking_uri())
    with console.status("comparing the challenger with the champion"):
        result = promotion.promote(force)
    for name, evaluation in (("challenger", result.challenger), ("champion", result.champion)):
        if evaluation is not None:
            gain = evaluation.gain_over_mix
            console.print(
                f"{name}: keeps {evaluation.quality_kept:.1%} of the strong model's quality, saves "
                f"{evaluation.saving:.1%}, and is {gain.estimate * 100:+.1f} points "
                f"({gain.low * 100:+.1f} to {gain.high * 100:+.1f}) above a random mix of the same cost",
                highlight=False,
            )
    if not result.promoted:
        reasons = "; ".join(result.reasons)
        raise registration.RegistryError(
            f"version {result.version} was not promoted: {reasons}. To promote it anyway, use --force REASON"
        )
    console.print(f"version {result.version} is now the champion" + (f" (forced: {force})" if result.reasons else ""))


def rollback_command() -> None:
    """Restore the previous champion, or the shipped policy if there was none.

    Running routers load the restored policy within seconds.
    """
    tracking.prepare(tracking_uri())
    replaced, restored = promotion.rollback()
    if restored is None:
        console.print(f"{promotion.SHIPPED} serves again instead of version {replaced}")
    else:
        console.print(f"version {restored} is the champion again instead of version {replaced}")
