"""MLflow judges answers, or an exact check does; every verdict is counted, and a missing one is reported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from fake_models import FakeModels
from mlflow.entities import AssessmentSource
from mlflow.genai.scorers import scorer

from calibration.answers import tracking
from calibration.answers.answers import Answer, AnswerCollector, Endpoint
from calibration.checks.checks import parse_check
from calibration.judging import assessments
from calibration.judging.judgements import JudgementSet, ScorerError, Scorers, as_score, judge
from calibration.judging.relay import JudgeRelay
from calibration.ledger import Ledger
from calibration.policies import load_prices
from calibration.questions.questions import parse
from calibration.spending import BudgetError, Meter, StoppedError
from calibration.workers import Processes
from router.policy.naming import without_effort
from router.policy.usage import Usage

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and its dependencies emit warnings

JUDGE = "gpt-6-luna:none"
MODELS = ("gpt-4o-mini", "gpt-4o")
QUESTIONS = [
    *(
        parse({"id": f"f{n}", "question_type": "facts", "question": f"Why is {n} so?", "expected_facts": ["it", "so"]})
        for n in range(4)
    ),
    *(
        parse({"id": f"m{n}", "question_type": "sums", "question": f"{n}+1?", "reference": n + 1, "check": "number"})
        for n in range(2)
    ),
]
QUALITY = {
    ("gpt-4o-mini", "facts"): 0.5,
    ("gpt-4o", "facts"): 1.0,
    ("gpt-4o-mini", "sums"): 0.0,
    ("gpt-4o", "sums"): 1.0,
}


@scorer
def brief(outputs: str) -> bool:
    """A custom scorer."""
    return len(outputs) < 1000


NOT_A_SCORER = 7


@pytest.fixture
def fake() -> Iterator[FakeModels]:
    with FakeModels(QUESTIONS, lambda model, kind: QUALITY[model, kind]) as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, create_store: Callable[[Path], str]) -> str:
    return create_store(tmp_path_factory.mktemp("store"))


def run(
    fake: FakeModels,
    folder: Path,
    store: str,
    scorers: Sequence[str] = ("correctness", "completeness"),
    meter: Meter | None = None,
    patience_seconds: float = 40.0,
    processes: Processes | None = None,
) -> tuple[JudgementSet, Meter, tracking.Runs]:
    endpoint = Endpoint(fake.base_url, "sk-test", 300)
    prices = load_prices()
    meter = meter or Meter(prices)
    by_id = {question.id: question for question in QUESTIONS}
    with Ledger(folder / "answers.jsonl") as ledger:
        collection = asyncio.run(
            AnswerCollector(dict.fromkeys(MODELS, endpoint), Meter(prices), ledger).collect(QUESTIONS)
        )
    experiment = tracking.prepare(store)
    runs = tracking.open_runs(experiment, "a test", MODELS, {"judge": JUDGE}, folder / "run.json")
    for model in MODELS:
        of_model = [answer for answer in collection.answers.values() if answer.model == model]
        tracking.log_answers(runs, model, of_model, by_id, prices)
    pairs = [(by_id[question], answer) for (question, _), answer in sorted(collection.answers.items())]
    with (
        Ledger(folder / "judge.jsonl") as calls,
        Ledger(folder / "judgements.jsonl") as ledger,
        JudgeRelay(endpoint, meter, calls, patience_seconds) as relay,
    ):
        loaded = Scorers.load(scorers, f"openai:/{JUDGE}")
        verdicts = judge(pairs, loaded, ledger, relay, runs, processes=processes)
    assessments.write_assessments(pairs, verdicts, loaded)
    return verdicts, meter, runs


Assessed = tuple[str, str, str, float | None, str]  # name, source and its kind, score, rationale


def read_assessments(runs: tracking.Runs) -> dict[tuple[str, str], list[Assessed]]:
    """Read the feedback on the traces of the runs, by question and model."""
    traces = [trace for run in runs.models.values() for trace in mlflow.search_traces(run_id=run, return_type="list")]
    return {
        (trace.info.tags["question_id"], trace.info.tags["model"]): sorted(
            (
                assessment.name,
                assessment.source.source_type,
                assessment.source.source_id,
                as_score(assessment.feedback.value),
                assessment.rationale or "",
            )
            for assessment in trace.info.assessments
            if assessment.feedback is not None
        )
        for trace in traces
    }


def expected_assessments(judgement_set: JudgementSet) -> dict[tuple[str, str], list[Assessed]]:
    """The expected feedback on the traces."""
    verdicts: dict[tuple[str, str], list[Assessed]] = {}
    for (question, model), judgement in judgement_set.judgements.items():
        if question.startswith("m"):
            rationale = f"check number against the reference {int(question[1:]) + 1}"
            verdicts[question, model] = [("correctness", "CODE", "number", judgement.scores["correctness"], rationale)]
        else:
            verdicts[question, model] = [
                (name, "LLM_JUDGE", f"openai:/{JUDGE}", score, judgement.rationales[name])
                for name, score in sorted(judgement.scores.items())
            ]
    return verdicts


def test_every_answer_gets_the_correct_verdict_and_each_judge_call_is_counted(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    judgement_set, meter, runs = run(fake, tmp_path, store)
    assert not judgement_set.failures and len(judgement_set.judgements) == 12
    for question in QUESTIONS:
        for model in MODELS:
            verdicts = judgement_set.judgements[question.id, model]
            assert verdicts.score == float(fake.is_correct(model, question.text)), (question.id, model)
            names = ["correctness"] if question.check else ["completeness", "correctness"]
            assert sorted(verdicts.scores) == names
    counted = meter.usage["judge", JUDGE]
    assert [counted.input_tokens, counted.output_tokens] == fake.billed_tokens[without_effort(JUDGE)]
    assert meter.spent_usd("judge") == meter.spent_usd() > 0
    for model in MODELS:
        traces = mlflow.search_traces(run_id=runs.models[model], return_type="list")
        token_usages = [trace.info.token_usage or {} for trace in traces]
        usage = Usage(
            sum(tokens["input_tokens"] for tokens in token_usages),
            sum(tokens["output_tokens"] for tokens in token_usages),
        )
        count = len(traces)  # the judge's calls add none
        assert count == 6 and [usage.input_tokens, usage.output_tokens] == fake.billed_tokens[model]


def test_judging_again_calls_no_judge(fake: FakeModels, tmp_path: Path, store: str) -> None:
    first, _, _ = run(fake, tmp_path, store)
    calls = len(fake.successful_calls("judge"))
    again, meter, _ = run(fake, tmp_path, store)
    assert again.judgements == first.judgements
    assert (len(fake.successful_calls("judge")), meter.spent_usd()) == (calls, 0.0)


def test_two_processes_judge_as_one_does(fake: FakeModels, tmp_path: Path, store: str) -> None:
    scorers = ["correctness", "completeness", f"{__name__}:brief"]
    single, _, _ = run(fake, tmp_path / "one", store, scorers)
    requests = sorted(fake.successful_calls("judge"))
    fake.calls.clear()
    judgement_set, _, runs = run(fake, tmp_path / "two", store, scorers, processes=Processes(2))
    assert judgement_set.judgements == single.judgements and len(judgement_set.judgements) == 12
    assert sorted(fake.successful_calls("judge")) == requests
    for (question, _), feedback in read_assessments(runs).items():
        assert len(feedback) == (2 if question.startswith("m") else 3)


def test_each_verdict_of_judge_or_check_is_on_its_trace_once(fake: FakeModels, tmp_path: Path, store: str) -> None:
    judgement_set, _, runs = run(fake, tmp_path, store)
    assert len(judgement_set.judgements) == 12 and read_assessments(runs) == expected_assessments(judgement_set)


def test_a_question_that_is_judged_in_two_runs_has_each_verdict_once(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    fake.faults.garbage_verdicts = 0.5  # so that there are several rounds
    first, _, runs = run(fake, tmp_path / "one", store)
    assert read_assessments(runs) == expected_assessments(first)
    second, meter, runs = run(fake, tmp_path / "two", store)  # without the stored verdicts of the first run
    assert meter.calls["judge", JUDGE] > 0 and read_assessments(runs) == expected_assessments(second)
    tracking.close_runs(runs)
    again, meter, others = run(fake, tmp_path / "two", store)  # with all stored verdicts
    assert others.parent != runs.parent and not meter.usage
    assert again.judgements == second.judgements and read_assessments(others) == read_assessments(
        runs
    ) == expected_assessments(second)


def test_stored_verdicts_are_added_to_a_new_store(fake: FakeModels, tmp_path: Path, store: str) -> None:
    run(fake, tmp_path, store)
    stored, meter, runs = run(fake, tmp_path, f"sqlite:///{tmp_path}/new.db")
    assert not meter.usage and read_assessments(runs) == expected_assessments(stored)


def test_assessments_by_people_are_not_removed(fake: FakeModels, tmp_path: Path, store: str) -> None:
    judgement_set, _, runs = run(fake, tmp_path, store)
    for trace in mlflow.search_traces(run_id=runs.models["gpt-4o"], return_type="list"):
        person = AssessmentSource("HUMAN", "me")
        assessment_of_judge = next(
            assessment for assessment in trace.info.assessments if assessment.name == "correctness"
        )
        mlflow.override_feedback(
            trace_id=trace.info.trace_id,
            assessment_id=assessment_of_judge.assessment_id,
            value="no",
            source=person,
            rationale="It is not.",
        )
    run(fake, tmp_path / "again", store)
    expected = expected_assessments(judgement_set)
    for pair in expected:
        if pair[1] == "gpt-4o":
            expected[pair] = sorted([*expected[pair], ("correctness", "HUMAN", "me", 0.0, "It is not.")])
    assert read_assessments(runs) == expected
    for trace in mlflow.search_traces(run_id=runs.models["gpt-4o"], return_type="list"):
        assert [
            assessment.source.source_type != "HUMAN"
            for assessment in trace.info.assessments
            if assessment.valid is False
        ] == [True]


def test_an_outdated_verdict_is_replaced(fake: FakeModels, tmp_path: Path, store: str) -> None:
    judgement_set, _, runs = run(fake, tmp_path, store)
    question = next(question for question in QUESTIONS if question.id == "m1")
    trace = next(
        tokens
        for tokens in mlflow.search_traces(run_id=runs.models["gpt-4o"], return_type="list")
        if tokens.info.tags["question_id"] == "m1"
    )
    with Ledger(tmp_path / "answers.jsonl") as ledger:
        rows = {key: ledger.get(key) or {} for key in ledger}
    answers = [Answer.from_row(key, row, "m1") for key, row in rows.items()]
    answer = next(candidate for candidate in answers if tracking.trace_id(candidate) == trace.info.trace_id)
    other = replace(question, check=parse_check("contains", "seven"))
    assessments.write_assessments(
        [(other, answer)], JudgementSet({}, {}), Scorers.load(["correctness"], f"openai:/{JUDGE}")
    )
    rationale = 'check contains against the reference "seven"'
    assert read_assessments(runs)["m1", "gpt-4o"] == [("correctness", "CODE", "contains", 0.0, rationale)]
    assert judgement_set.judgements["m1", "gpt-4o"].score == 1.0


def test_an_invalid_verdict_is_requested_again(fake: FakeModels, tmp_path: Path, store: str) -> None:
    fake.faults.garbage_verdicts = 0.5
    judgement_set, _, _ = run(fake, tmp_path, store)
    assert not judgement_set.failures and len(judgement_set.judgements) == 12


def test_answers_without_a_verdict_are_reported_and_not_silently_left_out(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    fake.faults.always_garbage = True
    judgement_set, meter, runs = run(fake, tmp_path, store)
    assert len(judgement_set.judgements) == 4 and len(judgement_set.failures) == 8
    assert "no verdict after 3 rounds" in judgement_set.failures["f0", "gpt-4o"]
    assert all(
        len(verdicts) == (1 if question.startswith("m") else 2)
        for (question, _), verdicts in read_assessments(runs).items()
    )
    assert meter.calls["judge", JUDGE] == len(fake.successful_calls("judge"))  # invalid verdicts are paid for too


def test_an_unavailable_judge_stops_the_calibration_within_a_minute(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    fake.faults.judge_unavailable = True
    start = time.monotonic()
    with pytest.raises(StoppedError, match=r"did not answer for .*run the same command again"):
        run(fake, tmp_path, store, patience_seconds=1.0)
    assert time.monotonic() - start < 60
    fake.faults.judge_unavailable = False
    judgement_set, _, _ = run(fake, tmp_path, store)
    assert len(judgement_set.judgements) == 12 and len(fake.successful_calls("answer")) == 12


def test_judging_stays_within_the_budget(fake: FakeModels, tmp_path: Path, store: str) -> None:
    meter = Meter(load_prices(), budget_usd=0.0005)
    with pytest.raises(BudgetError):
        run(fake, tmp_path, store, meter=meter)
    assert 0 < meter.spent_usd() <= 0.0005
    judgement_set, remaining_meter, _ = run(fake, tmp_path, store)
    assert len(judgement_set.judgements) == 12
    assert meter.calls["judge", JUDGE] + remaining_meter.calls["judge", JUDGE] == len(fake.successful_calls("judge"))


def test_custom_scorers_are_loaded_by_import_path(fake: FakeModels, tmp_path: Path, store: str) -> None:
    for _ in range(2):
        judgement_set, _, runs = run(fake, tmp_path, store, ["correctness", f"{__name__}:brief"])
        assessments = [
            (name, kind, source, score) for name, kind, source, score, _ in read_assessments(runs)["m0", "gpt-4o-mini"]
        ]
        assert assessments == [("brief", "CODE", "brief", 1.0), ("correctness", "CODE", "number", 0.0)]
    assert judgement_set.judgements["f0", "gpt-4o"].scores == {"correctness": 1.0, "brief": 1.0}
    assert judgement_set.judgements["m0", "gpt-4o-mini"].scores == {"correctness": 0.0, "brief": 1.0}


@pytest.mark.parametrize(
    "path", ["no.such.module:x", "calibration.judging.judgements:nothing", f"{__name__}:NOT_A_SCORER", "x"]
)
def test_an_invalid_scorer_is_rejected(path: str) -> None:
    with pytest.raises(ScorerError, match="scorer"):
        Scorers.load([path], JUDGE)


def test_a_store_whose_creation_was_interrupted_is_created_again(tmp_path):
    (tmp_path / "mlflow.db.new").write_bytes(b"half a store")
    code = "import sys; from calibration.answers.tracking import prepare; print(prepare(sys.argv[1]))"
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'mlflow.db'}"]
    created = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (created.returncode, created.stdout) == (0, "1\n"), created.stderr
    assert (tmp_path / "mlflow.db").exists() and not (tmp_path / "mlflow.db.new").exists()
