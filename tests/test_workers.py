"""Learning in parts: equal bytes with any workers, and no repeated work after an interruption."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import run
from synthetic_outcomes import synthetic_outcomes

from calibration import workers
from calibration.learning import corpus, crossfit, duplicates, predictions
from calibration.learning.corpus import Questions, question_of, read_corpus
from calibration.learning.examples import TypeExamples, read_features
from calibration.learning.learning import learn
from calibration.learning.prior import Prior
from calibration.learning.resuming import ResumableWorkers, work_key
from calibration.outcomes import write_outcomes
from calibration.policies import load_prices, models_named
from calibration.workers import IN_PROCESS, Processes, WorkersError
from router.policy.document import dump
from router.policy.inputs import terms

PAIR = ("gpt-4o-mini", "gpt-4o")
PART = 40  # so that a few hundred questions have several parts
EXPECTED = {}  # files of the policy, computed once with the small parts and folds of the tests


class Counting:
    """Computes in this process and counts the parts; raises KeyboardInterrupt after `stop_after` parts."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.computed = 0
        self._stop_after = stop_after

    def map(self, function, parts):
        for part in parts:
            if self.computed == self._stop_after:
                raise KeyboardInterrupt
            self.computed += 1
            yield workers.run_single_threaded(function, part)


@pytest.fixture
def small_parts(monkeypatch):
    for module in (corpus, duplicates, predictions):
        monkeypatch.setattr(module, "PART_ROWS", PART)
    monkeypatch.setattr(crossfit, "FOLDS_OF_SMALL_SET", 2)


def policy_by(pool, folder=None):
    outcomes = synthetic_outcomes(110)
    extra_outcomes = synthetic_outcomes(20, seed=5)
    background = Prior(
        TypeExamples(read_features(extra_outcomes), [outcome.question_type for outcome in extra_outcomes])
    )
    models = models_named(PAIR, load_prices())
    learning = learn(outcomes, models, 0, {}, background, targets=(0.9, 0.95), workers=pool, folder=folder)
    return dump(learning.policy)


@pytest.fixture
def expected(small_parts):
    if not EXPECTED:
        EXPECTED.update(policy_by(IN_PROCESS))
    return EXPECTED


def test_the_size_of_a_part_does_not_change_the_policy(expected, monkeypatch):
    for module in (corpus, duplicates, predictions):
        monkeypatch.setattr(module, "PART_ROWS", 17)
    assert policy_by(IN_PROCESS) == expected


@pytest.mark.slow
def test_two_processes_learn_the_same_bytes(expected):
    assert policy_by(Processes(2)) == expected


def test_ray_learns_the_same_bytes(expected):
    pytest.importorskip("ray", reason="Ray is not installed; `make test-ray` installs it beside the project")
    with workers.open_workers(2, "auto") as pool:
        assert policy_by(pool) == expected


def test_without_ray_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkersError, match=r"pip install 'calibrated-router\[ray\]'"), workers.open_workers(2, "auto"):
        pass


def test_interrupted_learning_resumes(expected, tmp_path):
    first = Counting(stop_after=30)
    with pytest.raises(KeyboardInterrupt):
        policy_by(first, tmp_path / "kept")
    second, whole = Counting(), Counting()
    assert policy_by(second, tmp_path / "kept") == expected
    assert policy_by(whole) == expected
    assert first.computed + second.computed == whole.computed
    assert not (tmp_path / "kept").exists()


def test_results_of_other_outcomes_or_other_code_are_not_used(tmp_path):
    parts = [np.arange(3.0), np.arange(4.0)]
    first_run, second_run = Counting(), Counting()
    for counting, key in ((first_run, work_key([b"a"])), (second_run, work_key([b"b"]))):
        results = list(ResumableWorkers(counting, tmp_path, key).map(_doubled, parts))
        assert [result["doubled"].tolist() for result in results] == [(2 * part).tolist() for part in parts]
    assert (first_run.computed, second_run.computed) == (2, 2)
    assert [path.name for path in tmp_path.iterdir()] == [work_key([b"b"])]


def _doubled(values):
    return {"doubled": 2 * values}


@pytest.mark.slow
def test_a_killed_command_resumes_and_writes_the_same_policy(tmp_path):
    outcomes = tmp_path / "outcomes.jsonl"
    write_outcomes(synthetic_outcomes(60), outcomes)

    environment = {"SOURCE_DATE_EPOCH": "1700000000"}  # a fixed clock, since a policy contains the time

    def arguments(folder):
        return ("calibration", "learn", "--outcomes", str(outcomes), "--out", str(tmp_path / folder))

    killed = subprocess.Popen(
        [sys.executable, "-m", *arguments("killed")], env=os.environ | environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("killed.learning/*/*/*.npz"))) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    modified_times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("killed.learning/*/*/*.npz")}
    assert modified_times
    assert (
        run(*arguments("killed"), **environment).returncode == run(*arguments("whole"), **environment).returncode == 0
    )
    for name in ("policy.json", "weights.npz"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(tmp_path.glob("*.learning"))


def test_the_corpus_has_the_terms_of_two_or_more_questions(small_parts, monkeypatch):
    monkeypatch.setattr(corpus, "_HASHES_PER_MERGE", 100)
    features = read_features(synthetic_outcomes(300))
    read = read_corpus(features, IN_PROCESS)
    by_question = [set(terms(question_of(question_features).asked.question)) for question_features in features]
    known = sorted(
        {
            term
            for question_terms in by_question
            for term in question_terms
            if sum(term in second_run for second_run in by_question) >= 2
        }
    )
    assert list(read.terms) == known
    for row, question_terms in enumerate(by_question):
        assert {read.terms[column] for column in read.term_counts[[row]].indices} == question_terms & set(known)


def test_near_duplicates_equal_those_of_a_comparison_of_all_pairs(small_parts):
    rng = np.random.default_rng(0)
    words = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(400)]
    texts = [" ".join(rng.choice(words, size=12)) for _ in range(150)]
    for i in range(100):  # with zero to six words exchanged
        changed = texts[i].split()
        for position in rng.choice(12, size=i % 7, replace=False):
            changed[position] = str(rng.choice(words))
        texts.append(" ".join(changed))
    from scipy.sparse.csgraph import connected_components
    from sklearn.feature_extraction.text import TfidfVectorizer

    share = duplicates.TEMPLATE_SHARE
    vectors = TfidfVectorizer(analyzer=duplicates._words, max_df=share).fit_transform(texts)
    likeness = (vectors @ vectors.T).toarray() >= duplicates.COSINE_LIMIT
    groups = duplicates.near_duplicate_groups(texts)
    assert groups.tolist() == connected_components(likeness, directed=False)[1].tolist()
    assert 150 < len(set(groups.tolist())) < 250


def test_no_questions_cause_no_error():
    assert len(Questions([])) == 0
    assert duplicates.near_duplicate_groups([]).tolist() == []
