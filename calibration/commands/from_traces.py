"""`from-traces`: create questions for the next calibration from recorded traffic."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated

import typer

from calibration.answers import tracking
from calibration.locations import tracking_uri
from calibration.traffic.sampling import sample_traffic
from calibration.traffic.traffic import TrafficError, read_traffic, write_questions

EXAMPLE = "Example: python -m calibration from-traces --since 7d --sample 500"


def from_traces_command(
    since: Annotated[str, typer.Option(help="Period of traffic to read: a number followed by m, h, d or w.")] = "7d",
    size: Annotated[int, typer.Option("--sample", min=1, help="Maximum number of questions.")] = 500,
    out: Annotated[
        Path,
        typer.Option(help="File for questions with an expected response. The other questions go to NAME.review.jsonl."),
    ] = Path("traffic.jsonl"),
    experiment: Annotated[
        str, typer.Option(envvar="MLFLOW_EXPERIMENT_NAME", help="MLflow experiment with the traces.")
    ] = "router",
    seed: Annotated[int, typer.Option(help="Seed of the random sample.")] = 0,
) -> None:
    """Sample recorded requests and write them as questions for the next calibration.

    Requests with user feedback come first, then those on which the policy was least certain.
    """
    uri = tracking_uri()
    tracking.prepare(uri)
    client, traffic = read_traffic(since, uri, experiment)
    if not traffic:
        raise TrafficError(f"no answered routed request of the last {since} is recorded (simulated requests excluded)")
    review = out.with_name(f"{out.name.partition('.')[0]}.review.jsonl")
    sample = sample_traffic(traffic, size, random.Random(seed))  # noqa: S311  not a secret
    written = write_questions(client, sample, out, review)
    typer.echo(f"{len(traffic)} answered routed requests in the last {since}")
    typer.echo(f"{written.ready} questions with a liked answer as expected response: {out}")
    typer.echo(f"{written.to_review} questions that need expected_facts: {review}")
    if written.repeated:
        typer.echo(f"{written.repeated} repeat another question and are left out")
    if written.without_content:
        typer.echo(f"{written.without_content} were recorded without content and are left out")
