"""The sentinel end to end: it detects a type that gets worse, and the router sends the type to the strong model."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
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
from calibration.answers import tracking
from calibration.sentinel.ledgers import FOLDER, SentinelLedgers
from router.exporter.shipping import drain, shippers_for
from router.policy.sentinel import EXPERIMENT, FILE, Sentinel, dump, parse
from router.serving.sentinel import fetch
from router.settings import load

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and what it stands on warn of themselves

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
    """A cheap model that became always wrong."""
    with FakeModels(quality=lambda model, _: float(model != "gpt-4o-mini")) as fake:
        yield fake


class Traffic:
    """A router in front of the models, and the sentinel beside it."""

    def __init__(self, router: RunningRouter, models: FakeModels) -> None:
        self.router, self.models, self.home = router, models, router.home
        self.client = httpx2.Client(base_url=router.origin, timeout=60)

    def ask(self, text: str) -> httpx2.Response:
        body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
        return self.client.post("/v1/chat/completions", json=body)

    def export(self) -> None:
        drain(shippers_for(self.router.app.worker.settings)[0])

    def watch(self, *arguments: str) -> str:
        """Look once, in this process."""
        result = CliRunner().invoke(app, [*OPTIONS, *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    def watch_apart(self, *arguments: str) -> str:
        """Look once, in a process of its own."""
        command = [sys.executable, "-W", "ignore", "-m", "calibration", *OPTIONS, *arguments]
        result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200)
        assert result.returncode == 0 and "sk-of-the-test" not in result.stdout, result.stdout
        return result.stdout

    def found(self) -> Sentinel:
        return parse((self.home / "sentinel.json").read_bytes())

    def strong_asked(self) -> list[str]:
        return [text for model, text in self.models.successful_calls("answer") if model == "gpt-4o"]


@pytest.fixture
def traffic(start_router, models, create_store, tmp_path, monkeypatch) -> Iterator[Callable[..., Traffic]]:
    """Starts a router that recorded some sums."""

    started: list[Traffic] = []

    def start(count: int, **settings: str) -> Traffic:
        uri = create_store(tmp_path / "home-0")
        options = {"openai_base_url": models.base_url, "openai_api_key": "sk-of-the-test", "mlflow_tracking_uri": uri}
        made = Traffic(start_router(**options, **settings), models)
        started.append(made)
        for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "MLFLOW_TRACKING_URI"):
            monkeypatch.setenv(name, str(options[name.lower()]))
        for name, value in {
            "ROUTER_HOME": made.home,
            "COLUMNS": 150,
            "PYTHONPATH": Path(__file__).parent.parent,
        }.items():
            monkeypatch.setenv(name, str(value))
        for text in sums(count):
            assert made.ask(text).headers["x-router-reason"] == "cheap_is_enough"
        made.router.records(count)
        made.export()
        return made

    yield start
    for made in started:
        made.client.close()


@pytest.mark.slow
def test_a_type_that_gets_worse_drifts_and_is_routed_to_the_strong_model(traffic, caplog):
    made = traffic(5)
    made.watch_apart()
    first = made.found()
    assert first.drifted == frozenset() and first.types[KIND].pairs == 5 and 0 < first.spent_usd <= 1.0
    for text in sums(17, 8):
        made.ask(text)
    made.router.records(22)
    made.export()
    with caplog.at_level(logging.WARNING, "router"):
        told = made.watch("--usd-a-day", "20")
        found = made.found()
        assert found.drifted == {KIND} and "drifted, sent to gpt-4o" in told
        low, estimate, high = found.types[KIND].kept
        assert low <= estimate <= high < found.types[KIND].floor and found.types[KIND].evidence >= 1
        assert sorted(made.strong_asked()) == sorted(sums(22))  # each once, over both looks
        assert until(lambda: made.client.get("/health").json()["warnings"], 20.0)
        # a thread of its own logs the alert
        assert until(lambda: any(f"{KIND} drifted and goes to gpt-4o" in record.message for record in caplog.records))
    answer = made.ask(sums(1, 100)[0])
    assert (answer.headers["x-router-reason"], answer.headers["x-router-model"]) == ("drifted", "gpt-4o")
    warnings = made.client.get("/health").json()["warnings"]
    assert any(f"{KIND} drifted and goes to gpt-4o" in warning for warning in warnings)
    assert any("requests changed since the calibration: mix" in warning for warning in warnings)  # of one type alone
    assert f'router_type_drifted{{question_type="{KIND}"}} 1.0' in made.client.get("/metrics").text
    seen = made.client.get("/router/overview").json()["sentinel"]["types"][KIND]
    assert seen["state"] == "drifted" and len(seen["history"]) == 2
    booked = [json.loads(line) for line in (made.home / "spending.jsonl").read_text().splitlines()]
    assert sum(row["cost_usd"] for row in booked) == pytest.approx(found.spent_usd)


def test_a_stopped_inspection_continues_without_repeating_calls(traffic):
    made = traffic(2)
    made.models.faults.refuse = 401
    options = ("--max-output-tokens", "100")
    result = CliRunner().invoke(app, [*OPTIONS, *options])
    assert result.exit_code != 0 and not (made.home / "sentinel.json").exists()
    made.models.faults.refuse = 0
    told = made.watch("--usd-a-day", "0.0152", *options)  # one pair may cost most of it
    few = made.found()
    assert few.types[KIND].pairs == 1 and few.spent_usd <= 0.0152 and "1 deferred to the next day" in told
    made.watch(*options)
    assert sorted(made.strong_asked()) == sorted(sums(2)) and made.found().types[KIND].pairs == 2
    verdicts = len(made.models.successful_calls("judge"))
    told = made.watch(*options)
    assert "0 new requests, 0 new pairs, $0.0000" in told
    assert len(made.strong_asked()) == 2 and len(made.models.successful_calls("judge")) == verdicts


def test_a_request_recorded_without_content_is_not_compared(traffic):
    made = traffic(2, record_content="lengths")
    told = made.watch()
    assert made.found().types == {} and made.strong_asked() == [] and "2 new requests, 0 new pairs" in told


def test_the_reservations_of_a_killed_process_remain(tmp_path):
    folder = tmp_path / FOLDER
    with SentinelLedgers(folder) as ledgers:
        ledgers.reserve("tr-1", 0.25)
        ledgers.reserve("tr-2", 0.25)
        day = ledgers.dollars.get("tr-1")["day"]
    with SentinelLedgers(folder) as ledgers:  # killed before anything was settled
        assert ledgers.spent_usd(day) == 0.5 and ledgers.is_reserved("tr-1")
        ledgers.reserve("tr-1", 0.25)
        assert ledgers.spent_usd(day) == 0.75  # what the killed one may have paid stays counted
        ledgers.settle(["tr-1"], 0.01)
        assert ledgers.spent_usd(day) == pytest.approx(0.51) and not ledgers.is_reserved("tr-1")


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
