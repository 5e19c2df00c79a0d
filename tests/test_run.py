"""A calibration from questions to a challenger, as users run it: interrupted, resumed, and paid for once."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calibrating import calibrate, read_answers, start_calibration, wait_for_exit
from fake_models import FakeModels
from typer.testing import CliRunner
from waiting import until

from calibration.outcomes import read_outcomes
from calibration.questions.questions import Question, read

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and its dependencies emit warnings

MODELS = ("gpt-4o-mini", "gpt-4o")
SIX = "data/questions.jsonl"


@pytest.fixture
def six_questions(tmp_path: Path) -> Path:
    path = tmp_path / "six.jsonl"
    path.write_text("".join(Path(SIX).read_text().splitlines(keepends=True)[:6]))
    return path


def sums(path: Path, count: int) -> list[Question]:
    """Questions that need no judge."""
    rows = [
        {"id": f"s{n}", "question_type": "sums", "question": f"{n} + {n}?", "reference": 2 * n, "check": "number"}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(str(path))


def verdicts_on_traces(home: Path) -> Counter[tuple[str, str, int]]:
    """The number of assessments on each trace, by name and type of source."""
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as store:
        grouped = "assessment_type = 'feedback' GROUP BY trace_id, name, source_type"
        return Counter(store.execute(f"SELECT name, source_type, count(*) FROM assessments WHERE {grouped}").fetchall())


def settle(fake: FakeModels) -> None:
    """Wait until the fake has answered all requests of a killed run, so that they do not count for the next run."""
    quiet_since, previous = time.monotonic(), -1
    while time.monotonic() - quiet_since < 0.5:
        if fake.in_flight or len(fake.calls) != previous:
            quiet_since, previous = time.monotonic(), len(fake.calls)
        time.sleep(0.02)


def test_the_six_specified_questions_run_end_to_end(tmp_path: Path, six_questions: Path) -> None:
    home = tmp_path / "home"
    with FakeModels(read(str(six_questions)), lambda model, _: 1.0 if model == "gpt-4o" else 0.4) as fake:
        code, output = wait_for_exit(start_calibration(fake, home, "run", "--questions", str(six_questions)), "y\n")
        assert code == 0, output
        lines = output.splitlines()
        heading = next(number for number, line in enumerate(lines) if line.split()[:2] == ["model", "correctness"])
        assert lines[heading].split() == [
            "model", "correctness", "completeness", "total_tokens", "cost_usd", "cost_per_correct_pct",
        ]  # fmt: skip
        correct_share = sum(fake.is_correct("gpt-4o-mini", question.text) for question in read(str(six_questions))) / 6
        mini, strong = lines[heading + 1].split(), lines[heading + 2].split()
        assert mini[:4] == [
            "gpt-4o-mini",
            f"{correct_share:.2f}",
            f"{correct_share:.2f}",
            str(sum(fake.billed_tokens["gpt-4o-mini"])),
        ]
        assert strong[:4] == ["gpt-4o", "1.00", "1.00", str(sum(fake.billed_tokens["gpt-4o"]))]
        assert "Do not route yet" in output and "Expected calls and cost" in output
        text = " ".join(output.replace("│", " ").split())
        usd_per_question = float(re.search(r"this run: answers \$([\d.]+)", text)[1]) / 6  # type: ignore[index]
        _, cost, replies = re.search(r"(the judge) \$([\d.]+) \((\d+) calls", text).groups()  # type: ignore[union-attr]
        usd_per_question += 4 * float(cost) / int(replies)  # two verdicts on each of two answers
        assert f"At least 60 are needed: about 54 more questions like these, about ${54 * usd_per_question:.2f}" in text
        assert f"at ${usd_per_question:.4f} each" in text and "--per-type 3 --out more.jsonl" in text
        scores = {name: {"score": score} for name, score in zip(MODELS, (0.0, 1.0), strict=True)}
        pair = {"key": "tr-1", "by_cheap": True, "question_type": "sums", "tools": [], "outcomes": scores}
        (home / "calibration" / "sentinel").mkdir()
        request_body = json.dumps({**pair, "messages": [{"role": "user", "content": "What is 2 + 2?"}]})
        (home / "calibration" / "sentinel" / "compared.jsonl").write_text(request_body + "\n")
        code, output = calibrate(fake, home, "run", "--questions", str(six_questions), "--from-traffic")
        assert code == 0 and "Outcomes that `watch` recorded: 1" in output, output
    expected_verdicts = {("correctness", "LLM_JUDGE", 1): 12, ("completeness", "LLM_JUDGE", 1): 12}
    assert verdicts_on_traces(home) == expected_verdicts  # after two runs
    folder = home / "calibration"
    rows = list(csv.DictReader((folder / "comparison.csv").read_text().splitlines()))
    assert [row["model"] for row in rows if row["question_type"] == "all"] == list(MODELS)
    page = (folder / "report.html").read_text()
    assert "Do not route yet" in page and "<svg" in page
    assert not [scheme for scheme in ("src=", 'href="http', "@import", "url(http") if scheme in page]
    *six_more, compared = read_outcomes([folder / "outcomes.jsonl.gz"], MODELS)
    assert len(six_more) == 6 and (compared.id, compared.source) == ("traffic/tr-1", "sentinel")


def test_no_model_is_called_before_the_cost_is_confirmed(
    tmp_path: Path, six_questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calibration.__main__ import app

    with FakeModels(read(str(six_questions))) as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.base_url)
        result = CliRunner().invoke(
            app, ["run", "--questions", str(six_questions), "--out", str(tmp_path)], input="n\n"
        )
        assert result.exit_code == 1 and "Continue?" in result.output and not fake.calls


def test_an_interrupted_run_resumes_without_repeating_calls(
    tmp_path: Path, create_store: Callable[[Path], str]
) -> None:
    home, path = tmp_path / "home", tmp_path / "sums.jsonl"
    create_store(home)
    questions = sums(path, 40)
    texts = {question.id: question.text for question in questions}
    arguments = ("run", "--questions", str(path), "--concurrency", "4")
    with FakeModels(questions) as fake:
        fake.faults.seconds = 0.05
        for signal_number, call_count in ((signal.SIGKILL, 15), (signal.SIGINT, 40)):
            before = len(fake.calls)
            stored = {(str(row["model"]), texts[str(row["question_id"])]) for row in read_answers(home)}
            process = start_calibration(fake, home, *arguments, "--yes")
            assert until(lambda count=call_count: len(read_answers(home)) >= count, 120.0)
            process.send_signal(signal_number)
            code, output = wait_for_exit(process)
            settle(fake)
            assert call_count <= len(read_answers(home)) < 80
            assert not stored & set(fake.successful_calls("answer")[before:])
            # A killed run loses its open calls; after Ctrl-C a run waits for them.
            unanswered = len(fake.calls) - before - (len(read_answers(home)) - len(stored))
            assert unanswered <= (4 if signal_number == signal.SIGKILL else 0)
            assert (code, "resumes here" in output) == (
                (-signal_number, False) if signal_number == signal.SIGKILL else (3, True)
            )
        fake.faults.seconds = 0.0
        stored_count, before = len(read_answers(home)), len(fake.calls)
        code, output = calibrate(fake, home, *arguments, "--yes")
        assert code == 0, output
        assert len(fake.calls) - before == 80 - stored_count
        assert len(read_outcomes([home / "calibration" / "outcomes.jsonl.gz"], MODELS)) == 40
        code, output = calibrate(fake, home, *arguments)  # a rerun costs nothing, so there is nothing to confirm
        assert code == 0 and "answers $0.000000 (0 calls, 0 tokens)" in output
        assert len(fake.calls) == before + 80 - stored_count
    assert verdicts_on_traces(home) == {("correctness", "CODE", 1): 80}


def test_the_run_stops_before_it_exceeds_the_budget(tmp_path: Path, create_store: Callable[[Path], str]) -> None:
    home, path = tmp_path / "home", tmp_path / "sums.jsonl"
    create_store(home)
    options = ("--max-output-tokens", "100", "--budget-usd", "0.01")
    with FakeModels(sums(path, 40)) as fake:
        code, output = calibrate(fake, home, "run", "--yes", "--questions", str(path), *options)
        assert code == 3 and "larger --budget-usd" in output
        spent_usd = sum(float(str(row["cost_usd"])) for row in read_answers(home))
        assert 0 < spent_usd <= 0.01 and len(read_answers(home)) == len(fake.calls)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--questions", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--models", "gpt-4o"), "name two or more different models"),
        (("--models", "gpt-4o-mini,llama-9"), "llama-9"),
        (("--judge", "llama-9"), "llama-9"),
        (("--endpoint", "x"), "expected MODEL=URL"),
        (("--scorer", "no.such:thing"), "no.such:thing"),
        (("--parameters", "[]"), "not a JSON object"),
        (("--promise", "sure"), "--promise sure: expected certified or expected"),
        (("--until", "97"), "--until 97: expected a number from 0.5 to 0.999"),
        (("--until", "most"), "--until most: expected a number"),
        (("--until", "0.97", "--promise", "expected"), "--until needs a certified target"),
    ],
)
def test_an_invalid_input_is_a_one_line_error(
    tmp_path: Path, arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from calibration.__main__ import main

    monkeypatch.setattr(sys, "argv", ["calibration", "run", "--out", str(tmp_path), *arguments])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    with pytest.raises(SystemExit) as error:
        main()
    stderr = capsys.readouterr().err
    assert error.value.code == 2 and problem in stderr and len(stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def untyped() -> Iterator[list[str]]:
    yield [
        f"How do {subject} {number}?" for subject in ("rivers", "planets", "banks") for number in map(str, range(30))
    ]


def test_questions_without_a_type_are_clustered_and_named_by_their_words(untyped: list[str]) -> None:
    from calibration.questions.naming import name_clusters

    names = name_clusters(untyped, seed=0)
    assert {name.split("/")[1].split("-")[0] for name in names} == {"rivers", "planets", "banks"}
    assert name_clusters(untyped[:10], seed=0) == ["untyped"] * 10
