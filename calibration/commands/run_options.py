"""The options of `run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from calibration.commands.options import (
    Batch,
    BudgetUsd,
    Concurrency,
    Confidence,
    EndpointOption,
    Jobs,
    Judge,
    MaxOutputTokens,
    Parameters,
    Prices,
    PromiseOption,
    Ray,
    Seed,
    SystemPrompt,
    TypeMargin,
    Until,
    Yes,
    parse_models,
)
from calibration.learning.certificate import TYPE_MARGIN
from calibration.learning.intervals import CONFIDENCE
from calibration.locations import home
from calibration.questions.questions import DEFAULT_SYSTEM_PROMPT
from router.policy.distribution import QUESTIONS
from router.policy.rules import Promise


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Every option of `run`, with its default."""

    questions: Annotated[
        str,
        typer.Option(
            help="A file (.jsonl, .csv, .parquet, ...) or mlflow:NAME for a dataset of MLflow.",
            show_default="the 640 shipped ones",
        ),
    ] = str(QUESTIONS)
    models: Annotated[str, typer.Option(help="Two or more models, cheap to strong, comma-separated.")] = (
        "gpt-4o-mini,gpt-4o"
    )
    out: Annotated[Path | None, typer.Option(help="The output folder. Default: ROUTER_HOME/calibration.")] = None
    judge: Judge = ""
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="correctness, completeness or package.module:name; repeatable. Default: both."),
    ] = None
    endpoint: EndpointOption = None
    system: SystemPrompt = DEFAULT_SYSTEM_PROMPT
    parameters: Parameters = "{}"
    max_output_tokens: MaxOutputTokens = 2000
    from_traffic: Annotated[
        bool,
        typer.Option("--from-traffic", help="Also learn from the answers that `watch` has compared, at no cost."),
    ] = False
    until: Until = None
    budget_usd: BudgetUsd = None
    prices: Prices = None
    types_from: Annotated[
        Path | None,
        typer.Option(help="A policy that classifies questions without a type. Default: cluster them."),
    ] = None
    prior: Annotated[
        bool, typer.Option("--prior/--no-prior", help="Use the shipped policy's evidence on each type as a prior.")
    ] = True
    confidence: Confidence = CONFIDENCE
    promise: PromiseOption = Promise.CERTIFIED
    type_margin: TypeMargin = TYPE_MARGIN
    concurrency: Concurrency = 16
    batch: Batch = False
    jobs: Jobs = 1
    ray: Ray = None
    yes: Yes = False
    seed: Seed = 0

    @property
    def model_names(self) -> list[str]:
        """The models, cheap to strong.

        Raises:
            UsageError: there are fewer than two, or one is named twice.
        """
        return parse_models("--models", self.models)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.out or home() / "calibration"
