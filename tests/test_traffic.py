import json
import random
from collections import Counter

import pytest
from synthetic_records import make_record

from calibration.questions.questions import read
from calibration.traffic.sampling import Feedback, RecordedRequest, sample_traffic
from calibration.traffic.traffic import TrafficError, build_question_row, parse_duration
from router.exporter.shipping import drain, shippers_for
from router.journal.writer import Feedback as FeedbackRecord
from router.journal.writer import Journal
from router.settings import load


def traffic(counts: dict[str, int], rng: random.Random) -> list[RecordedRequest]:
    requests = []
    for kind, count in counts.items():
        for number in range(count):
            gap = rng.uniform(0, 0.2)
            reason = "strong_is_better" if gap > 0.08 else "cheap_is_enough"
            requests.append(RecordedRequest(f"{kind}-{number}", kind, reason, gap))
    return requests


def test_a_sample_is_balanced_over_types_and_includes_all_of_a_rare_one():
    sample = sample_traffic(traffic({"math": 500, "code": 300, "poems": 7}, random.Random(1)), 107, random.Random(2))
    assert Counter(request.question_type for request in sample) == {"math": 50, "code": 50, "poems": 7}
    assert len({request.trace_id for request in sample}) == 107


def test_half_of_a_types_sample_is_the_most_uncertain_requests():
    all_requests = traffic({"math": 1000}, random.Random(1))
    sample = sample_traffic(all_requests, 100, random.Random(2))
    near = sum(abs(request.gap - 0.08) < 0.02 for request in sample)
    assert near > 55  # half are chosen for it; a fifth of the random half also qualify
    assert near < 75


def test_a_decision_without_evidence_counts_as_uncertain():
    all_requests = [RecordedRequest("new", "math", "novel", 0.9), *traffic({"math": 200}, random.Random(1))]
    assert "new" in {request.trace_id for request in sample_traffic(all_requests, 20, random.Random(2))}


def test_requests_with_feedback_are_always_in_the_sample():
    rated = RecordedRequest("rated", "math", "cheap_is_enough", 0.0, (Feedback(0.0, "wrong"),))
    for seed in range(5):
        sample = sample_traffic([*traffic({"math": 100}, random.Random(1)), rated], 5, random.Random(seed))
        assert rated in sample
        assert len(sample) == 5


def test_the_same_seed_gives_the_same_sample():
    all_requests = traffic({"math": 100, "code": 100}, random.Random(1))
    assert sample_traffic(all_requests, 20, random.Random(3)) == sample_traffic(all_requests, 20, random.Random(3))


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7y", "0d"])
def test_an_invalid_duration_is_refused(text):
    with pytest.raises(TrafficError, match="7d"):
        parse_duration(text)


def test_only_a_liked_answer_becomes_the_expected_response():
    request = {"model": "auto", "messages": [{"role": "user", "content": "2+2?"}]}
    response = {"choices": [{"message": {"role": "assistant", "content": "4"}}]}

    def build(*feedback):
        return build_question_row(RecordedRequest("t", "math", "novel", 0.1, feedback), request, response)

    row, ready = build(Feedback(1.0, "yes"))
    assert ready
    assert row["expected_response"] == "4"
    for feedback in ((), (Feedback(0.0, "no"),)):
        row, ready = build(*feedback)
        assert not ready
        assert "expected_response" not in row
    assert "no" in row["note"]
    assert build_question_row(RecordedRequest("t", "math", "novel", 0.1), None, response) is None


def test_recorded_traffic_becomes_questions_that_calibration_reads(tmp_path, create_store, monkeypatch):
    from typer.testing import CliRunner

    from calibration.__main__ import app

    home = tmp_path / "home"
    settings = load(home=home, mlflow_tracking_uri=create_store(home))
    journal = Journal(home / "journal")
    import time

    now = time.time_ns()
    for number in range(12):
        times = {"started_unix_ns": now - 10**9, "first_byte_unix_ns": now, "ended_unix_ns": now}
        request = {"model": "auto", "messages": [{"role": "user", "content": f"What is {number} + 1?"}]}
        response = {"choices": [{"message": {"role": "assistant", "content": f"It is {number + 1}."}}]}
        kind = "math/sums" if number % 2 else "facts/numbers"
        record = make_record(number, question_type=kind, gap=number / 100, request=request, response=response, **times)
        journal.append(record)
    again = {"started_unix_ns": now - 10**9, "first_byte_unix_ns": now, "ended_unix_ns": now, "response": response}
    for number, same in ((20, 3), (21, 3), (22, 5)):  # repeats of earlier questions
        request = {"model": "auto", "messages": [{"role": "user", "content": f"What is {same} + 1?"}]}
        journal.append(make_record(number, question_type="math/sums", gap=0.0, request=request, **again))
    for number, thumbs in ((3, "up"), (20, "up"), (4, "down")):
        trace = make_record(number).trace_id
        score = float(thumbs == "up")
        journal.append(
            FeedbackRecord(feedback_id=f"{number:032x}", trace_id=trace, unix_ns=now, score=score, thumbs=thumbs)
        )
    journal.close()
    drain(shippers_for(settings)[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    monkeypatch.setenv("ROUTER_HOME", str(home))
    path = tmp_path / "traffic.jsonl"
    result = CliRunner().invoke(app, ["from-traces", "--since", "1h", "--sample", "15", "--out", str(path)])
    assert result.exit_code == 0, result.output
    questions = read(str(path))
    assert [question.question_type for question in questions] == ["math/sums"]
    assert questions[0].text == "What is 3 + 1?" and questions[0].expected_response
    review = [json.loads(line) for line in (tmp_path / "traffic.review.jsonl").read_text().splitlines()]
    assert len(review) == 11  # each question once, and none with a liked answer
    assert "3 repeat another question" in result.output
    assert sum("score of the answer: 0" in row.get("note", "") for row in review) == 1
