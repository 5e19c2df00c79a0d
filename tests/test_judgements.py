"""Answers are judged by MLflow or checked exactly; every verdict is counted, and none is lost in silence."""

from __future__ import annotations

import asyncio
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

pytestmark = pytest.mark.filterwarnings("default")  # MLflow and what it stands on warn of themselves

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
    """A scorer of the user's own."""
    return len(outputs) < 1000


NOT_A_SCORER = 7


@pytest.fixture
def fake() -> Iterator[FakeModels]:
    with FakeModels(QUESTIONS, lambda model, kind: QUALITY[model, kind]) as server:
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, store_with_tables: Callable[[Path], str]) -> str:
    return store_with_tables(tmp_path_factory.mktemp("store"))


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
        asked = asyncio.run(AnswerCollector(dict.fromkeys(MODELS, endpoint), Meter(prices), ledger).collect(QUESTIONS))
    experiment = tracking.prepare(store)
    runs = tracking.open_runs(experiment, "a test", MODELS, {"judge": JUDGE}, folder / "run.json")
    for model in MODELS:
        of_model = [answer for answer in asked.answers.values() if answer.model == model]
        tracking.log_answers(runs, model, of_model, by_id, prices)
    pairs = [(by_id[question], answer) for (question, _), answer in sorted(asked.answers.items())]
    with (
        Ledger(folder / "judge.jsonl") as calls,
        Ledger(folder / "judgements.jsonl") as ledger,
        JudgeRelay(endpoint, meter, calls, patience_seconds) as relay,
    ):
        loaded = Scorers.load(scorers, f"openai:/{JUDGE}")
        found = judge(pairs, loaded, ledger, relay, runs, processes=processes)
    assessments.write_assessments(pairs, found, loaded)
    return found, meter, runs


Told = tuple[str, str, str, float | None, str]  # name, source and its kind, score, rationale


def told(runs: tracking.Runs) -> dict[tuple[str, str], list[Told]]:
    """The feedback on the traces of the runs, by question and model."""
    traces = [t for run in runs.models.values() for t in mlflow.search_traces(run_id=run, return_type="list")]
    return {
        (trace.info.tags["question_id"], trace.info.tags["model"]): sorted(
            (a.name, a.source.source_type, a.source.source_id, as_score(a.feedback.value), a.rationale or "")
            for a in trace.info.assessments
            if a.feedback is not None
        )
        for trace in traces
    }


def deserved(judged: JudgementSet) -> dict[tuple[str, str], list[Told]]:
    """The feedback that the traces should have."""
    found: dict[tuple[str, str], list[Told]] = {}
    for (question, model), judgement in judged.judgements.items():
        if question.startswith("m"):
            why = f"check number against the reference {int(question[1:]) + 1}"
            found[question, model] = [("correctness", "CODE", "number", judgement.scores["correctness"], why)]
        else:
            found[question, model] = [
                (name, "LLM_JUDGE", f"openai:/{JUDGE}", score, judgement.rationales[name])
                for name, score in sorted(judgement.scores.items())
            ]
    return found


def test_every_answer_gets_the_verdict_it_deserves_and_each_judge_call_is_counted(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    judged, meter, runs = run(fake, tmp_path, store)
    assert not judged.failures and len(judged.judgements) == 12
    for question in QUESTIONS:
        for model in MODELS:
            found = judged.judgements[question.id, model]
            assert found.score == float(fake.is_right(model, question.text)), (question.id, model)
            names = ["correctness"] if question.check else ["completeness", "correctness"]
            assert sorted(found.scores) == names
    counted = meter.usage["judge", JUDGE]
    assert [counted.input_tokens, counted.output_tokens] == fake.billed_tokens[without_effort(JUDGE)]
    assert meter.spent_usd("judge") == meter.spent_usd() > 0
    for model in MODELS:
        traces = mlflow.search_traces(run_id=runs.models[model], return_type="list")
        told = [trace.info.token_usage or {} for trace in traces]
        usage = Usage(sum(t["input_tokens"] for t in told), sum(t["output_tokens"] for t in told))
        count = len(traces)  # the judge's calls leave none
        assert count == 6 and [usage.input_tokens, usage.output_tokens] == fake.billed_tokens[model]


def test_judging_again_asks_no_judge(fake: FakeModels, tmp_path: Path, store: str) -> None:
    first, _, _ = run(fake, tmp_path, store)
    calls = len(fake.asked("judge"))
    again, meter, _ = run(fake, tmp_path, store)
    assert again.judgements == first.judgements
    assert (len(fake.asked("judge")), meter.spent_usd()) == (calls, 0.0)


def test_two_processes_judge_as_one_does(fake: FakeModels, tmp_path: Path, store: str) -> None:
    scorers = ["correctness", "completeness", f"{__name__}:brief"]
    alone, _, _ = run(fake, tmp_path / "one", store, scorers)
    requests = sorted(fake.asked("judge"))
    fake.calls.clear()
    judged, _, runs = run(fake, tmp_path / "two", store, scorers, processes=Processes(2))
    assert judged.judgements == alone.judgements and len(judged.judgements) == 12
    assert sorted(fake.asked("judge")) == requests
    for (question, _), feedback in told(runs).items():
        assert len(feedback) == (2 if question.startswith("m") else 3)


def test_each_verdict_is_on_its_trace_once_whether_judged_or_checked(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    judged, _, runs = run(fake, tmp_path, store)
    assert len(judged.judgements) == 12 and told(runs) == deserved(judged)


def test_a_question_that_is_judged_in_two_runs_has_each_verdict_once(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    fake.faults.garbage_verdicts = 0.5  # so that there are further rounds, too
    first, _, runs = run(fake, tmp_path / "one", store)
    assert told(runs) == deserved(first)
    second, meter, runs = run(fake, tmp_path / "two", store)  # with no verdict of the first kept
    assert meter.calls["judge", JUDGE] > 0 and told(runs) == deserved(second)
    tracking.close_runs(runs)
    again, meter, others = run(fake, tmp_path / "two", store)  # with all verdicts kept
    assert others.parent != runs.parent and not meter.usage
    assert again.judgements == second.judgements and told(others) == told(runs) == deserved(second)


def test_kept_verdicts_reach_a_store_that_is_new(fake: FakeModels, tmp_path: Path, store: str) -> None:
    run(fake, tmp_path, store)
    kept, meter, runs = run(fake, tmp_path, f"sqlite:///{tmp_path}/new.db")
    assert not meter.usage and told(runs) == deserved(kept)


def test_what_a_person_says_of_an_answer_stays(fake: FakeModels, tmp_path: Path, store: str) -> None:
    judged, _, runs = run(fake, tmp_path, store)
    for trace in mlflow.search_traces(run_id=runs.models["gpt-4o"], return_type="list"):
        by = AssessmentSource("HUMAN", "me")
        its = next(a for a in trace.info.assessments if a.name == "correctness")
        mlflow.override_feedback(
            trace_id=trace.info.trace_id, assessment_id=its.assessment_id, value="no", source=by, rationale="It is not."
        )
    run(fake, tmp_path / "again", store)
    wanted = deserved(judged)
    for at in wanted:
        if at[1] == "gpt-4o":
            wanted[at] = sorted([*wanted[at], ("correctness", "HUMAN", "me", 0.0, "It is not.")])
    assert told(runs) == wanted
    for trace in mlflow.search_traces(run_id=runs.models["gpt-4o"], return_type="list"):
        assert [a.source.source_type != "HUMAN" for a in trace.info.assessments if a.valid is False] == [True]


def test_a_verdict_that_is_no_longer_true_is_replaced(fake: FakeModels, tmp_path: Path, store: str) -> None:
    judged, _, runs = run(fake, tmp_path, store)
    question = next(question for question in QUESTIONS if question.id == "m1")
    trace = next(
        t
        for t in mlflow.search_traces(run_id=runs.models["gpt-4o"], return_type="list")
        if t.info.tags["question_id"] == "m1"
    )
    with Ledger(tmp_path / "answers.jsonl") as ledger:
        rows = {key: ledger.get(key) or {} for key in ledger}
    answers = [Answer.from_row(key, row, "m1") for key, row in rows.items()]
    answer = next(each for each in answers if tracking.trace_id(each) == trace.info.trace_id)
    other = replace(question, check=parse_check("contains", "seven"))
    assessments.write_assessments(
        [(other, answer)], JudgementSet({}, {}), Scorers.load(["correctness"], f"openai:/{JUDGE}")
    )
    why = 'check contains against the reference "seven"'
    assert told(runs)["m1", "gpt-4o"] == [("correctness", "CODE", "contains", 0.0, why)]
    assert judged.judgements["m1", "gpt-4o"].score == 1.0


def test_a_verdict_that_is_none_is_asked_for_again(fake: FakeModels, tmp_path: Path, store: str) -> None:
    fake.faults.garbage_verdicts = 0.5
    judged, _, _ = run(fake, tmp_path, store)
    assert not judged.failures and len(judged.judgements) == 12


def test_what_gets_no_verdict_is_named_and_never_leaves_a_mean_unseen(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    fake.faults.always_garbage = True
    judged, meter, runs = run(fake, tmp_path, store)
    assert len(judged.judgements) == 4 and len(judged.failures) == 8
    assert "no verdict after 3 rounds" in judged.failures["f0", "gpt-4o"]
    assert all(len(found) == (1 if question.startswith("m") else 2) for (question, _), found in told(runs).items())
    assert meter.calls["judge", JUDGE] == len(fake.asked("judge"))  # garbage is paid for too


def test_a_judge_that_is_away_stops_the_calibration_within_a_minute(
    fake: FakeModels, tmp_path: Path, store: str
) -> None:
    fake.faults.judge_out = True
    began = time.monotonic()
    with pytest.raises(StoppedError, match=r"did not answer for .*run the same command again"):
        run(fake, tmp_path, store, patience_seconds=1.0)
    assert time.monotonic() - began < 60
    fake.faults.judge_out = False
    judged, _, _ = run(fake, tmp_path, store)
    assert len(judged.judgements) == 12 and len(fake.asked("answer")) == 12


def test_the_judge_keeps_within_the_budget(fake: FakeModels, tmp_path: Path, store: str) -> None:
    meter = Meter(load_prices(), budget_usd=0.0005)
    with pytest.raises(BudgetError):
        run(fake, tmp_path, store, meter=meter)
    assert 0 < meter.spent_usd() <= 0.0005
    judged, rest, _ = run(fake, tmp_path, store)
    assert len(judged.judgements) == 12
    assert meter.calls["judge", JUDGE] + rest.calls["judge", JUDGE] == len(fake.asked("judge"))


def test_scorers_of_the_users_own_are_used_by_import_path(fake: FakeModels, tmp_path: Path, store: str) -> None:
    for _ in range(2):
        judged, _, runs = run(fake, tmp_path, store, ["correctness", f"{__name__}:brief"])
        its = [(name, kind, source, score) for name, kind, source, score, _ in told(runs)["m0", "gpt-4o-mini"]]
        assert its == [("brief", "CODE", "brief", 1.0), ("correctness", "CODE", "number", 0.0)]
    assert judged.judgements["f0", "gpt-4o"].scores == {"correctness": 1.0, "brief": 1.0}
    assert judged.judgements["m0", "gpt-4o-mini"].scores == {"correctness": 0.0, "brief": 1.0}


@pytest.mark.parametrize(
    "path", ["no.such.module:x", "calibration.judging.judgements:nothing", f"{__name__}:NOT_A_SCORER", "x"]
)
def test_a_scorer_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ScorerError, match="scorer"):
        Scorers.load([path], JUDGE)
