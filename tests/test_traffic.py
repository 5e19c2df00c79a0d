import json
import random
from collections import Counter

import pytest
from made_records import made_record

from calibration.questions.questions import read
from calibration.traffic.sampling import Asked, Opinion, sample
from calibration.traffic.traffic import TrafficError, question_of, read_since
from router.exporter.shipping import drain, shippers_for
from router.journal.writer import Feedback, Journal
from router.settings import load


def traffic(counts: dict[str, int], chance: random.Random) -> list[Asked]:
    made = []
    for kind, count in counts.items():
        for number in range(count):
            gap = chance.uniform(0, 0.2)
            reason = "strong_is_better" if gap > 0.08 else "cheap_is_enough"
            made.append(Asked(f"{kind}-{number}", kind, reason, gap))
    return made


def test_a_sample_is_even_over_types_and_takes_all_of_a_rare_one():
    chosen = sample(traffic({"math": 500, "code": 300, "poems": 7}, random.Random(1)), 107, random.Random(2))
    assert Counter(asked.question_type for asked in chosen) == {"math": 50, "code": 50, "poems": 7}
    assert len({asked.trace_id for asked in chosen}) == 107


def test_half_of_a_type_is_what_the_policy_was_least_sure_of():
    everything = traffic({"math": 1000}, random.Random(1))
    chosen = sample(everything, 100, random.Random(2))
    near = sum(abs(asked.gap - 0.08) < 0.02 for asked in chosen)
    assert near > 55  # of which half by intent, and the others by chance: a fifth of all lie there
    assert near < 75


def test_what_rests_on_no_evidence_counts_as_unsure():
    everything = [Asked("new", "math", "novel", 0.9), *traffic({"math": 200}, random.Random(1))]
    assert "new" in {asked.trace_id for asked in sample(everything, 20, random.Random(2))}


def test_what_users_spoke_about_is_always_in_the_sample():
    told = Asked("told", "math", "cheap_is_enough", 0.0, (Opinion(0.0, "wrong"),))
    for seed in range(5):
        chosen = sample([*traffic({"math": 100}, random.Random(1)), told], 5, random.Random(seed))
        assert told in chosen
        assert len(chosen) == 5


def test_the_same_seed_gives_the_same_sample():
    everything = traffic({"math": 100, "code": 100}, random.Random(1))
    assert sample(everything, 20, random.Random(3)) == sample(everything, 20, random.Random(3))


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7y", "0d"])
def test_a_length_of_time_that_cannot_be_read_is_refused(text):
    with pytest.raises(TrafficError, match="7d"):
        read_since(text)


def test_only_a_liked_answer_says_what_is_right():
    request = {"model": "auto", "messages": [{"role": "user", "content": "2+2?"}]}
    response = {"choices": [{"message": {"role": "assistant", "content": "4"}}]}

    def made(*opinions):
        return question_of(Asked("t", "math", "novel", 0.1, opinions), request, response)

    row, ready = made(Opinion(1.0, "yes"))
    assert ready
    assert row["expected_response"] == "4"
    for opinions in ((), (Opinion(0.0, "no"),)):
        row, ready = made(*opinions)
        assert not ready
        assert "expected_response" not in row
    assert "no" in row["note"]
    assert question_of(Asked("t", "math", "novel", 0.1), None, response) is None


def test_traffic_comes_back_from_mlflow_as_questions_that_calibration_reads(tmp_path, store_with_tables, monkeypatch):
    from typer.testing import CliRunner

    from calibration.__main__ import app

    home = tmp_path / "home"
    settings = load(home=home, mlflow_tracking_uri=store_with_tables(home))
    journal = Journal(home / "journal")
    import time

    now = time.time_ns()
    for number in range(12):
        times = {"started_unix_ns": now - 10**9, "first_byte_unix_ns": now, "ended_unix_ns": now}
        request = {"model": "auto", "messages": [{"role": "user", "content": f"What is {number} + 1?"}]}
        response = {"choices": [{"message": {"role": "assistant", "content": f"It is {number + 1}."}}]}
        kind = "math/sums" if number % 2 else "facts/numbers"
        record = made_record(number, question_type=kind, gap=number / 100, request=request, response=response, **times)
        journal.append(record)
    again = {"started_unix_ns": now - 10**9, "first_byte_unix_ns": now, "ended_unix_ns": now, "response": response}
    for number, same in ((20, 3), (21, 3), (22, 5)):  # what others asked before
        request = {"model": "auto", "messages": [{"role": "user", "content": f"What is {same} + 1?"}]}
        journal.append(made_record(number, question_type="math/sums", gap=0.0, request=request, **again))
    for number, thumbs in ((3, "up"), (20, "up"), (4, "down")):
        trace = made_record(number).trace_id
        score = float(thumbs == "up")
        journal.append(Feedback(feedback_id=f"{number:032x}", trace_id=trace, unix_ns=now, score=score, thumbs=thumbs))
    journal.close()
    drain(shippers_for(settings)[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.tracking_uri)
    monkeypatch.setenv("ROUTER_HOME", str(home))
    out = tmp_path / "traffic.jsonl"
    result = CliRunner().invoke(app, ["from-traces", "--since", "1h", "--sample", "15", "--out", str(out)])
    assert result.exit_code == 0, result.output
    questions = read(str(out))
    assert [question.question_type for question in questions] == ["math/sums"]
    assert questions[0].text == "What is 3 + 1?" and questions[0].expected_response
    review = [json.loads(line) for line in (tmp_path / "traffic.review.jsonl").read_text().splitlines()]
    assert len(review) == 11  # each question once, and none whose answer somebody liked
    assert "3 were asked before" in result.output
    assert sum("score of the answer: 0" in row.get("note", "") for row in review) == 1
