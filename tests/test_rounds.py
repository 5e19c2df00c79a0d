"""A calibration in rounds: the sizes of rounds, their error, the order of questions, and reasons to stop."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibrating import calibrate, read_answers
from fake_models import FakeModels
from synthetic_outcomes import WORDS, synthetic_outcomes

from calibration.learning.certificate import USEFUL_SAVING
from calibration.learning.intervals import lower_bound
from calibration.learning.learning import LearningResult, learn
from calibration.outcomes import read_outcomes
from calibration.pipeline.rounds import (
    RoundPlan,
    Stop,
    may_certify,
    plan_rounds,
    rule_of,
    sampling_order,
    stop_reason,
    targets_with,
    with_confidence,
)
from calibration.policies import load_prices, models_named, read_policy
from calibration.questions.questions import Question, read

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and its dependencies emit warnings

PAIR = ("gpt-4o-mini", "gpt-4o")
ALIKE = {"sums/easy": (0.97, 0.97), "facts/capitals": (0.95, 0.95)}
HOPELESS = {"law/clauses": (0.02, 0.98), "code/tracing": (0.02, 0.98)}


@pytest.mark.parametrize("total", [1, 60, 99, 100, 141, 142, 250, 640, 5000, 100_000])
@pytest.mark.parametrize("target", [0.5, 0.9, 0.97, 0.999])
def test_there_are_at_most_five_rounds_and_the_last_has_all_questions(total: int, target: float) -> None:
    planned = plan_rounds(total, target, 0.95)
    assert 1 <= len(planned.sizes) <= 5 and planned.sizes[-1] == planned.total_questions == total
    assert list(planned.sizes) == sorted(set(planned.sizes))
    assert len(planned.sizes) == 1 or planned.sizes[0] >= 100
    assert planned == plan_rounds(total, target, 0.95)  # a function of numbers only: a rerun has the same rounds


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_the_errors_of_all_rounds_sum_to_that_of_the_calibration(confidence: float) -> None:
    for total in (60, 250, 640, 100_000):
        planned = plan_rounds(total, 0.9, confidence)
        assert len(planned.sizes) * (1 - planned.confidence_per_round) == pytest.approx(1 - confidence)
    assert plan_rounds(60, 0.9, confidence).confidence_per_round == pytest.approx(confidence)  # the whole error


def test_the_first_round_can_certify_a_model_that_keeps_everything() -> None:
    for target in (0.8, 0.9, 0.95, 0.97, 0.99):
        planned = plan_rounds(20_000, target, 0.95)
        first = planned.sizes[0]
        kept_beyond = np.full(first, (1 - target) * 0.85)  # the strong model is correct in 85 %
        assert lower_bound(kept_beyond, np.arange(first), -target, planned.confidence_per_round) >= 0


def falsely_certified(planned: RoundPlan, confidence: float, repeats: int) -> float:
    """The share of runs in which a round certifies a cheap model that keeps just less than the target."""
    rng, times = np.random.default_rng(0), 0
    lost_share = 0.0301 / 1.0001  # share of questions that only the strong model answers correctly: 96.99 % is kept
    for _ in range(repeats):
        values = np.where(rng.random(planned.total_questions) < lost_share, -planned.target, 1 - planned.target)
        groups = np.arange(planned.total_questions)
        times += any(lower_bound(values[:n], groups[:n], -planned.target, confidence) >= 0 for n in planned.sizes)
    return times / repeats


def test_rounds_certify_falsely_no_more_often_than_allowed() -> None:
    planned, repeats = RoundPlan(0.97, (400, 800, 1600, 3200, 6400), 0.9), 1500
    allowed = 1 - planned.confidence
    shared = falsely_certified(planned, planned.confidence_per_round, repeats)
    unshared = falsely_certified(planned, planned.confidence, repeats)
    noise = 2 * (allowed * (1 - allowed) / repeats) ** 0.5
    assert shared <= allowed + noise
    assert unshared > allowed + 2 * noise and unshared > 2 * shared  # why rounds share the error


def question(kind: str, number: int) -> Question:
    return Question(f"{kind}-{number}", [{"role": "user", "content": f"{kind} {number}"}], kind)


def test_every_round_is_a_sample_with_each_type_in_its_share() -> None:
    shares = {"often": 300, "seldom": 90, "rare": 10}
    questions = [question(kind, number) for kind, count in shares.items() for number in range(count)]
    sampled = sampling_order(questions, seed=3)
    assert sorted(sampled_question.id for sampled_question in sampled) == sorted(
        sampled_question.id for sampled_question in questions
    )
    for n in (50, 100, 200, 399):
        counts = Counter(sampled_question.question_type for sampled_question in sampled[:n])
        assert all(abs(counts[kind] - n * count / 400) <= 2 for kind, count in shares.items())
    shuffled = random.Random(0).sample(questions, 400)
    assert sampling_order(shuffled, seed=3) == sampled  # the order of the file does not matter
    assert sampling_order(questions, seed=4) != sampled


def test_every_question_is_as_likely_as_any_other_to_be_in_the_first_round() -> None:
    questions = [question(kind, number) for kind, count in (("a", 30), ("b", 7)) for number in range(count)]
    times = Counter(
        sampled_question.id for seed in range(2000) for sampled_question in sampling_order(questions, seed)[:10]
    )
    assert all(abs(times[sampled_question.id] / 2000 - 10 / 37) < 0.05 for sampled_question in questions)


def learnt_of(n: int, truth: dict[str, tuple[float, float]], target: float) -> LearningResult:
    models = models_named(PAIR, load_prices())
    return learn(synthetic_outcomes(n, 1, truth), models, 0, {}, targets=targets_with(target), confidence=0.975)


def test_a_calibration_stops_when_the_target_is_certified_and_saves() -> None:
    planned, learning = plan_rounds(400, 0.9, 0.95), learnt_of(200, ALIKE, 0.9)
    rule = rule_of(learning.policy, 0.9)
    assert rule.certified and rule.expected_saving.estimate >= USEFUL_SAVING
    assert stop_reason(planned, 1, learning) is Stop.CERTIFIED


def test_a_calibration_stops_when_more_questions_would_not_help() -> None:
    planned, learning = plan_rounds(400, 0.97, 0.95), learnt_of(200, HOPELESS, 0.97)
    assert not may_certify(learning, planned) and stop_reason(planned, 1, learning) is Stop.NO_HELP
    assert stop_reason(planned, len(planned.sizes), learning) is Stop.ALL_ASKED


def test_a_calibration_continues_while_the_target_may_still_be_certified() -> None:
    small_learning = learnt_of(100, ALIKE, 0.99)
    planned = RoundPlan(0.99, (100, 3000), 0.95)
    assert not rule_of(small_learning.policy, 0.99).certified
    assert may_certify(small_learning, planned) and stop_reason(planned, 1, small_learning) is None
    assert not may_certify(small_learning, RoundPlan(0.99, (100, 101), 0.95))  # one more question is not enough
    assert stop_reason(planned, 1, None) is None  # too few answers to learn from


def test_a_policy_has_the_confidence_over_all_rounds() -> None:
    policy = with_confidence(learnt_of(100, ALIKE, 0.93).policy, 0.95)
    assert {rule.confidence for rule in policy.rules.targets} == {0.95} and policy.about["confidence"] == 0.95
    assert rule_of(policy, 0.93).n == 100


def write_questions(path: Path, count: int) -> list[Question]:
    """Write questions of two types that need no judge."""
    rng = random.Random(0)
    kinds = ("sums/easy", "law/clauses")
    rows = [
        {
            "id": f"q{n}",
            "question_type": kinds[n % 2],
            "question": f"Question {n}: {' '.join(rng.choices(WORDS[kinds[n % 2]].split(), k=12))}?",
            "reference": f"right {n}",
            "check": "exact",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(str(path))


def normalize_text(out: str) -> str:
    return " ".join(out.replace("│", " ").split())


@pytest.mark.slow
def test_a_run_stops_when_the_target_is_certified(tmp_path: Path, create_store: Callable[[Path], str]) -> None:
    home, path = tmp_path / "home", tmp_path / "kinds.jsonl"
    create_store(home)
    arguments = ("run", "--yes", "--questions", str(path), "--until", "0.9", "--no-prior")
    with FakeModels(write_questions(path, 400)) as fake:
        code, output = calibrate(fake, home, *arguments)
        text = normalize_text(output)
        assert code == 0, output
        assert "Up to 3 rounds, with 100, 200 and 400 questions in total" in text
        assert "stops when 90% is certified" in text
        assert "Stopped after 100 of 400 questions: 90% is certified and saves" in text and "auto@0.9" in text
        assert "used 1 of 3 planned rounds (after 100, 200, 400 questions)" in text
        assert "tested at 98.33% confidence, so the certificate holds at 95% over all rounds" in text
        assert len(fake.calls) == len(read_answers(home)) == 200
        folder = home / "calibration"
        assert len(read_outcomes([folder / "outcomes.jsonl.gz"], PAIR)) == 100
        policy = read_policy(folder / "policy")
        assert rule_of(policy, 0.9).certified and {rule.confidence for rule in policy.rules.targets} == {0.95}
        assert policy.about["looks"]["used"] == 1 and "planned rounds" in (folder / "report.html").read_text()
        code, output = calibrate(fake, home, *arguments)
        assert code == 0 and "Stopped after 100 of 400 questions" in normalize_text(output) and len(fake.calls) == 200


@pytest.mark.slow
def test_a_run_stops_before_a_round_that_exceeds_the_budget_and_resumes(
    tmp_path: Path, create_store: Callable[[Path], str]
) -> None:
    home, path = tmp_path / "home", tmp_path / "kinds.jsonl"
    create_store(home)
    arguments = (
        "run",
        "--yes",
        "--questions",
        str(path),
        "--until",
        "0.95",
        "--no-prior",
        "--max-output-tokens",
        "200",
    )
    quality = {"sums/easy": 0.96, "law/clauses": 0.86}
    questions = write_questions(path, 400)
    with FakeModels(questions, lambda m, kind: 1.0 if m == "gpt-4o" else quality[kind], lambda m, kind: 150) as fake:
        code, output = calibrate(fake, home, *arguments, "--budget-usd", "0.01")
        assert (
            code == 3 and "does not cover round 1 of 3 (up to 120 of 400" in normalize_text(output) and not fake.calls
        )
        code, output = calibrate(fake, home, *arguments, "--budget-usd", "0.3")
        text = normalize_text(output)
        assert code == 3 and "does not cover round 2 of 3 (up to 219 of 400 questions)" in text, output
        assert "used 1 of 3 planned rounds" in text and len(fake.calls) == 240
        enough = re.search(r"run the same command with --budget-usd ([\d.]+)$", text)
        assert enough is not None
        code, output = calibrate(fake, home, *arguments, "--budget-usd", enough[1])
        assert len(fake.calls) == len(read_answers(home)) >= 438 and "2 of 3 planned rounds" in normalize_text(
            output
        ), output


def test_the_key_of_an_answer_does_not_depend_on_order_or_type() -> None:
    from calibration.answers.answers import Endpoint, answer_key, build_body

    question_asked, end = question("sums", 1), Endpoint("http://upstream/v1", "key")
    typed = replace(question_asked, question_type="other")
    assert answer_key(build_body(question_asked, "m", end), end) == answer_key(build_body(typed, "m", end), end)
