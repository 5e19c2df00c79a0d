"""`from-traces`: recorded traffic becomes questions for the next calibration."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Annotated

import typer

from calibration.locations import tracking_uri
from calibration.traffic.sampling import sample
from calibration.traffic.traffic import TrafficError, asked_since, read_since, write


def from_traces_command(
    since: Annotated[str, typer.Option(help="How far back: a number with m, h, d or w.")] = "7d",
    size: Annotated[int, typer.Option("--sample", min=1, help="How many questions.")] = 500,
    out: Annotated[Path, typer.Option(help="File for those that can be judged; the others go beside it.")] = Path(
        "traffic.jsonl"
    ),
    experiment: Annotated[str, typer.Option(envvar="MLFLOW_EXPERIMENT_NAME", help="Where the traces are.")] = "router",
    seed: Annotated[int, typer.Option(help="The same seed gives the same sample.")] = 0,
) -> None:
    """Turn what users asked into questions for the next calibration, those first whose outcome is least sure."""
    from calibration.answers import tracking

    earliest = time.time() - read_since(since).total_seconds()
    tracking.prepare(tracking_uri())
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri())
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise TrafficError(f"there is no experiment {experiment!r} in MLflow: nothing has been recorded yet")
    traffic = list(asked_since(client, found.experiment_id, int(earliest * 1000)))
    if not traffic:
        raise TrafficError(
            f"no routed request of the last {since} was answered by a model and recorded (simulations apart)"
        )
    review = out.with_name(f"{out.name.partition('.')[0]}.review.jsonl")
    chosen = sample(traffic, size, random.Random(seed))  # noqa: S311  chance, not a secret
    written = write(client, chosen, len(traffic), out, review)
    typer.echo(f"{written.seen} routed requests since then")
    typer.echo(f"{written.ready} questions whose answer a user liked: {out}")
    typer.echo(f"{written.to_review} questions that still need expected_facts: {review}")
    if written.repeated:
        typer.echo(f"{written.repeated} were asked before, and are left out")
    if written.without_content:
        typer.echo(f"{written.without_content} were recorded without what was said, and cannot be questions")
