"""Questions are read from several formats, and an error names the location and the problem."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from calibration.checks import checks
from calibration.outcomes import InputError, read_outcomes
from calibration.questions.questions import DEFAULT_SYSTEM_PROMPT, parse, read
from calibration.questions.sources import QuestionError

ROW = {"id": "a", "question": "What is a deadlock?", "expected_facts": ["two wait for each other"]}

TOOL = {"name": "book", "arguments": {"city": "Oslo", "nights": {"any": [2, None]}}}
ACCEPTS = [
    (
        "number",
        391,
        ["391", "So it is **391**.", "17 * 23 = 391", "Answer: 391\nsince 17 * 20 is 340", "391.0", "\\boxed{391}"],
    ),
    ("number", -1250, ["-1,250", "The answer is $-1250.00."]),
    ("number", "3/4", ["0.75", "Answer: 3/4"]),
    (
        "choice",
        "B",
        ["B", "B) because A is too small", "**B**", "The answer is (B).", "Answer: B", "\\boxed{B}", "Option B"],
    ),
    ("choice", "A", ["A", "A.", "The answer is A"]),
    ("exact", ["positive", "pos"], ["Positive.", " **positive** ", "Answer: positive", '"pos"']),
    ("contains", ["Paris", ["Seine", "river"]], ["paris lies on the Seine", "It is **Paris**, by a river."]),
    ("contains", "250", ["It costs 250.", "250, no more"]),
    ("json", {"a": [1, 2], "b": None}, ['{"b": null, "a": [1, 2.0]}', 'Here:\n```json\n{"a":[1,2],"b":null}\n```']),
    ("tool_call", TOOL, [json.dumps([{"name": "book", "arguments": {"city": " oslo"}}])]),
    ("tool_call", [], ["[]", "No tool is needed."]),
]
REJECTS = [
    (
        "number",
        391,
        ["390", "3910", "39.1", "-391", "391 is not it; Answer: 392", "", "three hundred", "1391", "391,000"],
    ),
    ("number", 0.5, ["5", "0.05", "1/20", ".4"]),
    ("choice", "B", ["C", "A or B", "B or C", "Answer: A, not B", "", "b-sides", "I like A. B is wrong too", "BC"]),
    ("exact", ["positive"], ["negative", "not positive", "positive or negative", "", "positively"]),
    ("contains", ["Paris", ["Seine", "river"]], ["Paris", "Parisian Seine", "comparison of rivers"]),
    ("contains", "250", ["1,250", "2500", "250.5", "x250"]),
    (
        "json",
        {"a": [1, 2]},
        ['{"a": [2, 1]}', '{"a": [1, 2], "b": 3}', '{"a": "[1, 2]"}', "none", '{"a":[1,2]} or {"a":[1]}'],
    ),
    ("json", {"a": True}, ['{"a": 1}', '{"a": "true"}', '{"A": true}']),
    ("tool_call", TOOL, ["[]", json.dumps([{"name": "book", "arguments": {"city": "Bergen"}}]), "Oslo"]),
    ("tool_call", TOOL, [json.dumps([{"name": "book", "arguments": {"city": "Oslo", "nights": 3}}])]),
    ("tool_call", TOOL, [json.dumps([{"name": "book", "arguments": {"city": "Oslo", "pets": 1}}])]),
    ("tool_call", [], [json.dumps([{"name": "book", "arguments": {}}])]),
]


@pytest.mark.parametrize(("name", "reference", "answers"), ACCEPTS)
def test_a_check_accepts_correct_answers(name: str, reference: object, answers: list[str]) -> None:
    check = checks.parse_check(name, reference)
    assert [answer for answer in answers if not check.passes(answer)] == []
    assert check.passes(check.accepted_answer())


@pytest.mark.parametrize(("name", "reference", "answers"), REJECTS)
def test_a_check_rejects_near_misses(name: str, reference: object, answers: list[str]) -> None:
    check = checks.parse_check(name, reference)
    assert [answer for answer in answers if check.passes(answer)] == []


@pytest.mark.parametrize(
    "text", ["1e999999999", "-2.5E+99999", "1e-999999999", "1e9_999_999", "1e99 999 999", "1e００００９９"]
)
def test_a_number_with_an_excessive_exponent_is_rejected(text) -> None:
    with pytest.raises(checks.CheckError, match="is not a number"):
        checks.parse_check("number", text)
    assert not checks.parse_check("number", 7).passes(f"The answer is {text}.")
    assert checks.parse_check("number", "1e300").passes("The answer is 1e300.")


def test_a_number_may_be_off_by_its_tolerance_and_no_more() -> None:
    check = checks.parse_check("number", 3.14, tolerance=0.01)
    assert check.passes("about 3.15") and not check.passes("about 3.16")


def test_a_pattern_matches_the_whole_answer() -> None:
    check = checks.parse_check("regex", r"(\w+ ){4}\w+\.", example="Five words are in here.")
    assert check.passes(" One two three four five.\n") and not check.passes("One two three four five. And more.")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"id": "a", "expected_facts": ["x"]}, '"question" is missing'),
        ({"id": "a", "question": "?"}, '"expected_facts" is missing'),
        ({**ROW, "expected_facts": []}, "not a list of texts"),
        ({**ROW, "expected_facts": "x"}, "not a list of texts"),
        ({**ROW, "reference": 1}, "exclude each other"),
        ({**ROW, "messages": []}, "exclude each other"),
        ({"question": "?", "reference": 1}, 'needs a "check"'),
        ({"question": "?", "reference": "x", "check": "number"}, "is not a number"),
        ({"question": "?", "reference": "AB", "check": "choice"}, "one letter"),
        ({"question": "?", "reference": "(", "check": "regex", "example": "("}, "not a pattern"),
        ({"question": "?", "reference": "a", "check": "regex", "example": "b"}, "does not match"),
        ({"question": "?", "reference": {}, "check": "tool_call"}, "expected"),
        ({"question": "?", "reference": 1, "check": "vibes"}, "not one of"),
        ({**ROW, "expected_fact": 1}, "unknown field 'expected_fact'"),
        (
            {"messages": [{"role": "assistant", "content": "x"}], "expected_facts": ["x"]},
            "does not end with a user turn",
        ),
    ],
)
def test_the_error_of_an_invalid_row_names_the_problem(row: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse(row)


def test_an_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps({**ROW, "id": "b", "expected_facts": None}) + "\n")
    with pytest.raises(QuestionError, match=rf"{path}:3: \"expected_facts\" is missing"):
        read(str(path))
    path.write_text(json.dumps(ROW) + "\n{oops\n")
    with pytest.raises(QuestionError, match=rf"{path}:2: not JSON"):
        read(str(path))


@pytest.mark.parametrize(("change", "kind"), [({}, "id"), ({"id": "b"}, "question")])
def test_a_repeated_question_is_an_error(tmp_path: Path, change: dict[str, str], kind: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, **change}) + "\n")
    with pytest.raises(QuestionError, match=rf":2: the same {kind} as {path}:1"):
        read(str(path))


def test_csv_and_other_formats_give_the_same_questions(tmp_path: Path) -> None:
    rows = [ROW, {"id": "b", "question": "2 + 2?", "reference": 4, "check": "number"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "q.csv").write_text(
        "id,question,expected_facts,reference,check\n"
        'a,What is a deadlock?,"two wait for each other",,\nb,2 + 2?,,4,number\n'
    )
    pd.DataFrame([{**row, "reference": str(row.get("reference", ""))} for row in rows]).to_parquet(
        tmp_path / "q.parquet"
    )
    (tmp_path / "q.json").write_text(json.dumps(rows))
    expected = read(str(tmp_path / "q.jsonl"))
    for name in ("q.csv", "q.parquet", "q.json"):
        assert read(str(tmp_path / name)) == expected, name


def test_a_csv_error_names_the_line_and_not_the_row(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('id,question,expected_facts\na,"What is\na deadlock?",x\nb,,x\n')
    with pytest.raises(QuestionError, match=rf"{path}:4: \"question\" is missing"):
        read(str(path))


def test_the_format_of_mlflow_is_read() -> None:
    question = parse({"inputs": {"question": "Why?"}, "expectations": {"expected_facts": ["because"]}})
    assert question.expected_facts == ("because",)
    assert [message["role"] for message in question.messages] == ["system", "user"]
    assert question.id.startswith("q-")


def test_a_row_overrides_the_default_system_prompt() -> None:
    assert parse(ROW).messages[0]["content"] == DEFAULT_SYSTEM_PROMPT
    assert [message["role"] for message in parse({**ROW, "system": ""}).messages] == ["user"]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert parse({"messages": messages, "expected_facts": ["x"]}).messages == messages


def test_the_shipped_questions_begin_with_the_six_of_the_specification() -> None:
    texts = [question.text for question in read("data/questions.jsonl")[:6]]
    assert texts == [
        "What is a database index?",
        "Explain the CAP theorem in distributed systems.",
        "What is the difference between TCP and UDP?",
        "How does garbage collection work in Java?",
        "What is a race condition?",
        "Explain how TLS/SSL handshake works.",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.jsonl", b"\xff\xfe{}\n"),
        ("q.jsonl.gz", b"no gzip at all"),
        ("q.jsonl.gz", gzip.compress(b'{"question": "?"}\n' * 999, mtime=0)[:-20]),
        ("q.jsonl", b"[" * 100_000),
        ("q.jsonl", b'{"question": "?", "reference": 1, "check": {}}'),
        ("q.jsonl", b'{"question": "?", "reference": 1, "check": ["number"]}'),
        ("q.jsonl", b'{"messages": [{"role": {}, "content": 1}], "reference": "1", "check": "number"}'),
        ("q.csv", b"question,reference,check,tolerance\n?,1,number,much\n"),
        ("q.csv", b"question\n\x00\xff\n"),
        ("q.parquet", b"PAR1 is no parquet"),
        ("q.xlsx", b"PK is no workbook"),
        ("q.json", b"{"),
    ],
)
def test_the_error_of_a_damaged_file_names_the_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(QuestionError) as error:
        read(str(tmp_path / name))
    assert str(tmp_path / name) in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"question_type": 3},
        {"tools": {}},
        {"tools": ["search"]},
        {"expected_facts": "facts"},
        {"outcomes": {"m": {"score": 1, "output_tokens": "many"}}},
        {"outcomes": {"m": {"score": 1, "input_tokens": -1}}},
        {"outcomes": {"m": {"score": float("nan")}}},
        {"outcomes": {"m": []}},
        {"messages": ["hello"]},
    ],
)
def test_the_error_of_an_invalid_outcome_names_file_and_line(tmp_path, change):
    row = {"id": "a", "messages": [{"role": "user", "content": "?"}], "outcomes": {"m": {"score": 1}}}
    path = tmp_path / "o.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "b", **change}) + "\n")
    with pytest.raises(InputError, match=r"o\.jsonl:2: "):
        read_outcomes([path])
