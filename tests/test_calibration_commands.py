"""`learn`, `score` and `evaluate` as a user runs them."""

import json

import pytest
from command_line import run
from made_outcomes import made_outcomes

from calibration.outcomes import read_outcomes, write_outcomes
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
    write_outcomes(made_outcomes(400), path / "outcomes.jsonl.gz")
    made = calibration("learn", "--outcomes", path / "outcomes.jsonl.gz", "--out", path / "policy", "--seed", "3")
    assert made.returncode == 0, made.stderr
    return path


def test_learn_writes_a_policy_without_any_question_text(folder):
    document = json.loads((folder / "policy" / "policy.json").read_text())
    assert {rule["target"] for rule in document["targets"]} >= {0.95, 0.97, 0.99}
    assert "landlord" not in json.dumps(document)


def test_an_expected_promise_is_told_by_the_command_and_by_every_answer(folder):
    few = folder / "few.jsonl.gz"
    write_outcomes(made_outcomes(150), few)
    options = ("--promise", "expected", "--type-margin", "0.1", "--confidence", "0.99", "--seed", "3")
    done = calibration("learn", "--outcomes", few, "--out", folder / "expected", *options)
    assert done.returncode == 0 and "expected" in done.stdout and "of resplits" in done.stdout
    policy = read_policy(folder / "expected")
    auto = done.stdout.strip().splitlines()[-1]
    another = float(auto.partition("auto@")[2].split()[0])
    assert auto.startswith(f"auto targets {policy.default_target * 100:g} %; request auto@")
    assert another != policy.default_target and policy.rules.rule(another).target == another
    assert (policy.about["promise"], policy.about["type_margin"], policy.about["confidence"]) == ("expected", 0.1, 0.99)
    features = read_question([{"role": "user", "content": "What is 3 plus 4?"}])
    prediction = predict(policy.predictor, features)
    told = {}
    for rule in policy.rules.targets:
        decision = decide(policy.rules, features, prediction, rule.target)
        told[rule.target] = dict(evidence_headers(decision))[b"x-router-promise"]
        assert decision.promise is None or told[rule.target].decode() == decision.promise.value
    assert b"expected" in told.values()


@pytest.mark.parametrize("command", [("learn", "--outcomes", "o", "--out", "p"), ("run",)])
@pytest.mark.parametrize(
    "option", [("--confidence", "0.4"), ("--confidence", "nan"), ("--type-margin", "a lot"), ("--promise", "sure")]
)
def test_an_option_that_does_not_fit_is_one_line(tmp_path, command, option):
    done = calibration(*command, *option)
    assert done.returncode == 2 and option[0] in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("option", [("--confidence", "1.5"), ("--promise", "sure"), ("--type-margin", "-1")])
def test_a_promise_that_cannot_be_made_is_refused_with_the_option_s_name(folder, option):
    done = calibration("learn", "--outcomes", folder / "outcomes.jsonl.gz", "--out", folder / "no", *option)
    assert done.returncode == 2 and option[0] in done.stderr and not (folder / "no").exists()


def test_outcomes_come_back_as_they_were_written(folder):
    assert read_outcomes([folder / "outcomes.jsonl.gz"]) == made_outcomes(400)


def test_score_writes_a_line_for_each_request_in_the_form_of_the_contract(folder):
    out = folder / "scores.jsonl"
    done = calibration("score", "--policy", folder / "policy", "--requests", folder / "outcomes.jsonl.gz", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"made-0-{i}" for i in range(400)]
    assert set(rows[0]) == {"id", "question_type", "quality", "gap", "novelty", "expected_cost_usd", "decision"}
    assert rows[0]["gap"] == pytest.approx(rows[0]["quality"]["gpt-4o"] - rows[0]["quality"]["gpt-4o-mini"])
    assert set(rows[0]["decision"].values()) <= {"gpt-4o-mini", "gpt-4o"}


def test_evaluate_prints_every_figure_with_its_interval(folder):
    policy, outcomes = folder / "policy", folder / "outcomes.jsonl.gz"
    done = calibration("evaluate", "--policy", policy, "--outcomes", outcomes, "--json", "--rounds", "20")
    figures = json.loads(done.stdout)
    low, estimate, high = figures["pooled"]["apgr"]
    assert 0.5 < low <= estimate <= high <= 1.5
    assert set(figures["pooled"]["saved_cost"]) == {"0.95", "0.97", "0.99"}
    assert {"law/clauses", "sums/easy"} <= set(figures["by_type"])
    assert figures["targets"]["0.9"]["quality_kept"][1] > 0.85


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "outcomes.jsonl:2: is not JSON"),
        ('{"id": "x", "messages": []}', "outcomes.jsonl:2: 'messages' is missing"),
        ('{"id": "x", "messages": [{"role": "user"}], "outcomes": {"a": {"score": 1}}}', "no outcome of 'gpt-4o-mini'"),
    ],
)
def test_a_row_that_does_not_fit_is_one_line_with_file_and_line(tmp_path, line, said):
    write_outcomes(made_outcomes(1), tmp_path / "outcomes.jsonl")
    with (tmp_path / "outcomes.jsonl").open("a") as file:
        file.write(line + "\n")
    done = calibration("learn", "--outcomes", tmp_path / "outcomes.jsonl", "--out", tmp_path / "p")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_policy_that_does_not_parse_is_one_line_with_the_file(folder, tmp_path):
    (tmp_path / "policy.json").write_text("{")
    (tmp_path / "weights.npz").write_bytes(b"")
    done = calibration(
        "score", "--policy", tmp_path, "--requests", folder / "outcomes.jsonl.gz", "--out", tmp_path / "s"
    )
    assert done.returncode == 2
    assert str(tmp_path / "policy.json") in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_without_a_price_is_refused_with_the_line_to_add(folder):
    done = calibration("learn", "--outcomes", folder / "outcomes.jsonl.gz", "--out", folder / "p", "--strong", "gpt-9")
    assert done.returncode == 2
    assert "gpt-9" in done.stderr
