import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from synthetic_records import START, make_record
from waiting import until

from router.exporter.process import start
from router.exporter.shipper import Shipper
from router.exporter.shipping import only_one
from router.exporter.tracestore import TraceStore, open_store
from router.journal.writer import Entry, Journal, Record
from router.serving.policy import prices
from router.settings import Settings, load


@pytest.fixture
def settings(tmp_path, create_store) -> Settings:
    create_store(tmp_path / "home")
    return load(home=tmp_path / "home")


def write_records(settings: Settings, *records: Record) -> None:
    journal = Journal(settings.home / "journal")
    for record in records:
        assert journal.append(record)
    journal.close()


def environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, "ROUTER_HOME": str(settings.home), "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri}


def export_once(settings: Settings) -> None:
    shipper = Shipper(settings.home / "journal", "mlflow", TraceStore(settings, prices(settings)))
    while shipper.step():
        pass


def stored_traces(settings: Settings, **search) -> list:
    """The traces as a user reads them, sorted by id."""
    client = MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name("router").experiment_id
    traces = client.search_traces(locations=[experiment], max_results=500, **search)
    return sorted(traces, key=lambda trace: trace.info.trace_id)


def count(settings: Settings) -> int:
    path = Path(settings.tracking_uri.removeprefix("sqlite:///"))
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as db:
        try:
            return db.execute("select count(*) from spans").fetchone()[0]
        except sqlite3.OperationalError:
            return 0


def test_a_record_is_a_trace_with_its_times_tokens_cost_and_decision(settings):
    request = {"model": "auto", "messages": [{"role": "user", "content": "What is 2+2?"}]}
    unknown = make_record(2, model="new-model", response_model="", cost_usd=None)
    failed = make_record(3, status=429, outcome="failed", error="slow down", usage=None, cost_usd=None)
    earlier = {"model": "gpt-4o", "usage": {"input_tokens": 10, "output_tokens": 5}, "cost_usd": 0.5}
    repeated = make_record(4, wasted=[earlier], attempts=2)
    write_records(settings, make_record(1, request=request), unknown, failed, repeated)
    export_once(settings)
    first_trace, without_price, error, twice = stored_traces(settings)

    record, info, span = make_record(1), first_trace.info, first_trace.data.spans[0]
    assert info.trace_id == "tr-" + record.trace_id
    assert info.state == "OK"
    assert info.request_time == START // 10**6 + 1000
    assert info.execution_duration == 1500
    assert (span.start_time_ns, span.end_time_ns) == (record.started_unix_ns, record.ended_unix_ns)
    tokens = {"input_tokens": 1012, "output_tokens": 200, "total_tokens": 1212, "cache_read_input_tokens": 400}
    assert info.token_usage == tokens
    assert info.cost["total_cost"] == pytest.approx(record.cost_usd, rel=1e-12)
    assert info.cost["input_cost"] == pytest.approx(612 * 0.15e-6 + 400 * 0.075e-6, rel=1e-9)
    assert info.request_preview == "What is 2+2?"
    assert span.inputs == request
    assert span.attributes["router.seconds_to_first_byte"] == 0.25
    assert info.tags["router.reason"] == "cheap_is_enough"
    assert info.tags["router.model"] == "gpt-4o-mini"
    assert info.tags["router.policy"] == "v1"
    assert info.trace_metadata["mlflow.trace.session"] == "s-1"
    assert info.trace_metadata["mlflow.trace.user"] == "ada"

    assert without_price.info.cost is None  # unknown, and not 0
    assert without_price.info.token_usage["input_tokens"] == 1024

    assert error.info.state == "ERROR"
    assert error.info.tags["router.status"] == "429"
    assert error.data.spans[0].attributes["router.error"] == "slow down"

    assert twice.info.token_usage["input_tokens"] == 1048 + 10  # the sum of all billed calls
    assert twice.info.cost["total_cost"] == pytest.approx(make_record(4).cost_usd + 0.5)
    assert len(twice.data.spans) == 3

    traces = stored_traces(settings, filter_string="tags.`router.status` = '429'")
    assert [trace.info.trace_id for trace in traces] == [error.info.trace_id]


def test_exporting_the_same_records_again_changes_nothing(settings):
    write_records(settings, *(make_record(number) for number in range(5)))
    export_once(settings)
    before = [trace.to_dict() for trace in stored_traces(settings)]
    for cursor in (settings.home / "journal").glob("*.cursor"):
        cursor.unlink()
    export_once(settings)
    assert [trace.to_dict() for trace in stored_traces(settings)] == before


def test_a_killed_exporter_exports_every_record_exactly_once(settings):
    write_records(settings, *(make_record(number) for number in range(480)))
    command = [sys.executable, "-m", "router", "export"]
    for _ in range(2):
        enough = count(settings) + 1  # the first batch that it writes
        process = subprocess.Popen(command, env=environment(settings), stderr=subprocess.DEVNULL)
        assert until(lambda enough=enough: count(settings) >= enough, 180.0)  # the exporter runs at low priority
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert count(settings) < 480
    export_once(settings)
    traces = stored_traces(settings)
    assert [trace.info.trace_id for trace in traces] == [f"tr-{number + 1:032x}" for number in range(480)]
    assert sum(trace.info.token_usage["input_tokens"] for trace in traces) == sum(1000 + 12 * n for n in range(480))


def test_records_written_during_the_last_read_are_exported(settings):
    """The record arrives during an empty read that may be the last one."""
    stopping = threading.Event()
    read_entries: list[Entry] = []

    class Kept:
        batch = 10
        write = staticmethod(read_entries.extend)

    def a_request_ends_and_then_the_server() -> None:
        if not stopping.is_set():
            write_records(settings, make_record(1))
            stopping.set()

    Shipper(settings.home / "journal", "kept", Kept(), a_request_ends_and_then_the_server).run(stopping, 30.0)
    assert [entry.trace_id for entry in read_entries] == [make_record(1).trace_id]


def test_the_exporter_of_serve_exports_while_running_and_drains_when_stopped(settings):
    journal = Journal(settings.home / "journal")
    journal.append(make_record(1))
    exporter = start(settings)
    assert until(lambda: count(settings) == 1, 180.0)
    journal.append(make_record(2))
    exporter.stop(30.0)
    assert count(settings) == 2
    journal.close()


def test_an_exporter_stopped_while_it_starts_exports_once(tmp_path):
    stopping = threading.Event()
    stopping.set()
    with only_one(tmp_path, stopping) as first, only_one(tmp_path, stopping) as second:
        assert (first, second) == (True, False)


def test_an_exporter_ends_with_its_parent(settings):
    journal = Journal(settings.home / "journal")
    code = """
import sys, time
from pathlib import Path
from router.exporter.process import start
from router.settings import load
print(start(load(home=Path(sys.argv[1]))).pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, str(settings.home)], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert until(lambda: not _runs(pid), 30.0)
    journal.close()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_does_not_end_the_exporter_before_serve(settings):
    exporter = start(settings)
    assert until((settings.home / "journal" / "exporter.lock").exists, 60.0)  # it has set its signals
    status = Path(f"/proc/{exporter.pid}/status").read_text()
    (ignored,) = re.findall(r"^SigIgn:\s*(\w+)$", status, re.MULTILINE)
    exporter.stop(0.1)
    assert int(ignored, 16) & (1 << (signal.SIGINT - 1))


def test_an_ended_exporter_is_restarted(settings):
    exporter = start(settings)
    first = exporter.pid
    os.kill(first, signal.SIGKILL)
    assert until(lambda: exporter.pid != first, 15.0)
    exporter.stop()
    assert not _runs(exporter.pid)


def test_the_store_of_an_older_mlflow_is_migrated(settings):
    path = settings.home / "mlflow.db"
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config

    with contextlib.closing(sqlite3.connect(path)) as db:
        newest = db.execute("select version_num from alembic_version").fetchone()
    command.downgrade(_get_alembic_config(settings.tracking_uri), "-1")
    open_store(settings.tracking_uri, settings.home)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("select version_num from alembic_version").fetchone() == newest


def test_a_store_whose_creation_was_killed_is_created_again(tmp_path):
    path, new = tmp_path / "mlflow.db", tmp_path / "mlflow.db.new"
    code = "import sys; from pathlib import Path; from router.exporter.tracestore import open_store; "
    code += "open_store(f'sqlite:///{sys.argv[1]}/mlflow.db', Path(sys.argv[1]))"
    creating = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    assert until(lambda: new.exists() and new.stat().st_size > 100_000, 120.0)  # it has tables
    creating.kill()
    creating.wait()
    assert not path.exists()
    open_store(f"sqlite:///{path}", tmp_path).get_experiment("0")
    assert not new.exists()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


IMPORTED_TWICE = """
import threading
from pathlib import Path
from router.serving.champion import fetch
from router.exporter.tracestore import disable_network_lookups, open_store
from router.settings import load

settings = load(mlflow_tracking_uri="http://127.0.0.1:9", home=Path("home"))
failed = []

def run(call, *arguments):
    try:
        call(*arguments)
    except ImportError as error:
        failed.append(error)
    except Exception:  # a port without a listener
        pass

disable_network_lookups()
calls = ((fetch, settings), (open_store, settings.tracking_uri, settings.home))
threads = [threading.Thread(target=run, args=call) for call in calls]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
"""


def test_concurrent_imports_of_mlflow_are_serialized(tmp_path):
    result = subprocess.run([sys.executable, "-c", IMPORTED_TWICE], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
