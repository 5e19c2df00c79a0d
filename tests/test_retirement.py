"""A retirement from the command line: stored answers are reused, and an interrupted run repeats no call."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from calibrating import calibrate, start_calibration, wait_for_exit
from fake_models import FakeModels
from running import RunningRouter
from waiting import until

from calibration.outcomes import read_outcomes
from calibration.questions.questions import Question, read
from router.exporter.shipping import drain, shippers_for
from router.policy.distribution import SHIPPED
from router.policy.document import parse

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and its dependencies emit warnings

OLD, NEW = ("gpt-4o-mini", "gpt-4o"), ("gpt-6-luna", "gpt-6-sol")
EASY = {"gpt-4o-mini": 0.9, "gpt-4o": 0.92, "gpt-6-luna": 0.93, "gpt-6-sol": 0.95}
HARD = {"gpt-4o-mini": 0.2, "gpt-4o": 0.8, "gpt-6-luna": 0.3, "gpt-6-sol": 0.95}


def quality(model: str, kind: str) -> float:
    return (HARD if kind == "products" else EASY)[model.partition(":")[0]]


def questions(path: Path, count: int = 90) -> list[Question]:
    """Questions of which four need a judge and two call a tool."""
    rows: list[dict[str, object]] = []
    for n in range(count):
        kind, sign, answer = ("sums", "+", n + 7) if n % 2 else ("products", "*", n * 7)
        rows.append({"id": f"q{n}", "question_type": kind, "question": f"What is {n} {sign} 7?", "reference": answer})
        rows[-1]["check"] = "number"
    facts = ["a fact"]
    rows += [
        {"id": f"f{n}", "question_type": "facts", "question": f"Fact {n}?", "expected_facts": facts} for n in range(4)
    ]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    rows += [
        {
            "id": f"t{n}",
            "question_type": "tools",
            "question": f"What is the weather, {n}?",
            "tools": [tool],
            "reference": {"name": "weather", "arguments": {}},
            "check": "tool_call",
        }
        for n in range(2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(str(path))


def asked_of(fake: FakeModels) -> Counter[str]:
    """The number of questions per model, without probes."""
    texts = set(fake.questions)
    return Counter(model.partition(":")[0] for model, text in fake.successful_calls("answer") if text in texts)


def used(fake: FakeModels, home: Path) -> None:
    """Recorded traffic: routed requests, two with a JSON schema, and one that names its model."""
    store = f"sqlite:///{home / 'mlflow.db'}"  # MLflow leaves the store of another test in the environment
    upstream = {"openai_base_url": fake.base_url, "openai_api_key": "sk-of-the-test"}
    router = RunningRouter(home, policy=SHIPPED, mlflow_tracking_uri=store, **upstream)
    client = openai.OpenAI(base_url=f"{router.origin}/v1", api_key="sk-x", max_retries=0)
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    for n in range(10):
        asked_questions = [{"role": "user", "content": f"What is the capital of country {n}?"}]
        extra_fields = {"response_format": schema} if n < 2 else {}
        client.chat.completions.create(model="auto", messages=asked_questions, max_tokens=50, **extra_fields)  # type: ignore[call-overload]
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "Hello?"}])
    router.records(11)
    router.close()
    drain(shippers_for(router.app.worker.settings)[0])


@pytest.fixture(scope="module")
def retired(
    tmp_path_factory: pytest.TempPathFactory, create_store: Callable[[Path], str]
) -> Iterator[tuple[FakeModels, Path, str]]:
    """A calibration of the old pair, then a retirement that is interrupted and resumed."""
    home = tmp_path_factory.mktemp("home")
    create_store(home)
    asked_questions = questions(home / "mine.jsonl")
    with FakeModels(asked_questions, quality, refuses=True) as fake:
        question_options = ("--questions", str(home / "mine.jsonl"))
        code, output = calibrate(fake, home, "run", *question_options, "--yes")
        assert code == 0, output
        assert asked_of(fake) == dict.fromkeys(OLD, len(asked_questions))
        fake.calls.clear()
        used(fake, home)
        fake.calls.clear()
        command = ("retire", *question_options, "--to", ",".join(NEW), "--yes", "--budget-usd", "5", "--traffic", "1d")
        command = (*command, "--traffic-sample", "8")
        code, output = calibrate(fake, home, *command, "--dry-run")
        assert code == 0 and "gpt-4o shuts down on 2027-01-14" in output and not fake.calls, output
        fake.faults.seconds = 0.2
        process = start_calibration(fake, home, *command)
        assert until(lambda: sum(asked_of(fake).values()) >= 40 or process.poll() is not None, 120.0)
        assert process.poll() is None, process.stdout and process.stdout.read()
        process.send_signal(signal.SIGINT)
        code, output = wait_for_exit(process)
        assert code == 3 and "interrupted" in output, output
        fake.faults.seconds = 0.0
        code, output = calibrate(fake, home, *command)
        assert code == 0, output
        yield fake, home, output


def test_only_the_new_models_are_asked_and_no_call_is_repeated(retired: tuple[FakeModels, Path, str]) -> None:
    fake, _, _ = retired
    assert asked_of(fake) == dict.fromkeys(NEW, len(fake.questions))
    assert not fake.refused or "tools" in " ".join(fake.refused)  # known refusals do not occur


def test_the_report_compares_old_and_new_by_type(retired: tuple[FakeModels, Path, str]) -> None:
    fake, home, out = retired
    report = json.loads((home / "retirement" / "retirement.json").read_text())
    rows = {(row["question_type"], row["name"]): row for row in report["ways"]}
    for name in (*OLD, *NEW, "old routed", "new routed"):
        if name in OLD:
            correct_answers = [
                fake.is_correct(name, text)
                for text, question in fake.questions.items()
                if question.question_type == "products"
            ]
            assert rows["products", name]["quality"][1] == pytest.approx(sum(correct_answers) / len(correct_answers))
        assert rows["all", name]["n"] == len(fake.questions)
    assert rows["products", "gpt-6-luna"]["difference"][2] < 0 < rows["products", "gpt-6-sol"]["difference"][1]
    cheap, strong = rows["all", "gpt-6-luna"]["usd_per_1000"], rows["all", "gpt-6-sol"]["usd_per_1000"]
    assert cheap < rows["all", "new routed"]["usd_per_1000"] <= strong
    page = (home / "retirement" / "retirement.md").read_text()
    for text in (
        "gpt-4o shuts down on 2027-01-14",
        "python -m calibration promote",
        "max_tokens as max_completion_tokens",
    ):
        assert text in page
    assert "version 2" in out and "challenger" in out


def test_recorded_answers_are_compared_with_answers_of_the_new_models(
    retired: tuple[FakeModels, Path, str],
) -> None:
    fake, home, _ = retired
    report = json.loads((home / "retirement" / "retirement.json").read_text())
    rows = {row["name"]: row for row in report["on_traffic"]}
    assert set(rows) == {"as answered", *NEW, "new routed"} and all(row["n"] == 8 for row in rows.values())
    assert rows["as answered"]["usd_per_1000"] > 0
    calls_by_text = Counter(text for _, text in fake.successful_calls("answer") if "capital of country" in text)
    assert set(calls_by_text.values()) == {2} and len(calls_by_text) == 8  # once by each new model, and by no other
    assert report["named"] == {"gpt-4o": 1}


def test_each_new_model_answers_every_request_shape(retired: tuple[FakeModels, Path, str]) -> None:
    _, home, _ = retired
    probed = json.loads((home / "retirement" / "retirement.json").read_text())["probed"]
    assert {probe["model"] for probe in probed} == set(NEW) and len(probed) == 2 * (14 + 2)
    assert [probe for probe in probed if not probe["answered"]] == []
    by_shape = {probe["shape"]: probe["changed"] for probe in probed if probe["model"] == "gpt-6-luna"}
    assert any(probe["shape"].startswith("max_tokens") and probe["requests"] == 8 for probe in probed)
    assert by_shape["tools"] == "reasoning effort none" and "temperature dropped" in by_shape["temperature 0"]


def test_the_challenger_routes_the_new_models_and_starts_from_the_old_policy(
    retired: tuple[FakeModels, Path, str],
) -> None:
    _, home, _ = retired
    folder = home / "retirement" / "policy"
    policy = parse({path.name: path.read_bytes() for path in folder.iterdir()})
    assert [model.name for model in policy.rules.models] == list(NEW)
    assert policy.rules.evidence["sums"].kind == "measured"
    assert "transferred from" in policy.rules.evidence["factual/short-answer"].source  # which was not called
    assert policy.about["retires"] == list(OLD)
    outcomes = read_outcomes([home / "retirement" / "outcomes.jsonl.gz"], NEW)
    assert len(outcomes) == 96


def test_a_retirement_stops_before_it_exceeds_its_budget(tmp_path: Path, create_store: Callable[[Path], str]) -> None:
    create_store(tmp_path)
    asked_questions = questions(tmp_path / "mine.jsonl", 60)
    with FakeModels(asked_questions, quality) as fake:
        question_options = ("--questions", str(tmp_path / "mine.jsonl"), "--yes")
        code, output = calibrate(fake, tmp_path, "retire", *question_options, "--to", ",".join(NEW))
        assert code == 2 and "--ask-old" in output and not fake.calls
        code, output = calibrate(
            fake, tmp_path, "retire", *question_options, "--to", ",".join(NEW), "--ask-old", "--budget-usd", "0.05"
        )
        assert code == 3 and "budget" in output
        costs_usd = [json.loads(line)["cost_usd"] for line in (tmp_path / "spending.jsonl").read_text().splitlines()]
        assert 0 < sum(costs_usd) <= 0.05


def test_three_models_by_effort_are_calibrated_certified_and_served(
    tmp_path: Path, create_store: Callable[[Path], str]
) -> None:
    """One model at two efforts is called with each effort, and each is chosen where it is best."""
    create_store(tmp_path)
    models = ("gpt-6-luna:none", "gpt-6-sol:low", "gpt-6-sol:high")
    best = {"sums": 0.97, "products": 0.0}

    def by_effort(model: str, kind: str) -> float:
        if model == models[2] or kind == "tools":
            return 0.98
        if model == models[1]:
            return {"sums": 0.98, "products": 0.97}.get(kind, 0.1)
        return best.get(kind, 0.1)

    asked_questions = questions(tmp_path / "mine.jsonl", 240)
    written = {models[0]: 60, models[1]: 90, models[2]: 600}
    with FakeModels(asked_questions, by_effort, lambda model, _: written.get(model, 60), refuses=True) as fake:
        arguments = ("run", "--questions", str(tmp_path / "mine.jsonl"), "--models", ",".join(models), "--yes")
        code, output = calibrate(fake, tmp_path, *arguments)
        assert code == 0, output
        asked_with = Counter(model for model, text in fake.successful_calls("answer"))
        assert all(asked_with[model] >= len(asked_questions) - 2 for model in models), asked_with
        folder = tmp_path / "calibration" / "policy"
        policy = parse({path.name: path.read_bytes() for path in folder.iterdir()})
        assert [model.name for model in policy.rules.models] == list(models)
        certified = [rule for rule in policy.rules.targets if rule.certified and rule.quality_per_usd is not None]
        assert max(rule.target for rule in certified) >= 0.9
        fake.calls.clear()
        router = RunningRouter(tmp_path / "router", policy=folder, openai_base_url=fake.base_url, openai_api_key="sk-x")
        try:
            client = openai.OpenAI(base_url=f"{router.origin}/v1", api_key="sk-x", max_retries=0)
            for text in ("What is 31 + 7?", "What is 30 * 7?"):
                answer = client.chat.completions.with_raw_response.create(
                    model="auto@0.9", messages=[{"role": "user", "content": text}], max_tokens=200, temperature=0
                )
                model, effort = answer.headers["x-router-model"].split(":")
                assert fake.successful_calls("answer")[-1][0] == f"{model}:{effort}"
                assert f"reasoning effort {effort}" in answer.headers["x-router-adapted"]
                assert "gpt-6-sol:low" in answer.headers["x-router-evidence"]
            record = router.records()[-1]
            assert record["model"] in models and record["cost_usd"] > 0 and record["adapted"]
        finally:
            router.close()
