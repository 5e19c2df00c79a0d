"""The progress bars of a calibration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from calibration.pipeline.progress import Progress as PipelineProgress
from calibration.spending import Meter


@contextmanager
def progress_with(meter: Meter, console: Console) -> Iterator[PipelineProgress]:
    """A progress bar for each stage, with the cost so far."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("${task.fields[spent]:.4f} spent"),
    )
    with Progress(*columns, console=console) as bars:

        def start_stage(name: str, done: int, total: int) -> None:
            for task in bars.tasks:
                bars.stop_task(task.id)
            bars.add_task(name, total=total, completed=done, spent=meter.spent_usd())

        def advance() -> None:
            bars.update(bars.tasks[-1].id, advance=1, spent=meter.spent_usd())

        yield PipelineProgress(start_stage, advance)
