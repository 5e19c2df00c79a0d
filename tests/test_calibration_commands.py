"""The commands `learn`, `score` and `evaluate`."""

import json
from dataclasses import replace

import pytest
from command_line import run
from synthetic_outcomes import synthetic_outcomes

from calibration.outcomes import Result, read_outcomes, write_outcomes
from calibration.policies import read_policy
from router.client.model_names import evidence_headers
from router.policy.decision import decide
from router.policy.features import read_question
from router.policy.prediction import predict


def calibration(*arguments):
    return run("calibration", *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("calibration")
    write_outcomes(synthetic_outcomes(400), path / "outcomes.jsonl.gz")
    result = calibration("learn", "--outcomes", path / "outcomes.jsonl.gz", "--out", path / "policy", "--seed", "3")
    assert result.returncode == 0, result.stderr
    return path


def test_learn_writes_a_policy_without_question_texts(folder):
    document = json.loads((folder / "policy" / "policy.json").read_text())
    assert {rule["target"] for rule in document["targets"]} >= {0.95, 0.97, 0.99}
    assert "landlord" not in json.dumps(document)


def test_the_command_and_every_answer_report_an_expected_promise(folder):
    small_file = folder / "few.jsonl.gz"
    write_outcomes(synthetic_outcomes(150), small_file)
    options = ("--promise", "expected", "--type-margin", "0.1", "--confidence", "0.99", "--seed", "3")
    result = calibration("learn", "--outcomes", small_file, "--out", folder / "expected", *options)
    assert result.returncode == 0 and "expected" in result.stdout and "of resplits" in result.stdout
    policy = read_policy(folder / "expected")
    auto = result.stdout.strip().splitlines()[-1]
    other_target = float(auto.partition("auto@")[2].split()[0])
    assert auto.startswith(f"auto targets {policy.default_target * 100:g} %; request auto@")
    assert other_target != policy.default_target and policy.rules.rule_for(other_target).target == other_target
    assert (policy.about["promise"], policy.about["type_margin"], policy.about["confidence"]) == ("expected", 0.1, 0.99)
    features = read_question([{"role": "user", "content": "What is 3 plus 4?"}])
    prediction = predict(policy.predictor, features)
    promises = {}
    for rule in policy.rules.targets:
        decision = decide(policy.rules, features, prediction, rule.target)
        promises[rule.target] = dict(evidence_headers(decision))[b"x-router-promise"]
        assert decision.promise is None or promises[rule.target].decode() == decision.promise.value
    assert b"expected" in promises.values()


@pytest.mark.parametrize("command", [("learn", "--outcomes", "o", "--out", "p"), ("run",)])
@pytest.mark.parametrize(
    "option", [("--confidence", "0.4"), ("--confidence", "nan"), ("--type-margin", "a lot"), ("--promise", "sure")]
)
def test_the_error_of_an_invalid_option_is_one_line(tmp_path, command, option):
    result = calibration(*command, *option)
    assert result.returncode == 2 and option[0] in result.stderr and len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("option", [("--confidence", "1.5"), ("--promise", "sure"), ("--type-margin", "-1")])
def test_the_error_of_an_invalid_promise_names_the_option(folder, option):
    result = calibration("learn", "--outcomes", folder / "outcomes.jsonl.gz", "--out", folder / "no", *option)
    assert result.returncode == 2 and option[0] in result.stderr and not (folder / "no").exists()


def test_written_outcomes_are_read_back_unchanged(folder):
    assert read_outcomes([folder / "outcomes.jsonl.gz"]) == synthetic_outcomes(400)


def test_score_writes_one_line_per_request(folder):
    out = folder / "scores.jsonl"
    result = calibration(
        "score", "--policy", folder / "policy", "--requests", folder / "outcomes.jsonl.gz", "--out", out
    )
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"made-0-{i}" for i in range(400)]
    assert set(rows[0]) == {"id", "question_type", "quality", "gap", "novelty", "expected_cost_usd", "decision"}
    assert rows[0]["gap"] == pytest.approx(rows[0]["quality"]["gpt-4o"] - rows[0]["quality"]["gpt-4o-mini"])
    assert set(rows[0]["decision"].values()) <= {"gpt-4o-mini", "gpt-4o"}


def test_evaluate_prints_intervals(folder):
    policy, outcomes = folder / "policy", folder / "outcomes.jsonl.gz"
    result = calibration("evaluate", "--policy", policy, "--outcomes", outcomes, "--json", "--rounds", "20")
    figures = json.loads(result.stdout)
    low, estimate, high = figures["pooled"]["apgr"]
    assert 0.5 < low <= estimate <= high <= 1.5
    assert set(figures["pooled"]["saved_cost"]) == {"0.95", "0.97", "0.99"}
    assert {"law/clauses", "sums/easy"} <= set(figures["by_type"])
    assert figures["targets"]["0.9"]["quality_kept"][1] > 0.85


@pytest.mark.parametrize(("score", "tokens"), [(0.0, 60), (1.0, 0)])
def test_evaluate_prints_shares_of_zero_as_nan_and_no_warnings(folder, score, tokens):
    rows = [
        replace(outcome, results=dict.fromkeys(outcome.results, Result(score, None, tokens, tokens)))
        for outcome in synthetic_outcomes(60)
    ]
    path = folder / f"zero-{tokens}.jsonl"
    write_outcomes(rows, path)
    result = calibration("evaluate", "--policy", folder / "policy", "--outcomes", path, "--rounds", "5")
    assert (result.returncode, result.stderr) == (0, "") and "nan" in result.stdout


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "outcomes.jsonl:2: is not JSON"),
        ('{"id": "x", "messages": []}', "outcomes.jsonl:2: 'messages' is missing"),
        ('{"id": "x", "messages": [{"role": "user"}], "outcomes": {"a": {"score": 1}}}', "no outcome of 'gpt-4o-mini'"),
    ],
)
def test_the_error_of_an_invalid_row_names_file_and_line(tmp_path, line, problem):
    write_outcomes(synthetic_outcomes(1), tmp_path / "outcomes.jsonl")
    with (tmp_path / "outcomes.jsonl").open("a") as file:
        file.write(line + "\n")
    result = calibration("learn", "--outcomes", tmp_path / "outcomes.jsonl", "--out", tmp_path / "p")
    assert result.returncode == 2
    assert problem in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_error_of_an_invalid_policy_names_the_file(folder, tmp_path):
    (tmp_path / "policy.json").write_text("{")
    (tmp_path / "weights.npz").write_bytes(b"")
    result = calibration(
        "score", "--policy", tmp_path, "--requests", folder / "outcomes.jsonl.gz", "--out", tmp_path / "s"
    )
    assert result.returncode == 2
    assert str(tmp_path / "policy.json") in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_error_of_a_model_without_a_price_names_the_model(folder):
    result = calibration(
        "learn", "--outcomes", folder / "outcomes.jsonl.gz", "--out", folder / "p", "--strong", "gpt-9"
    )
    assert result.returncode == 2
    assert "gpt-9" in result.stderr
