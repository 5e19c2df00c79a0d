"""A calibration in rounds asks no more than it needs, and looking several times promises no more than it may."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fake_models import FakeModels
from test_run import finish, kept, start

from calibration.certificate import lower_bound
from calibration.questions import Question, read
from calibration.rounds import confidence_of_each, ordered, schedule

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and what it stands on warn of themselves


def made(path: Path, counts: dict[str, int]) -> list[Question]:
    """Questions that need no judge; the number of each type says how it is asked."""
    rows = [
        {
            "id": f"{name}{n}",
            "question_type": name,
            "question": f"{name.title()}: what is {n} plus {n * 7 % 13}?",
            "reference": n + n * 7 % 13,
            "check": "number",
        }
        for name, count in counts.items()
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(str(path))


@pytest.mark.parametrize("questions", [60, 101, 640, 3000, 10**6])
def test_looks_are_few_and_end_with_all_questions(questions):
    looks = schedule(questions)
    assert looks == sorted(set(looks)) and looks[-1] == questions and len(looks) <= 5
    each = confidence_of_each(0.95, len(looks))
    assert (1 - each) * len(looks) == pytest.approx(0.05)


def test_every_beginning_of_the_order_is_a_sample_of_the_mix(tmp_path):
    questions = made(tmp_path / "q.jsonl", {"a": 60, "b": 30, "c": 10})
    order = ordered(questions, {}, seed=1)
    assert sorted(q.id for q in order) == sorted(q.id for q in questions)
    for n in (10, 50, 100):
        counts = Counter(q.question_type for q in order[:n])
        assert all(abs(counts[name] - share * n) <= 1 for name, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)))
    assert order == ordered(questions, {}, seed=1) != ordered(questions, {}, seed=2)
    busy = Counter(q.question_type for q in ordered(questions, {"c": 50, "b": 50, "elsewhere": 900}, seed=1)[:20])
    assert busy == {"b": 10, "c": 10}


def test_looking_several_times_errs_no_more_often_than_the_confidence_says():
    rng, trials, looks = np.random.default_rng(0), 1500, schedule(1600)
    strong, gains, target = 0.8, 0.01, 0.97
    losses = (1 - target) * strong + gains  # so that exactly the target is kept, and no more
    kept_beyond = np.array([-target, 1.0, 1 - target, 0.0])
    values = kept_beyond[rng.choice(4, (trials, looks[-1]), p=[losses, gains, strong - losses, 1 - strong - gains])]

    def wrong(confidence: float) -> float:
        """The share of trials in which any look certifies."""
        seen = (any(lower_bound(row[:n], np.arange(n), -target, confidence) >= 0 for n in looks) for row in values)
        return sum(seen) / trials

    assert wrong(confidence_of_each(0.95, len(looks))) <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5
    assert wrong(0.95) > 0.06  # each look at the whole error: one of several is wrong too often


@pytest.mark.timeout(300)
def test_a_run_stops_at_the_first_look_that_certifies_and_a_rerun_asks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    made(path, {"sums": 200, "products": 160})
    arguments = ("run", "--questions", str(path), "--until", "0.9", "--yes", "--no-prior")
    with FakeModels(read(str(path)), lambda _model, _text: 1.0) as fake:
        code, out = finish(start(fake, tmp_path / "home", *arguments), seconds=200)
        said = " ".join(out.split())
        assert code == 0 and "Stopped after 100 of 360 questions: 90 % is certified" in said, out
        assert "Looked after 100, 200, 360 questions at most, each time at 98.3% confidence" in said
        assert len(kept(tmp_path / "home")) == 200  # of two models
        calls = len(fake.calls)
        code, _ = finish(start(fake, tmp_path / "home", *arguments), seconds=200)
        assert code == 0 and len(fake.calls) == calls
    policy = json.loads((tmp_path / "home" / "calibration" / "policy" / "policy.json").read_text())
    assert policy["about"]["looks"] == [100, 200, 360] and policy["about"]["confidence_of_all_looks"] == 0.95
    assert all(rule["confidence"] == pytest.approx(1 - 0.05 / 3) for rule in policy["targets"])


@pytest.mark.timeout(300)
def test_a_round_beyond_the_budget_is_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    made(path, {"sums": 200, "products": 160})
    with FakeModels(read(str(path)), lambda model, _: 1.0 if model == "gpt-4o" else 0.5) as fake:
        given = ("run", "--questions", str(path), "--until", "0.97", "--yes", "--max-output-tokens", "50")
        code, out = finish(start(fake, tmp_path / "home", *given, "--budget-usd", "0.12"), seconds=200)
        said = " ".join(out.split())
        assert code == 0 and "Stopped after 100 of 360 questions: the next round is expected to cost" in said, out


@pytest.mark.parametrize("given", ["1", "0.5", "nan"])
def test_a_target_that_is_none_is_one_line(tmp_path: Path, given: str) -> None:
    with FakeModels([]) as fake:
        code, out = finish(start(fake, tmp_path / "home", "run", "--until", given))
    assert code == 2 and "--until" in out and len(out.strip().splitlines()) == 1
