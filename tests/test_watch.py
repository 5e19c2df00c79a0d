"""The sentinel end to end: it detects a type that gets worse, and the router sends the type to the strong model."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from fake_models import FakeModels
from running import RunningRouter
from typer.testing import CliRunner
from waiting import until

from calibration.__main__ import app
from calibration.answers import batch, tracking
from calibration.policies import load_prices
from calibration.sentinel.ledgers import FOLDER, SentinelLedgers, today
from calibration.spending import StoppedError
from router.exporter.shipping import drain, shippers_for
from router.policy.sentinel import EXPERIMENT, FILE, Sentinel, dump, parse
from router.policy.usage import Usage
from router.serving.sentinel import fetch
from router.settings import load

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and its dependencies emit warnings

KIND = "math/grade-school"  # a type that the shipped policy routes to the cheap model
OPTIONS = ("watch", "--once", "--share", "1", "--judge", "gpt-4.1-mini")


def sums(count: int, first: int = 3) -> list[str]:
    names = ("Tom", "Ann", "James", "Maria")
    return [
        f"{names[n % 4]} has {n} apples and buys {n + 5} more. How many apples does {names[n % 4]} have now?"
        for n in range(first, first + count)
    ]


@pytest.fixture
def models() -> Iterator[FakeModels]:
    """Fake models of which the cheap one is always wrong."""
    with FakeModels(quality=lambda model, _: float(model != "gpt-4o-mini")) as fake:
        yield fake


class Traffic:
    """A router in front of the models, and the sentinel's commands."""

    def __init__(self, router: RunningRouter, models: FakeModels) -> None:
        self.router, self.models, self.home = router, models, router.home
        self.client = httpx2.Client(base_url=router.origin, timeout=60)

    def ask(self, text: str) -> httpx2.Response:
        body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
        return self.client.post("/v1/chat/completions", json=body)

    def export(self) -> None:
        drain(shippers_for(self.router.app.worker.settings)[0])

    def watch(self, *arguments: str) -> str:
        """Run one inspection in this process."""
        result = CliRunner().invoke(app, [*OPTIONS, *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    def watch_apart(self, *arguments: str) -> str:
        """Run one inspection in a separate process."""
        command = [sys.executable, "-W", "ignore", "-m", "calibration", *OPTIONS, *arguments]
        result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200)
        assert result.returncode == 0 and "sk-of-the-test" not in result.stdout, result.stdout
        return result.stdout

    def read_report(self) -> Sentinel:
        return parse((self.home / "sentinel.json").read_bytes())

    def strong_asked(self) -> list[str]:
        return [text for model, text in self.models.successful_calls("answer") if model == "gpt-4o"]


@pytest.fixture
def traffic(start_router, models, create_store, tmp_path, monkeypatch) -> Iterator[Callable[..., Traffic]]:
    """A function that starts a router with some recorded sums."""

    started: list[Traffic] = []

    def start(count: int, **settings: str) -> Traffic:
        uri = create_store(tmp_path / "home-0")
        options = {"openai_base_url": models.base_url, "openai_api_key": "sk-of-the-test", "mlflow_tracking_uri": uri}
        traffic_run = Traffic(start_router(**options, **settings), models)
        started.append(traffic_run)
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "MLFLOW_TRACKING_URI"):
            monkeypatch.setenv(name, str(options[name.lower()]))
        for name, value in {
            "ROUTER_HOME": traffic_run.home,
            "COLUMNS": 150,
            "PYTHONPATH": Path(__file__).parent.parent,
        }.items():
            monkeypatch.setenv(name, str(value))
        for text in sums(count):
            assert traffic_run.ask(text).headers["x-router-reason"] == "cheap_is_enough"
        traffic_run.router.records(count)
        traffic_run.export()
        return traffic_run

    yield start
    for traffic_run in started:
        traffic_run.client.close()


@pytest.mark.slow
def test_a_type_that_gets_worse_drifts_and_is_routed_to_the_strong_model(traffic, caplog):
    traffic_run = traffic(5)
    traffic_run.watch_apart()
    first = traffic_run.read_report()
    assert first.drifted == frozenset() and first.types[KIND].pairs == 5 and 0 < first.spent_usd <= 1.0
    for text in sums(17, 8):
        traffic_run.ask(text)
    traffic_run.router.records(22)
    traffic_run.export()
    with caplog.at_level(logging.WARNING, "router"):
        output = traffic_run.watch("--usd-a-day", "20")
        report = traffic_run.read_report()
        assert report.drifted == {KIND} and "drifted, sent to gpt-4o" in output
        low, estimate, high = report.types[KIND].kept
        assert low <= estimate <= high < report.types[KIND].floor and report.types[KIND].evidence >= 1
        assert sorted(traffic_run.strong_asked()) == sorted(sums(22))  # each pair once, over both inspections
        assert until(lambda: traffic_run.client.get("/health").json()["warnings"], 20.0)
        # a thread of its own logs the alert
        assert until(lambda: any(f"{KIND} drifted and goes to gpt-4o" in record.message for record in caplog.records))
    answer = traffic_run.ask(sums(1, 100)[0])
    assert (answer.headers["x-router-reason"], answer.headers["x-router-model"]) == ("drifted", "gpt-4o")
    warnings = traffic_run.client.get("/health").json()["warnings"]
    assert any(f"{KIND} drifted and goes to gpt-4o" in warning for warning in warnings)
    assert any("requests changed since the calibration: mix" in warning for warning in warnings)  # of one type only
    assert f'router_type_drifted{{question_type="{KIND}"}} 1.0' in traffic_run.client.get("/metrics").text
    shown_type = traffic_run.client.get("/router/overview").json()["sentinel"]["types"][KIND]
    assert shown_type["state"] == "drifted" and len(shown_type["history"]) == 2
    assert booked_usd(traffic_run) == pytest.approx(report.spent_usd)


def test_a_stopped_inspection_continues_without_repeating_calls(traffic):
    traffic_run = traffic(2)
    traffic_run.models.faults.refuse = 401
    options = ("--max-output-tokens", "100")
    result = CliRunner().invoke(app, [*OPTIONS, *options])
    assert result.exit_code != 0 and not (traffic_run.home / "sentinel.json").exists()
    traffic_run.models.faults.refuse = 0
    output = traffic_run.watch("--usd-a-day", "0.0152", *options)  # one pair may cost most of it
    first_report = traffic_run.read_report()
    assert (
        first_report.types[KIND].pairs == 1
        and first_report.spent_usd <= 0.0152
        and "1 deferred to the next day" in output
    )
    traffic_run.watch(*options)
    assert sorted(traffic_run.strong_asked()) == sorted(sums(2)) and traffic_run.read_report().types[KIND].pairs == 2
    verdicts = len(traffic_run.models.successful_calls("judge"))
    output = traffic_run.watch(*options)
    assert "0 new requests, 0 new pairs, $0.0000" in output
    assert len(traffic_run.strong_asked()) == 2 and len(traffic_run.models.successful_calls("judge")) == verdicts


def interrupt_batch(made: Traffic, *options: str) -> None:
    """Press Ctrl-C while the batch is running."""
    made.models.faults.answers_unavailable = True
    threading.Timer(0.5, lambda: until(lambda: made.models.batches) and os.kill(os.getpid(), signal.SIGINT)).start()
    done = CliRunner().invoke(app, [*OPTIONS, "--batch", *options])
    assert done.exit_code == 1 and isinstance(done.exception, StoppedError), done.output
    assert "resumes waiting for them" in str(done.exception)
    made.models.faults.answers_unavailable = False


def booked_usd(made: Traffic) -> float:
    return sum(json.loads(line)["cost_usd"] for line in (made.home / "spending.jsonl").read_text().splitlines())


def billed_usd(made: Traffic) -> float:
    """What the models and the judge bill: half the price of answers in a batch."""
    prices, billed = load_prices(), made.models.billed_tokens
    answers, verdicts = (prices.cost_usd(name, Usage(*billed[name])) for name in ("gpt-4o", "gpt-4.1-mini"))
    return answers / 2 + verdicts


def test_an_interrupted_batch_is_resumed_and_paid_once(traffic):
    made = traffic(5)
    options = ("--usd-a-day", "0.2")  # more than the reservation of the batch, and less than twice that
    interrupt_batch(made, *options)
    with SentinelLedgers(made.home / "calibration" / FOLDER) as ledgers:
        assert 0.1 < ledgers.spent_usd(today()) < 0.2 and ledgers.total_billed_usd() == 0.0
    assert not (made.home / "spending.jsonl").exists()
    told = made.watch("--batch", *options)
    assert "5 new pairs" in told and made.read_report().types[KIND].pairs == 5
    assert len(made.models.batches) == 1 and sorted(made.strong_asked()) == sorted(sums(5))
    assert made.read_report().spent_usd == pytest.approx(billed_usd(made)) == pytest.approx(booked_usd(made))
    assert "0 new pairs, $0.0000" in made.watch("--batch", *options)


def test_requests_that_a_batch_does_not_answer_are_compared_by_the_next_inspection(traffic, monkeypatch):
    monkeypatch.setattr(batch, "POLL_SECONDS", 0.05)
    made = traffic(6)
    made.models.faults.expired_in_batch, made.models.faults.failed_in_batch = 0.4, 0.3
    told = made.watch("--batch")
    answered = len(made.strong_asked())
    assert answered < 6 and f"{answered} new pairs" in told and f"{6 - answered} without an answer or verdict" in told
    made.models.faults.expired_in_batch = 1.0
    made.models.faults.failed_in_batch = 0.0
    for _ in range(2):  # the same requests expire twice
        assert f"{6 - answered} without an answer or verdict" in made.watch("--batch")
    made.models.faults.expired_in_batch = 0.0
    assert f"{6 - answered} new pairs" in made.watch("--batch")
    assert made.read_report().types[KIND].pairs == 6 and sorted(made.strong_asked()) == sorted(sums(6))
    assert made.read_report().spent_usd == pytest.approx(billed_usd(made)) == pytest.approx(booked_usd(made))


def test_a_request_recorded_without_content_is_not_compared(traffic):
    traffic_run = traffic(2, record_content="lengths")
    output = traffic_run.watch()
    assert (
        traffic_run.read_report().types == {}
        and traffic_run.strong_asked() == []
        and "2 new requests, 0 new pairs" in output
    )


def test_the_reservations_of_a_killed_process_remain(tmp_path):
    folder = tmp_path / FOLDER
    with SentinelLedgers(folder) as ledgers:
        ledgers.reserve("tr-1", 0.25)
        ledgers.reserve("tr-2", 0.25)
        day = ledgers.dollars.get("tr-1")["day"]
    with SentinelLedgers(folder) as ledgers:  # killed before anything was settled
        assert ledgers.spent_usd(day) == 0.5 and ledgers.is_reserved("tr-1")
        ledgers.reserve("tr-1", 0.25)
        assert ledgers.spent_usd(day) == 0.75  # the reservation of the killed process stays counted
        ledgers.settle(["tr-1"], 0.01)
        assert ledgers.spent_usd(day) == pytest.approx(0.51) and not ledgers.is_reserved("tr-1")


def test_a_held_reservation_is_counted_once_and_replaced_on_another_day(tmp_path, monkeypatch):
    with SentinelLedgers(tmp_path / FOLDER) as ledgers:
        ledgers.reserve("tr-1", 0.25)
        ledgers.hold(["tr-1"], 0.05)  # stopped, after it paid five cents
        day = today()
        assert ledgers.is_held("tr-1") and ledgers.spent_usd(day) == 0.25
        assert ledgers.total_billed_usd() == pytest.approx(0.05)
        monkeypatch.setattr("calibration.sentinel.ledgers.today", lambda: "2099-01-01")
        assert not ledgers.is_held("tr-1")
        ledgers.reserve("tr-1", 0.25)
        assert (ledgers.spent_usd(day), ledgers.spent_usd("2099-01-01")) == (0.0, 0.25)
        ledgers.settle(["tr-1"], 0.02)
        assert ledgers.spent_usd("2099-01-01") == 0.02 and ledgers.total_billed_usd() == pytest.approx(0.07)


def test_dollars_of_earlier_days_stay_billed(tmp_path, monkeypatch):
    with SentinelLedgers(tmp_path / FOLDER) as ledgers:
        ledgers.reserve("tr-1", 0.25)
        ledgers.settle(["tr-1"], 0.05)  # it got no verdict, so it is compared again
        monkeypatch.setattr("calibration.sentinel.ledgers.today", lambda: "2099-01-01")
        ledgers.reserve("tr-1", 0.25)
        assert ledgers.total_billed_usd() == pytest.approx(0.05)
        ledgers.settle(["tr-1"], 0.01)
        assert ledgers.total_billed_usd() == pytest.approx(0.06) and ledgers.spent_usd("2099-01-01") == 0.01


def test_routers_on_other_machines_read_the_findings_from_mlflow(tmp_path, create_store):
    uri = create_store(tmp_path / "mlflow")
    tracking.prepare(uri)
    settings = load(home=tmp_path / "elsewhere", mlflow_tracking_uri=uri)
    settings.home.mkdir()
    assert fetch(settings) == ""
    contents = [dump(Sentinel(policy=name, target=0.97, made_unix=1.0)) for name in ("first", "second")]
    for content in contents:
        tracking.publish(EXPERIMENT, FILE, content, "v")
        time.sleep(0.01)
    run = fetch(settings)
    assert (settings.home / FILE).read_bytes() == contents[1]
    (settings.home / FILE).unlink()
    assert fetch(settings, run) == run and not (settings.home / FILE).exists()  # nothing new is fetched again
    tracking.publish(EXPERIMENT, FILE, b"broken", "v")
    assert fetch(settings, run) != run and not (settings.home / FILE).exists()
