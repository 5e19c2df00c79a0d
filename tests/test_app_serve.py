"""`python -m router serve`, started and stopped as its users do."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import pytest
from fake_openai import chat_events, events


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def serving(tmp_path, openai_server):
    """Starts the command; gives the process and its origin."""
    running = []

    def start(*arguments: str) -> tuple[subprocess.Popen, str]:
        port = free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("ROUTER_", "OPENAI_", "MLFLOW_"))}
        environment |= {"OPENAI_BASE_URL": openai_server.url, "ROUTER_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "router", "serve", "--port", str(port), *arguments]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
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
        process.stderr.close()


def test_a_running_answer_is_finished_before_the_server_stops(serving, openai_server):
    process, origin = serving("--workers", "2")
    openai_server.say(events(*chat_events("gpt-4o"), gap=0.3))
    heard = []

    def ask() -> None:
        body = {"model": "gpt-4o", "messages": [], "stream": True, "stream_options": {"include_usage": True}}
        heard.append(httpx2.post(origin + "/v1/chat/completions", json=body, timeout=60).content)

    asking = threading.Thread(target=ask)
    asking.start()
    while not openai_server.received:
        time.sleep(0.02)
    time.sleep(0.4)
    process.send_signal(signal.SIGTERM)
    asking.join(60)
    assert heard == [b"".join(chat_events("gpt-4o"))]
    assert process.wait(60) in (0, -signal.SIGTERM)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(origin + "/ready")
