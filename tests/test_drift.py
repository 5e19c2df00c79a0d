"""A whole drift with every part in a process of its own: `router serve`, its exporter, and `calibration watch`.

The cheap model becomes wrong in one type of several while both run. `watch` notices it in its own loop, the router
sends this type and no other to the strong model, and a promoted recalibration brings it back. `watch` is killed on the
way.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from browser import Browser, find_browser
from fake_models import CORRECT_PREFIX, FakeModels
from fake_openai import FakeOpenAI
from openai import OpenAI
from servers import free_port
from waiting import until

from calibration.policies import read_policy
from calibration.questions.questions import parse as parse_question
from calibration.sentinel.sample import sampling_number
from router.policy.distribution import SHIPPED
from router.policy.sentinel import Sentinel, parse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),  # MLflow and what it stands on warn of themselves
    pytest.mark.skipif(not os.environ.get("TEST_DRIFT"), reason="minutes of real processes: make test-drift"),
]

KEY = "sk-of-the-test"
SHARE, USD_A_DAY = 0.8, 6.0
DRIFTING = "math/grade-school"
TEXTS = {  # by the type that the shipped policy predicts
    DRIFTING: "Tom has {n} apples and buys {m} more. How many apples does Tom have now?",
    "factual/short-answer": "What is the capital of the country with code {n}?",
    "math/number-comparison": "Which is bigger, {n}.5 or {n}.9?",
    "code/debugging": "What does this Python program print?\n```python\nx = {n}\nfor i in range({m}):\n    x += i\n"
    "print(x)\n```",
    "math/competition": "Find the number of positive integers n less than {m} such that n^2+n is divisible by {n}.",
}
CHEAP = (DRIFTING, "factual/short-answer")  # that the shipped policy sends to the cheap model
RECALIBRATED = (*CHEAP, "code/debugging")


def row(kind: str, n: int) -> dict[str, str]:
    """A question with an exact check, so that a calibration needs no judge."""
    about = {"id": f"{kind}/{n}", "question_type": kind, "system": "", "question": TEXTS[kind].format(n=n, m=n + 5)}
    return {**about, "reference": f"{CORRECT_PREFIX} {n}", "check": "exact"}


ROWS = {kind: [row(kind, n) for n in range(3, 120)] for kind in TEXTS}
QUESTIONS = {kind: [parse_question(row) for row in rows] for kind, rows in ROWS.items()}


def QUALITY(model: str, kind: str) -> float:
    """The cheap model cannot debug, and is right otherwise."""
    return float((model, kind) != ("gpt-4o-mini", "code/debugging"))


class Stage:
    """Everything that runs, and what is read of it."""

    def __init__(self, home: Path, models: FakeModels, receiver: FakeOpenAI, stack: ExitStack) -> None:
        self.home, self.models, self.receiver, self._stack = home, models, receiver, stack
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.client = stack.enter_context(OpenAI(base_url=self.origin + "/v1", api_key="unused", max_retries=0))
        self.requests = 0
        self.lost_verdicts = 0  # that the judge sent and the killed `watch` did not store
        self._asked = dict.fromkeys(TEXTS, 0)

    def _environment(self) -> dict[str, str]:
        ours = ("MLFLOW_", "ROUTER_", "OPENAI_")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            "OPENAI_BASE_URL": self.models.base_url,
            "OPENAI_API_KEY": KEY,
            "ROUTER_HOME": str(self.home),
            "ROUTER_ALERT_WEBHOOK": f"http://127.0.0.1:{self.receiver.port}/hook",
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "COLUMNS": "150",
        }

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `python -m ARGUMENTS`; its output goes to the file `name`."""
        with (self.home.parent / name).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._stack.callback(_end, process)
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        process = self.start("serve.log", "router", "serve", "--port", str(self.port))
        assert until(self.is_ready, 90), self.log("serve.log")
        return process

    def is_ready(self) -> bool:
        try:
            return httpx2.get(self.origin + "/ready", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    def watch(self) -> subprocess.Popen[bytes]:
        options = ("--every", "1m", "--share", str(SHARE), "--usd-a-day", str(USD_A_DAY), "--judge", "gpt-4.1-mini")
        return self.start("watch.log", "calibration", "watch", *options)

    def log(self, name: str) -> str:
        text = (self.home.parent / name).read_text()
        assert KEY not in text and "Traceback" not in text, text
        return text

    def ask(self, kind: str, count: int) -> list[tuple[str, str]]:
        """Ask new questions of a type; the model that answered each, and the reason."""
        answered = []
        for asked in QUESTIONS[kind][self._asked[kind] : self._asked[kind] + count]:
            self._asked[kind] += 1
            self.requests += 1
            reply = self.client.chat.completions.with_raw_response.create(model="auto", messages=list(asked.messages))
            assert reply.headers["x-router-type"] == kind and reply.parse().choices[0].message.content
            answered.append((reply.headers["x-router-model"], reply.headers["x-router-reason"]))
        return answered

    def decisions(self) -> dict[str, list[tuple[str, str]]]:
        """The decisions on questions of every type, which are not sent. `recalibrate` learns from these questions."""
        found: dict[str, list[tuple[str, str]]] = {}
        for kind, questions in QUESTIONS.items():
            for each in questions[60:70]:
                body = {"model": "auto", "messages": list(each.messages)}
                told = httpx2.post(self.origin + "/router/decision", json=body, timeout=30).json()
                found.setdefault(kind, []).append((told["model"], told["reason"]))
        return found

    def report(self) -> Sentinel | None:
        path = self.home / "sentinel.json"
        return parse(path.read_bytes()) if path.exists() else None

    def rows(self, name: str) -> list[dict]:
        """The rows of a ledger of the sentinel."""
        path = self.home / "calibration" / "sentinel" / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def traces(self) -> set[str]:
        """The ids of the router's traces in MLflow."""
        with contextlib.closing(sqlite3.connect(self.home / "mlflow.db")) as store:
            return {name for (name,) in store.execute("SELECT request_id FROM trace_tags WHERE key = 'router.policy'")}

    def is_exported(self) -> bool:
        """Whether MLflow has a trace of every request."""
        return len(self.traces()) == self.requests

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.origin + path, timeout=30)

    def warnings_about(self, word: str) -> list[str]:
        return [warning for warning in self.get("/health").json()["warnings"] if word in warning]

    def kill_while_judging(self, watch: subprocess.Popen[bytes]) -> None:
        """`kill -9` in the middle of the next look."""
        self.models.faults.judge_seconds = 0.2
        judged = len(self.models.successful_calls("judge"))
        assert until(lambda: len(self.models.successful_calls("judge")) >= judged + 8, 200), self.log("watch.log")
        watch.kill()
        watch.wait(10)
        assert self.report().drifted == frozenset()
        assert until(lambda: not self.models.in_flight)
        self.lost_verdicts = len(self.models.successful_calls("judge")) - len(self.rows("judge"))
        self.models.faults.judge_seconds = 0.0

    def check_comparisons(self) -> None:
        """The sample is what its hash says; each pair is judged once, none is lost, and the dollars are kept to."""
        report, compared = self.report(), [row["key"] for row in self.rows("compared")]
        sampled = {trace for trace in self.traces() if sampling_number(trace) < SHARE}
        assert len(sampled) > 20 and len(compared) == len(set(compared)) and set(compared) == sampled
        pairs = [row for row in self.rows("compared") if row["by_cheap"]]
        texts = {
            (row["messages"][-1]["content"], answer["answer"]) for row in pairs for answer in row["outcomes"].values()
        }
        verdicts = Counter(text for _, text in self.models.successful_calls("judge"))
        assert len(verdicts) == len(texts) and verdicts.total() == len(texts) + self.lost_verdicts
        cheap = {each.text for kind in CHEAP for each in QUESTIONS[kind]}
        asked = Counter(
            text for model, text in self.models.successful_calls("answer") if model == "gpt-4o" and text in cheap
        )
        assert len(asked) == asked.total() == len(pairs)
        assert report.spent_usd <= USD_A_DAY

    def check_alerts(self) -> None:
        """Health, metrics, log and webhook name the type and no other."""
        message = f"{DRIFTING} drifted and goes to gpt-4o until it is recalibrated"
        assert until(lambda: len(self.warnings_about(message)) == 1) and len(self.warnings_about("drifted")) == 1
        drifted = re.findall(r'^router_type_drifted{question_type="(.+)"} 1.0', self.get("/metrics").text, re.MULTILINE)
        assert drifted == [DRIFTING]
        assert until(lambda: f"alert: {message}" in self.log("serve.log"))
        assert until(lambda: self.receiver.received)
        (post,) = self.receiver.received
        assert (post.target, post.json["kind"], post.json["subject"]) == ("/hook", "drifted", DRIFTING)

    def check_page(self, picture: Path) -> None:
        browser = Browser()
        self._stack.callback(browser.close)
        browser.look(1280, 900)
        browser.open(self.origin + "/")
        browser.wait("document.querySelectorAll('#watched svg.evolution').length > 0", 60)
        rows = browser.evaluate("[...document.querySelectorAll('#watched li')].map(row => row.innerText)")
        browser.save_screenshot(picture)
        assert [kind for kind in TEXTS for row in rows if kind in row and "drifted" in row] == [DRIFTING]
        assert browser.errors == []

    def recalibrate(self, questions: Path) -> None:
        """Calibrate and promote, as the router's warning says."""
        rows = [row for kind in RECALIBRATED for row in ROWS[kind][:70]]
        questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for arguments in (("run", "--questions", str(questions), "--yes"), ("promote",)):
            process = self.start("calibration.log", "calibration", *arguments)
            assert process.wait(300) == 0, self.log("calibration.log")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture
def stage(tmp_path, create_store) -> Iterator[Stage]:
    with ExitStack() as stack:
        models = FakeModels([each for questions in QUESTIONS.values() for each in questions], QUALITY)
        receiver = FakeOpenAI()
        stack.callback(receiver.close)
        create_store(tmp_path / "home")
        yield Stage(tmp_path / "home", stack.enter_context(models), receiver, stack)


def test_a_drift_from_the_first_wrong_answer_to_the_recalibration(stage, tmp_path):
    server = stage.serve()
    before = stage.decisions()
    for kind in TEXTS:
        stage.ask(kind, 6)
    assert until(stage.is_exported, 240), stage.log("serve.log")
    watch = stage.watch()
    assert until(lambda: stage.report() and stage.report().types, 120), stage.log("watch.log")
    assert stage.report().drifted == frozenset() and stage.warnings_about("drifted") == []

    stage.models.quality = lambda model, kind: float((model, kind) != ("gpt-4o-mini", DRIFTING))
    for kind in TEXTS:
        stage.ask(kind, 34 if kind == DRIFTING else 6)
    stage.kill_while_judging(watch)
    assert until(stage.is_exported, 240), stage.log("serve.log")
    stage.watch()
    assert until(lambda: stage.report().drifted, 200), stage.log("watch.log")

    stage.check_comparisons()
    stage.check_alerts()
    if find_browser():
        stage.check_page(tmp_path / "drifted.png")
    after = stage.decisions()
    assert set(before.pop(DRIFTING)) == {("gpt-4o-mini", "cheap_is_enough")}
    assert set(after.pop(DRIFTING)) == {("gpt-4o", "drifted")} and after == before
    for kind in TEXTS:  # as decided, so answered
        answered = set(stage.ask(kind, 4))
        if kind == DRIFTING:
            assert answered == {("gpt-4o", "drifted")}
        else:
            assert {model for model, _ in answered} == {model for model, _ in before[kind]}
            assert "drifted" not in {reason for _, reason in answered}

    stage.models.quality = QUALITY  # its provider repaired the cheap model
    stage.recalibrate(tmp_path / "questions.jsonl")
    assert until(lambda: set(stage.decisions()[DRIFTING]) == {("gpt-4o-mini", "cheap_is_enough")}, 60)
    assert stage.warnings_about("drifted") == []
    assert set(stage.ask(DRIFTING, 3)) == {("gpt-4o-mini", "cheap_is_enough")}
    assert server.poll() is None and stage.log("serve.log").count("Started server process") == 1
    assert until(
        lambda: "retrying" not in stage.log("watch.log") and stage.report().policy != read_policy(SHIPPED).version, 120
    )
    assert stage.report().drifted == frozenset()
