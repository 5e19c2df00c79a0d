"""From the options of `run` to the plan of a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from calibration.answers import tracking
from calibration.commands.endpoints import build_endpoint, build_judge_endpoint, parse_addresses, parse_parameters
from calibration.commands.options import UsageError
from calibration.commands.run_options import RunOptions
from calibration.judging.judgements import DEFAULT_SCORERS, Scorers
from calibration.locations import home, tracking_uri
from calibration.outcomes import Outcome
from calibration.pipeline import stopping
from calibration.pipeline.plan import Plan
from calibration.pipeline.rounds import RoundPlan
from calibration.policies import default_judge, load_prices, models_named, read_policy
from calibration.questions.questions import read
from calibration.questions.sources import MLFLOW_DATASET
from calibration.sentinel.ledgers import FOLDER, SentinelLedgers
from router.policy.distribution import SHIPPED
from router.policy.rules import Promise


def build_plan(options: RunOptions) -> tuple[Plan, RoundPlan | None]:
    """The plan that the options describe, and its rounds with `--until`.

    Raises:
        UsageError: options contradict each other, or there is no traffic to learn from.
        PriceError: a model has no price.
        QuestionError: the questions cannot be read.
        ScorerError: a scorer cannot be loaded.
    """
    names = options.model_names
    if options.until is not None and options.promise is Promise.EXPECTED:
        raise UsageError("--until needs a certified target: remove --promise expected")
    judge = options.judge or default_judge()
    prices = load_prices(options.prices)
    models_named([*names, judge], prices)  # fails on a model without a price before any request is sent
    addresses = parse_addresses(options.endpoint)
    parameters = parse_parameters(options.parameters)
    if options.questions.startswith(MLFLOW_DATASET):
        tracking.prepare(tracking_uri())
    traffic = read_traffic(names) if options.from_traffic else []
    endpoints = {name: build_endpoint(name, addresses, options.max_output_tokens, parameters) for name in names}
    if not options.batch:  # a batch cannot be repeated without what a model refuses
        endpoints[names[0]] = replace(endpoints[names[0]], logprobs=True)
    plan = Plan(
        questions=read(options.questions, options.system),
        endpoints=endpoints,
        judge=build_judge_endpoint(judge, addresses),
        scorers=Scorers.load(options.scorer or DEFAULT_SCORERS, f"openai:/{judge}"),
        prices=prices,
        folder=options.folder,
        tracking_uri=tracking_uri(),
        seed=options.seed,
        concurrency=options.concurrency,
        batch=options.batch,
        jobs=options.jobs,
        ray=options.ray,
        type_policy=read_policy(options.types_from) if options.types_from else None,
        confidence=options.confidence,
        promise=options.promise,
        type_margin=options.type_margin,
        about={
            "questions_from": options.questions.rsplit("/", 1)[-1],
            "prices_as_of": prices.as_of,
            **({"prior": read_policy(SHIPPED).version} if options.prior else {}),
            **({"from_traffic": len(traffic)} if options.from_traffic else {}),
        },
        traffic=traffic,
    )
    return (plan, None) if options.until is None else stopping.plan_with_rounds(plan, options.until)


def read_traffic(models: Sequence[str]) -> list[Outcome]:
    """The outcomes that the sentinel recorded for these models.

    Raises:
        UsageError: there are none.
    """
    folder = home() / "calibration" / FOLDER
    outcomes = []
    if folder.is_dir():
        with SentinelLedgers(folder) as ledgers:
            outcomes = ledgers.outcomes(models)
    if not outcomes:
        raise UsageError(
            f"--from-traffic: `watch` has not compared answers of {' and '.join(models)} yet; run `watch` first"
        )
    return outcomes
