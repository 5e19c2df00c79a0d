"""The exporter against a real `mlflow server` with injected faults."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from servers import MlflowServer
from synthetic_records import make_record
from waiting import until

from router.exporter.shipper import Shipper
from router.exporter.shipping import drain, shippers_for
from router.journal.writer import Feedback, Journal
from router.settings import Settings, load


def rows(server: MlflowServer) -> dict[str, tuple[int, int, float]]:
    """Stored input tokens, spans and dollars by trace."""
    with contextlib.closing(sqlite3.connect(server.store, timeout=30)) as db:
        records = db.execute(
            "select request_id, input_tokens, total_cost, (select count(*) from spans where trace_id = request_id)"
            " from trace_info"
        )
        return {row[0]: (row[1], row[3], row[2]) for row in records}


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(server_folder, create_store):
    running = MlflowServer(create_store(server_folder), server_folder)
    yield running
    running.kill()


@pytest.fixture
def fault_proxy(server):
    proxy = FaultProxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def settings(tmp_path, fault_proxy) -> Settings:
    return load(home=tmp_path / "home", mlflow_tracking_uri=f"http://127.0.0.1:{fault_proxy.port}")


def write_records(settings: Settings, numbers: range) -> Journal:
    journal = Journal(settings.home / "journal")
    for number in numbers:
        assert journal.append(make_record(number))
    return journal


def expected(numbers: range) -> dict[str, tuple[int, int, float]]:
    return {
        f"tr-{number + 1:032x}": (1000 + 12 * number, 1, pytest.approx(make_record(number).cost_usd))
        for number in numbers
    }


class Running:
    """Runs the shippers in a thread, like the exporter."""

    def __init__(self, settings: Settings) -> None:
        self.shippers, _ = shippers_for(settings)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=shipper.run, args=(self._stopping, 0.0)) for shipper in self.shippers]
        for thread in self._threads:
            thread.start()

    @property
    def mlflow(self) -> Shipper:
        return next(shipper for shipper in self.shippers if shipper.name == "mlflow")

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(120)


def test_a_batch_reaches_a_server_with_tokens_and_cost_and_feedback(settings, server):
    numbers = range(120)
    journal = write_records(settings, numbers)
    trace = make_record(7).trace_id
    journal.append(Feedback(feedback_id="a" * 32, trace_id=trace, unix_ns=time.time_ns(), score=0.5, comment="hm"))
    journal.close()
    drain(shippers_for(settings)[0])
    assert rows(server) == expected(numbers)
    with contextlib.closing(sqlite3.connect(server.store)) as db:
        assert db.execute("select trace_id, value, rationale from assessments").fetchall() == [
            ("tr-" + trace, "0.5", "hm")
        ]


@pytest.mark.parametrize("mode", ["refuse", "error", "lose"])
def test_a_server_outage_loses_and_duplicates_no_record(settings, server, fault_proxy, mode):
    base = {"refuse": 1000, "error": 2000, "lose": 3000}[mode]
    numbers = range(base, base + 60)
    fault_proxy.mode = mode
    journal = write_records(settings, numbers)
    running = Running(settings)
    try:
        assert until(lambda: running.mlflow.progress.failures >= 2, 120.0)
        progress = json.loads((settings.home / "journal" / "mlflow.progress").read_bytes())
        assert progress["failures"] >= 2
        assert progress["failing_since_unix"] <= time.time()
        assert running.mlflow.cursor.behind_bytes() > 0
        fault_proxy.mode = "pass"
        assert until(lambda: running.mlflow.cursor.behind_bytes() == 0, 120.0)
    finally:
        running.stop()
    journal.close()
    stored = rows(server)
    assert {trace: stored.get(trace) for trace in expected(numbers)} == expected(numbers)
    with contextlib.closing(
        sqlite3.connect(settings.home / "usage.db")
    ) as db:  # the usage tables do not wait for MLflow
        assert db.execute("select count(*) from router_requests").fetchone() == (60,)


def test_a_request_to_a_silent_server_times_out_and_is_retried(settings, server, fault_proxy, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    numbers = range(4000, 4030)
    fault_proxy.mode = "stall"
    journal = write_records(settings, numbers)
    running = Running(settings)
    try:
        assert until(lambda: running.mlflow.progress.failures >= 1, 120.0)
        fault_proxy.mode = "pass"
        assert until(lambda: running.mlflow.cursor.behind_bytes() == 0, 120.0)
    finally:
        running.stop()
    journal.close()
    stored = rows(server)
    assert {trace: stored.get(trace) for trace in expected(numbers)} == expected(numbers)


def test_a_server_killed_during_a_write_stores_every_record_once(settings, server):
    numbers, later = range(5000, 5300), range(5300, 5310)
    journal = write_records(settings, numbers)
    running = Running(settings)
    try:
        assert until(lambda: len(rows(server).keys() & expected(numbers).keys()) >= 50, 120.0)
        server.kill()
        write_records(settings, later).close()  # so that a record is left even if all others are exported
        assert until(lambda: running.mlflow.progress.failures >= 1, 120.0)
        server.start()
        assert until(lambda: running.mlflow.cursor.behind_bytes() == 0, 200)
    finally:
        running.stop()
    journal.close()
    stored, expected_rows = rows(server), expected(range(numbers.start, later.stop))
    assert {trace: stored.get(trace) for trace in expected_rows} == expected_rows


@pytest.fixture(scope="module")
def proxy_python(tmp_path_factory):
    """The Python of an environment with only the packages of the proxy image."""
    folder, root = tmp_path_factory.mktemp("proxy"), Path(__file__).parent.parent
    uv = (sys.executable, "-m", "uv")
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    sync = [*uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", root / "requirements-proxy.lock"]
    if subprocess.run(sync, capture_output=True, timeout=120).returncode != 0:
        pytest.skip("the packages of requirements-proxy.lock cannot be installed here")
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}

    def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command = [python, "-m", "router", *arguments]
        return subprocess.run(
            command, env=environment | settings, cwd=folder, capture_output=True, text=True, timeout=120
        )

    return run


def test_the_packages_of_the_proxy_image_export_to_a_server(proxy_python, settings, server):
    before = rows(server)
    numbers = range(9_000, 9_010)
    write_records(settings, numbers).close()
    options = {"ROUTER_HOME": str(settings.home), "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri}
    exported = proxy_python("export", "--once", **options)
    assert exported.returncode == 0, exported.stderr
    assert {trace: row for trace, row in rows(server).items() if trace not in before} == expected(numbers)


def test_the_packages_of_the_proxy_image_reject_a_local_store(proxy_python, tmp_path):
    result = proxy_python("serve", "--port", "0", ROUTER_HOME=str(tmp_path / "home"))
    assert result.returncode == 2
    assert "set MLFLOW_TRACKING_URI to an MLflow server" in result.stderr
    assert "Traceback" not in result.stderr
