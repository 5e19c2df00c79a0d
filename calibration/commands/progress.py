"""The progress bars of a calibration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from calibration.pipeline import run
from calibration.spending import Meter


@contextmanager
def progress_with(meter: Meter, console: Console) -> Iterator[run.Progress]:
    """Show a progress bar per stage, with the dollars spent so far."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("${task.fields[spent]:.4f} spent"),
    )
    with Progress(*columns, console=console) as bars:

        def stage(name: str, completed: int, total: int) -> None:
            for task in bars.tasks:
                bars.stop_task(task.id)
            bars.add_task(name, total=total, completed=completed, spent=meter.spent_usd())

        def step() -> None:
            bars.update(bars.tasks[-1].id, advance=1, spent=meter.spent_usd())

        yield run.Progress(stage, step)
