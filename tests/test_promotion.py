"""Verdicts are correct in both directions, and promotions and rollbacks fail no request."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import mlflow
import openai
import pytest
from fake_models import FakeModels
from fake_openai import FakeOpenAI
from mlflow.genai.datasets import create_dataset
from running import RunningRouter
from typer.testing import CliRunner

from calibration.__main__ import app
from calibration.answers import tracking
from calibration.answers.answers import Endpoint
from calibration.comparison.verdict import COMPUTED_TYPES, best_rule, decide_verdict
from calibration.judging.judgements import DEFAULT_SCORERS, Scorers
from calibration.pipeline import run
from calibration.pipeline.calibration import Calibration
from calibration.pipeline.ledgers import Ledgers
from calibration.pipeline.plan import Plan
from calibration.pipeline.progress import Progress
from calibration.policies import load_prices
from calibration.questions.naming import name_types
from calibration.questions.questions import Question, parse, read
from calibration.questions.sources import QuestionError
from calibration.registry import promotion, registration
from calibration.reporting.page import format_html
from calibration.spending import Meter
from router.policy.distribution import SHIPPED
from router.policy.document import CHAMPION, REGISTERED_MODEL, dump
from router.policy.reasons import Reason
from router.policy.rules import Interval
from router.serving.champion import fetch, keep_fetching, link_policy
from router.serving.policy import read_policy, served_policy
from router.settings import load

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and its dependencies emit warnings

PER_TYPE = 100
ASKED = {
    "sums": "What is {a} plus {b}? Give the number.",
    "capitals": "Name the capital of the country with code {a}-{b}.",
    "translation": "Translate word number {a}, {b}, into German.",
    "puzzles": "Five friends sit in a row; seed {a}, rule {b}: who sits in the middle?",
}
Quality = Mapping[str, Mapping[str, float]]  # by model and type


def questions(per_type: int = PER_TYPE) -> list[Question]:
    return [
        parse(
            {
                "id": f"{kind}/{n}",
                "question_type": kind,
                "system": "",
                "question": text.format(a=n * 7 + 13, b=n * 11 + 5),
                "reference": f"right {kind} {n}",
                "check": "exact",
            }
        )
        for n in range(per_type)
        for kind, text in ASKED.items()
    ]


def calibrated(folder: Path, uri: str, quality: Quality, per_type: int = PER_TYPE) -> Calibration:
    asked_questions = questions(per_type)
    prices = load_prices()
    meter = Meter(prices)
    with FakeModels(asked_questions, lambda m, kind: quality[m][kind], lambda m, kind: 80) as fake:
        endpoint = Endpoint(fake.base_url, "sk-test")
        plan = Plan(
            questions=asked_questions,
            endpoints=dict.fromkeys(quality, endpoint),
            judge=endpoint,
            scorers=Scorers.load(DEFAULT_SCORERS, "openai:/gpt-4.1-mini"),
            prices=prices,
            folder=folder,
            tracking_uri=uri,
            concurrency=8,
        )
        folder.mkdir()
        with Ledgers(folder) as ledgers:
            calibration = run.run(plan, ledgers, meter, Progress(lambda name, done, of: None, lambda: None))
    registration.log_calibration(calibration)
    assert registration.register(calibration, plan.seed) == registration.version_number(registration.CHALLENGER)
    tracking.close_runs(calibration.runs)
    return calibration


def models_by_quality(**quality: float) -> dict[str, float]:
    return {kind: quality.get(kind, quality["all"]) for kind in ASKED}


PAYS: Quality = {"gpt-4o-mini": models_by_quality(all=1.0, puzzles=0.3), "gpt-4o": models_by_quality(all=1.0)}
DOES_NOT_PAY: Quality = {"gpt-4o-mini": models_by_quality(all=0.4), "gpt-4o": models_by_quality(all=0.95)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, create_store: Callable[[Path], str]) -> str:
    return create_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def routing_pays(tmp_path_factory: pytest.TempPathFactory, store: str) -> Calibration:
    return calibrated(tmp_path_factory.mktemp("pays") / "home", store, PAYS)


@pytest.fixture(scope="module")
def routing_does_not_pay(
    tmp_path_factory: pytest.TempPathFactory, store: str, routing_pays: Calibration
) -> Calibration:
    return calibrated(tmp_path_factory.mktemp("not") / "home", store, DOES_NOT_PAY, per_type=50)


def test_measured_intervals_cover_the_truth(routing_pays: Calibration, routing_does_not_pay: Calibration) -> None:
    intervals = [
        (row.score.low <= quality[row.model][row.question_type] <= row.score.high)
        for calibration, quality in ((routing_pays, PAYS), (routing_does_not_pay, DOES_NOT_PAY))
        for row in calibration.summaries
        if row.question_type in ASKED
    ]
    assert len(intervals) == 16 and sum(intervals) >= 15  # at 95 %, one of sixteen may miss
    assert routing_pays.trace_counts == {"gpt-4o-mini": 400, "gpt-4o": 400}


def test_the_verdict_is_to_route_if_routing_saves(routing_pays: Calibration) -> None:
    assert routing_pays.verdict.route and routing_pays.verdict.headline.startswith("Route")
    assert routing_pays.policy is not None and routing_pays.held_out is not None
    saved = routing_pays.verdict.saving_per_1000_usd
    always_strong_usd = routing_pays.held_out.points["always_gpt-4o"].cost_usd.estimate * 1000
    assert 0.5 * always_strong_usd < saved < 0.8 * always_strong_usd  # three of four types go to the cheap model
    assert any(f"${saved:.2f} per 1,000 requests" in reason for reason in routing_pays.verdict.reasons)


def test_the_verdict_is_not_to_route_if_routing_saves_nothing(routing_does_not_pay: Calibration) -> None:
    assert routing_does_not_pay.verdict.headline == "Do not route"
    assert not routing_does_not_pay.verdict.route and routing_does_not_pay.verdict.saving_per_1000_usd == 0.0


def test_the_verdict_names_certified_targets_and_the_questions_still_needed(
    routing_pays: Calibration, routing_does_not_pay: Calibration
) -> None:
    assert routing_pays.policy is not None and routing_pays.held_out is not None
    reasons = " ".join(routing_pays.verdict.reasons)
    best = max(
        rule.target
        for rule in routing_pays.policy.rules.targets
        if rule.certified and rule.expected_saving.estimate >= 0.02
    )
    assert f"{best * 100:g}% is the highest target with a saving that is certified on these 400" in reasons
    usd_per_question = routing_pays.meter.spent_usd() / 400
    rules = [
        replace(rule, certified=False, quality_per_usd=None, more_questions_needed=460)
        if rule.target >= 0.97
        else replace(rule, certified=True, expected_saving=Interval(0.37, 0.43, 0.5))
        for rule in routing_pays.policy.rules.targets
    ]
    policy = replace(routing_pays.policy, default_target=0.96, rules=replace(routing_pays.policy.rules, targets=rules))
    verdict = decide_verdict(
        policy, routing_pays.held_out, routing_pays.summaries, routing_pays.tradeoffs, usd_per_question
    )
    reasons = " ".join(verdict.reasons)
    assert "96% is the highest target" in reasons and "it saves 43% (37% to 50%) of gpt-4o's cost." in reasons
    assert f"To certify 97% takes about 460 more questions like these, about ${460 * usd_per_question:.2f}" in reasons
    assert (
        "--seed 400 --per-type 20 --out more.jsonl" in reasons and "calibration run --questions more.jsonl" in reasons
    )
    without_cost = decide_verdict(policy, routing_pays.held_out, routing_pays.summaries, routing_pays.tradeoffs)
    assert "$" not in " ".join(without_cost.reasons).split("To certify")[1]
    uncertified = [
        replace(rule, certified=False, quality_per_usd=None, more_questions_needed=None)
        for rule in policy.rules.targets
    ]
    policy = replace(policy, default_target=0.97, rules=replace(policy.rules, targets=uncertified))
    reasons = " ".join(
        decide_verdict(
            policy, routing_pays.held_out, routing_pays.summaries, routing_pays.tradeoffs, usd_per_question
        ).reasons
    )
    assert "No target with a saving is certified on these 400 questions" in reasons
    assert "More questions like these are not expected to certify 97%" in reasons
    assert "certif" in " ".join(routing_does_not_pay.verdict.reasons)


def test_the_verdict_counts_the_computed_types() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "calibration", "generate", "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(result.stdout.split()) == COMPUTED_TYPES


def test_the_report_marks_targets_without_certificate_as_expected(routing_pays: Calibration) -> None:
    assert routing_pays.policy is not None
    rules = [
        replace(rule, certified=False, falls_short=0.2, more_questions_needed=90)
        if rule.quality_per_usd is not None
        else rule
        for rule in routing_pays.policy.rules.targets
    ]
    policy = replace(routing_pays.policy, rules=replace(routing_pays.policy.rules, targets=rules))
    page = format_html(replace(routing_pays, policy=policy))
    assert "expected, missed in 20% of resplits; ask 90 more" in page and "routing, expected targets" in page
    assert "<td data-name='promise'>certified</td>" not in page and "routing, certified targets" not in page
    assert "<td data-name='promise'>certified</td>" in format_html(routing_pays)


def test_missing_question_types_are_predicted_by_a_policy(routing_pays: Calibration) -> None:
    sample = questions()[::7]
    untyped = [replace(question, question_type=None) for question in sample]
    named_questions = name_types(untyped, routing_pays.policy, seed=0)
    correct_count = sum(
        true_question.question_type == named_question.question_type
        for true_question, named_question in zip(sample, named_questions, strict=True)
    )
    assert correct_count > 0.8 * len(sample) and all(question.question_type for question in named_questions)


def test_a_report_is_downloaded_from_the_registry(routing_pays: Calibration, tmp_path: Path) -> None:
    files = registration.fetch_report(routing_pays.runs.experiment_id, routing_pays.runs.parent, tmp_path)
    assert [file.name for file in files] == ["report.html", "comparison.csv", "outcomes.jsonl.gz"]
    assert registration.fetch_report(routing_pays.runs.experiment_id, "", tmp_path / "newest")
    with pytest.raises(registration.RegistryError, match="has no report"):
        registration.fetch_report(routing_pays.runs.experiment_id, "0" * 32, tmp_path)


def test_questions_of_an_mlflow_dataset_are_read(routing_pays: Calibration) -> None:
    dataset = create_dataset(name="mine")
    facts = {"expected_facts": ["because", "so"]}
    dataset.merge_records([{"inputs": {"question": f"Why {n}?"}, "expectations": facts} for n in range(3)])
    calibration = read("mlflow:mine")
    assert sorted(question.text for question in calibration) == ["Why 0?", "Why 1?", "Why 2?"]
    assert all(question.expected_facts == ("because", "so") for question in calibration)
    with pytest.raises(QuestionError, match="no such dataset"):
        read("mlflow:nobodys")


def test_a_challenger_is_promoted_only_if_it_is_better(
    routing_pays: Calibration, routing_does_not_pay: Calibration
) -> None:
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(REGISTERED_MODEL, registration.CHALLENGER, "1")
    done = promotion.promote()
    assert done.promoted and not done.reasons and registration.version_number(CHAMPION) == "1"
    assert done.challenger.gain_over_mix.low > 0 and done.challenger.quality_kept >= done.challenger.target
    with pytest.raises(registration.RegistryError, match="champion already"):
        promotion.promote()
    client.set_registered_model_alias(REGISTERED_MODEL, registration.CHALLENGER, "2")
    refused = promotion.promote()
    assert not refused.promoted and registration.version_number(CHAMPION) == "1"
    assert "does not beat a random mix of the same cost" in " ".join(refused.reasons)
    forced = promotion.promote(force="prices fell")
    assert forced.promoted and registration.version_number(CHAMPION) == "2"
    assert client.get_model_version(REGISTERED_MODEL, "2").tags["forced_because"] == "prices fell"
    assert promotion.rollback() == ("2", "1") and registration.version_number(CHAMPION) == "1"


def test_a_rollback_of_the_first_champion_restores_the_shipped_policy(
    routing_pays: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(REGISTERED_MODEL, registration.CHALLENGER, "1")
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "1")
    client.set_registered_model_tag(REGISTERED_MODEL, promotion.HISTORY, "[]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _uri(routing_pays))
    result = CliRunner().invoke(app, ["rollback"])
    assert result.exit_code == 0 and result.output == "the shipped policy serves again instead of version 1\n"
    assert registration.version_number(CHAMPION) is None
    tags = client.get_model_version(REGISTERED_MODEL, "1").tags
    assert tags["rolled_back_at"] and tags["rolled_back_to"] == "the shipped policy"
    with pytest.raises(
        registration.RegistryError, match="no earlier champion to go back to: the shipped policy serves"
    ):
        promotion.rollback()
    assert promotion.promote().promoted and registration.version_number(CHAMPION) == "1"
    assert promotion.rollback() == ("1", None) and registration.version_number(CHAMPION) is None


def test_a_rollback_in_a_registry_without_the_model_is_a_clear_error(
    routing_pays: Calibration, tmp_path: Path, create_store: Callable[[Path], str]
) -> None:
    before = _uri(routing_pays)
    mlflow.set_tracking_uri(create_store(tmp_path))
    try:
        with pytest.raises(registration.RegistryError, match="no earlier champion"):
            promotion.rollback()
    finally:
        mlflow.set_tracking_uri(before)


@pytest.fixture
def load_on(
    start_router: Callable[..., RunningRouter],
    openai_server: FakeOpenAI,
    routing_pays: Calibration,
    routing_does_not_pay: Calibration,
    tmp_path: Path,
) -> Iterator[tuple[RunningRouter, list[str], threading.Event]]:
    """Run a router under load; yields the policies named in its answers, in order."""
    mlflow.MlflowClient().set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "2")
    assert routing_does_not_pay.policy is not None
    link_policy(tmp_path / "home-0", routing_does_not_pay.policy.version, dump(routing_does_not_pay.policy))
    router = start_router(
        openai_base_url=openai_server.url, openai_api_key="sk-upstream", mlflow_tracking_uri=_uri(routing_pays)
    )
    stop, policies = threading.Event(), []

    def ask() -> None:
        with openai.OpenAI(base_url=router.url, api_key="any", max_retries=0) as client:
            while not stop.is_set():
                answer = client.chat.completions.with_raw_response.create(
                    model="auto", messages=[{"role": "user", "content": "What is 20 plus 22? Give the number."}]
                )
                assert answer.status_code == 200
                policies.append(answer.headers["x-router-policy"])
                time.sleep(0.05)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    fetching = threading.Thread(target=keep_fetching, args=(router.app.worker.settings, stop))
    for thread in (*threads, fetching):
        thread.start()
    yield router, policies, stop
    stop.set()
    for thread in (*threads, fetching):
        thread.join(20)


def _uri(calibration: Calibration) -> str:
    return str(mlflow.get_tracking_uri())


def wait_for(policies: list[str], version: str, seconds: float = 20) -> float:
    started, start = time.monotonic(), len(policies)
    while version not in policies[start:]:
        assert time.monotonic() - started < seconds, f"{version} never served"
        time.sleep(0.05)
    return time.monotonic() - started


def test_promotion_and_rollback_under_load_fail_no_request(
    routing_pays: Calibration,
    routing_does_not_pay: Calibration,
    load_on: tuple[RunningRouter, list[str], threading.Event],
    tmp_path: Path,
) -> None:
    router, policies, stop = load_on
    assert routing_pays.policy is not None and routing_does_not_pay.policy is not None
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "1")
    client.set_registered_model_tag(REGISTERED_MODEL, promotion.HISTORY, "[]")
    assert wait_for(policies, routing_pays.policy.version) < 10
    client.set_registered_model_alias(REGISTERED_MODEL, registration.CHALLENGER, "2")
    promotion.promote(force="a test")
    assert wait_for(policies, routing_does_not_pay.policy.version) < 10
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "policy.json").write_text("{}")
    number = client.create_model_version(REGISTERED_MODEL, source=broken.as_uri()).version
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, number)
    time.sleep(5)
    assert set(policies[-20:]) == {routing_does_not_pay.policy.version}
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "2")
    promotion.rollback()
    assert wait_for(policies, routing_pays.policy.version) < 10
    assert promotion.rollback() == ("1", None)
    assert wait_for(policies, read_policy(SHIPPED).version) < 10
    stop.set()
    time.sleep(0.5)
    records = router.records(len(policies))
    assert len(records) == len(policies) > 100
    assert {record["status"] for record in records} == {200}
    assert {record["policy_version"] for record in records} == set(policies)


def test_a_champion_is_downloaded_once_and_a_registry_without_one_changes_nothing(
    tmp_path: Path, routing_pays: Calibration
) -> None:
    settings = load(home=tmp_path, mlflow_tracking_uri=_uri(routing_pays))
    mlflow.MlflowClient().set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "1")
    assert fetch(settings) == "1"
    assert routing_pays.policy is not None and (tmp_path / "policy").resolve().name == routing_pays.policy.version
    assert fetch(settings, "1") == "1"
    empty = load(home=tmp_path / "empty", mlflow_tracking_uri=f"sqlite:///{tmp_path}/none.db")
    assert fetch(empty) == "" and not (tmp_path / "none.db").exists()


def test_after_a_rollback_a_router_starts_with_the_shipped_policy_and_serves_a_later_champion(
    tmp_path: Path, routing_pays: Calibration
) -> None:
    client, settings = mlflow.MlflowClient(), load(home=tmp_path, mlflow_tracking_uri=_uri(routing_pays))
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "1")
    assert fetch(settings) == "1"
    promoted = served_policy(settings)[0].version
    assert routing_pays.policy is not None and promoted == routing_pays.policy.version
    client.delete_registered_model_alias(REGISTERED_MODEL, CHAMPION)
    assert fetch(settings) == ""  # as the exporter does at its start
    assert served_policy(settings)[0].version == read_policy(SHIPPED).version != promoted
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, "1")
    assert fetch(settings, "") == "1" and served_policy(settings)[0].version == promoted


def test_errors_of_the_registry_remove_no_policy(
    tmp_path: Path, routing_pays: Calibration, create_store: Callable[[Path], str]
) -> None:
    assert routing_pays.policy is not None
    link_policy(tmp_path, routing_pays.policy.version, dump(routing_pays.policy))
    elsewhere = load(home=tmp_path, mlflow_tracking_uri=create_store(tmp_path / "elsewhere"))
    assert fetch(elsewhere, "1") == "1" and served_policy(elsewhere)[0].version == routing_pays.policy.version
    own_folder = tmp_path / "own"
    (tmp_path / "policy").unlink()
    (tmp_path / "policies" / routing_pays.policy.version).rename(own_folder)
    (tmp_path / "policy").symlink_to(own_folder)
    mlflow.MlflowClient().delete_registered_model_alias(REGISTERED_MODEL, CHAMPION)
    fetch(load(home=tmp_path, mlflow_tracking_uri=_uri(routing_pays)))
    assert (tmp_path / "policy").resolve() == own_folder.resolve()


def test_with_three_models_each_is_chosen_where_it_is_best(tmp_path: Path, store: str) -> None:
    prices = tmp_path / "prices.json"
    rows = {name: {"usd_per_million_input_tokens": price, "usd_per_million_output_tokens": 4 * price}
            for name, price in (("small", 0.1), ("mathematician", 0.5), ("large", 5.0))}  # fmt: skip
    prices.write_text(json.dumps({"models": rows}))
    quality: Quality = {
        "small": models_by_quality(all=0.3, sums=0.2, capitals=1.0, translation=1.0),
        "mathematician": models_by_quality(all=0.2, sums=1.0),
        "large": models_by_quality(all=1.0, sums=0.9),
    }
    asked_questions = questions(75)
    with FakeModels(asked_questions, lambda m, kind: quality[m][kind], lambda m, kind: 80) as fake:
        book = load_prices(prices)
        endpoint = Endpoint(fake.base_url, "sk-test")
        scorers = Scorers.load(DEFAULT_SCORERS, "openai:/gpt-4.1-mini")
        ends = dict.fromkeys(quality, endpoint)
        plan = Plan(asked_questions, ends, endpoint, scorers, book, tmp_path, store, concurrency=8)
        with Ledgers(tmp_path) as ledgers:
            calibration = run.run(plan, ledgers, Meter(book), Progress(lambda name, done, of: None, lambda: None))
    tracking.close_runs(calibration.runs)
    assert calibration.policy is not None and [pair.model for pair in calibration.tradeoffs[:2]] == [
        "small",
        "mathematician",
    ]
    best = {"sums": "mathematician", "capitals": "small", "translation": "small", "puzzles": "large"}
    from router.policy.decision import decide
    from router.policy.features import read_question
    from router.policy.prediction import predict

    rule = best_rule(calibration.policy)
    assert rule is not None and rule.target >= 0.9
    models_by_type: dict[str, list[str]] = {kind: [] for kind in ASKED}
    for question in asked_questions:
        features = read_question(question.messages)
        decision = decide(
            calibration.policy.rules, features, predict(calibration.policy.predictor, features), rule.target
        )
        if decision.reason not in (Reason.NOVEL,):
            models_by_type[str(question.question_type)].append(decision.model)
    for kind, models in models_by_type.items():
        assert models.count(best[kind]) > 0.9 * len(models) > 60, (
            kind,
            {model: models.count(model) for model in models},
        )
