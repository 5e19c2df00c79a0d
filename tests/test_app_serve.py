"""`python -m router serve`, started and stopped as a user does."""

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from command_line import run
from fake_openai import chat_events, stream_reply
from servers import free_port
from waiting import until


@pytest.fixture
def serving(tmp_path, openai_server, create_store):
    """A function that starts the command; returns the process and its origin."""
    create_store(tmp_path / "home")
    running = []

    def start(*arguments: str, stderr=subprocess.PIPE, **settings: str) -> tuple[subprocess.Popen, str]:
        port = free_port()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("ROUTER_", "OPENAI_", "MLFLOW_"))
        }
        environment |= {"OPENAI_BASE_URL": openai_server.url, "ROUTER_HOME": str(tmp_path / "home"), **settings}
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        command = [sys.executable, "-m", "router", "serve", "--port", str(port), *arguments]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=stderr, cwd=tmp_path)
        running.append(process)
        origin = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                httpx2.get(origin + "/ready", timeout=5)
                return process, origin
            except httpx2.TransportError:
                time.sleep(0.1)
        raise AssertionError("it did not start")

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        if process.stderr is not None:
            process.stderr.close()


def test_a_running_answer_is_finished_before_the_server_stops(serving, openai_server):
    process, origin = serving("--workers", "2")
    openai_server.enqueue(stream_reply(*chat_events("gpt-4o"), gap=0.3))
    answers = []

    def ask() -> None:
        body = {"model": "gpt-4o", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
        answers.append(httpx2.post(origin + "/v1/chat/completions", json=body, timeout=60).content)

    asking = threading.Thread(target=ask)
    asking.start()
    while not openai_server.received:
        time.sleep(0.02)
    time.sleep(0.4)
    process.send_signal(signal.SIGTERM)
    asking.join(60)
    assert answers == [b"".join(chat_events("gpt-4o"))]
    assert process.wait(60) == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(origin + "/ready")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_after_sigterm_the_server_is_not_ready_and_still_answers(serving, workers):
    process, origin = serving("--workers", workers, ROUTER_TIMEOUTS='{"drain_before": 4}')
    with httpx2.Client() as client:
        assert client.get(origin + "/ready").json()["status"] == "ready"
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 3
        while (answer := client.get(origin + "/ready")).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert answer.status_code == 503 and answer.json()["status"] == "ending"
        answer = client.post(origin + "/v1/chat/completions", json={"model": "gpt-4o", "messages": []})
        assert answer.status_code == 200 and answer.headers["connection"] == "close"
        assert client.get(origin + "/health").status_code == 200
    assert process.wait(60) == 0


def test_a_second_sigterm_ends_the_wait_at_once(serving):
    process, origin = serving(ROUTER_TIMEOUTS='{"drain_before": 100}')
    process.send_signal(signal.SIGTERM)
    while httpx2.get(origin + "/ready").status_code == 200:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_sighup_logs_which_settings_need_a_restart(serving, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as log_file:
        process, origin = serving(stderr=log_file)
    (tmp_path / "router.toml").write_text("max_attempts = 1\n")
    process.send_signal(signal.SIGHUP)
    assert until(lambda: "SIGHUP" in log.read_text(), 20.0)
    assert "max_attempts changed; restart the router" in log.read_text()
    (tmp_path / "router.toml").write_text("max_attempts = none\n")
    process.send_signal(signal.SIGHUP)
    assert until(lambda: "SIGHUP: the settings cannot be read" in log.read_text(), 20.0)
    assert httpx2.get(origin + "/ready").status_code == 200


def test_sighup_replaces_workers_and_retried_requests_succeed(serving, tmp_path):
    """A connection accepted by an ending worker may be reset before it is read; OpenAI's clients retry."""
    (tmp_path / "router.toml").write_text('routed_models = ["one"]\n')
    process, origin = serving("--workers", "2", ROUTER_TIMEOUTS='{"drain_before": 0.5}')
    statuses, resets, stop = [], [], threading.Event()
    body = {"model": "two", "messages": [{"role": "user", "content": "What is 2 + 2?"}]}

    def ask() -> None:
        while not stop.is_set():
            try:
                answer = httpx2.post(origin + "/v1/chat/completions", json=body, timeout=30)
            except (httpx2.ReadError, httpx2.RemoteProtocolError):
                resets.append(time.monotonic())
                continue
            statuses.append((answer.status_code, answer.headers["x-router-reason"]))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    (tmp_path / "router.toml").write_text('routed_models = ["two"]\nhome = "another"\n')
    before = child_pids(process.pid)
    process.send_signal(signal.SIGHUP)
    assert until(lambda: len(set(child_pids(process.pid)) & set(before)) <= 1, 120.0)  # the exporter stays
    end = len(statuses) + 4
    while len(statuses) < end:
        time.sleep(0.05)
    stop.set()
    for thread in asking:
        thread.join(60)
    assert {status for status, _ in statuses} == {200} and len(
        resets
    ) <= 4  # each of the two clients sees a worker end at most twice
    assert statuses[0][1] == "passed_through" != statuses[-1][1]  # `two` is now a routed model
    assert not (tmp_path / "another").exists()


def test_a_router_that_is_its_own_upstream_does_not_start(tmp_path):
    result = run(
        *("router", "serve", "--port", "8000"),
        cwd=tmp_path,
        ROUTER_HOME=str(tmp_path / "home"),
        OPENAI_BASE_URL="http://localhost:8000/v1",
        OPENAI_API_KEY="anything",
    )
    assert result.returncode == 2
    assert "the upstream localhost:8000 is the address of this router" in result.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_records_are_exported_before_the_command_ends(serving, tmp_path, sign, workers):
    process, origin = serving("--workers", workers)

    def ask() -> None:
        body = {"model": "gpt-4o", "messages": []}
        assert httpx2.post(origin + "/v1/chat/completions", json=body, timeout=60).status_code == 200

    ask()
    assert until(lambda: exported(tmp_path / "home") == [1, 1], 180.0)
    ask()
    ask()
    process.send_signal(sign)
    assert process.wait(60) == 0
    assert exported(tmp_path / "home") == [3, 3]
    assert not exporter_pids(tmp_path / "home")


def test_workers_end_with_their_parent_process(serving):
    process, origin = serving("--workers", "2")
    port = int(origin.rpartition(":")[2])
    workers = child_pids(process.pid)
    assert len(workers) >= 3  # two workers and the exporter
    process.kill()
    process.wait(10)
    assert until(lambda: not [worker for worker in workers if Path(f"/proc/{worker}").exists()], 20.0)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))


def test_a_second_router_of_the_same_home_keeps_the_counters_of_the_first(serving):
    _, origin = serving()
    httpx2.post(origin + "/v1/chat/completions", json={"model": "gpt-4o", "messages": []})
    assert until(lambda: count_requests(origin) == 1)
    second, _ = serving()
    assert count_requests(origin) == 1
    second.send_signal(signal.SIGTERM)
    second.wait(60)
    assert count_requests(origin) == 1


def count_requests(origin: str) -> int:
    """The number of requests in the metrics."""
    text = httpx2.get(origin + "/metrics").text
    return sum(int(float(n)) for n in re.findall(r"^router_requests_total\{.*\} (\S+)$", text, re.MULTILINE))


def child_pids(pid: int) -> list[int]:
    """The child processes of a process, without Python's own."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (process / "stat").read_text()
            command = (process / "cmdline").read_bytes()
            if int(status.rpartition(")")[2].split()[1]) == pid and b"resource_tracker" not in command:
                pids.append(int(process.name))
    return pids


def exported(home: Path) -> list[int]:
    """The number of requests in MLflow and in the usage tables."""
    counts = []
    for file, table in (("mlflow.db", "trace_info"), ("usage.db", "router_requests")):
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(home / file)) as store:
            counts += store.execute(f"SELECT count(*) FROM {table}").fetchone()
    return counts


def exporter_pids(home: Path) -> list[str]:
    """The running exporter processes of a home folder."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"router.exporter" in (process / "cmdline").read_bytes():
                pids += [process.name] * (f"ROUTER_HOME={home}".encode() in (process / "environ").read_bytes())
    return pids
