"""Any file of questions or outcomes is read, or rejected by a one-line error that names file and line."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from calibration.learning.learning import build_examples
from calibration.ledger import Ledger, LedgerError
from calibration.outcomes import InputError, read_outcomes
from calibration.policies import load_prices
from calibration.questions.questions import read
from calibration.questions.sources import QuestionError
from router.policy.prices import PriceError

CALL = [{"name": "look", "arguments": {"at": "x"}}]
QUESTIONS = [
    {"id": "a", "question": "2+2?", "reference": 4, "check": "number", "tolerance": 0.1, "system": "Be short."},
    {"id": "b", "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}]}], "expected_facts": ["x"]},
    {"id": "c", "question": "?", "reference": CALL, "check": "tool_call", "tools": [{"function": {"name": "look"}}]},
    {"question": "?", "reference": [["a", "b"], "c"], "check": "contains", "question_type": "x/y", "language": "de"},
    {"question": "?", "reference": "a+", "check": "regex", "example": "aa"},
    {"question": "?", "reference": ["a"], "check": "exact"},
    {"question": "?", "reference": {"a": 1}, "check": "json"},
    {"question": "?", "reference": "A", "check": "choice"},
    {"inputs": {"question": "?"}, "expectations": {"expected_response": "x"}},
]
RESULT = {"score": 0.5, "answer": "x", "input_tokens": 3, "output_tokens": 4}
OUTCOME = {
    **{"id": "a", "question_type": "x/y", "source": "here", "tools": [{"function": {"name": "look"}}]},
    **{"messages": [{"role": "user", "content": "?"}], "reference": "x", "expected_facts": ["x"]},
    "outcomes": {"cheap": RESULT, "strong": RESULT},
}
DEEP: Any = json.loads("[" * 600 + "]" * 600)
ODD = [{}, [], "", 0, -1, 10**400, float("inf"), float("nan"), True, None, "\ud800", DEEP, [{}], [[]], {"a": {}}, "("]


def changed(value: Any) -> Iterator[Any]:
    """Variants of a value, each with one part replaced by an unusual value."""
    yield from ODD
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []:
        for other in changed(value[key]):
            copy = value.copy()
            copy[key] = other
            yield copy


@pytest.mark.filterwarnings("ignore:Possible nested set")  # of a pattern in a row
def test_any_question_row_is_read_or_rejected_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    refused = 0
    for row in (row for question in QUESTIONS for row in changed(question)):
        path.write_text("\n" + json.dumps(row) + "\n")
        try:
            read(str(path))
        except QuestionError as error:
            refused += 1
            assert str(error).startswith(f"{path}:2: "), row
    assert refused > 500


def test_any_outcome_row_is_read_or_rejected_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    refused = 0
    for row in changed(OUTCOME):
        path.write_text(json.dumps({**OUTCOME, "id": "b"}) + "\n" + json.dumps(row) + "\n")
        try:
            outcomes = read_outcomes([path], ["cheap", "strong"])
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}:2: "), row
        else:
            build_examples(outcomes, ["cheap", "strong"])
    assert refused > 100


ROW = json.dumps(QUESTIONS[0]).encode()
DAMAGED: dict[str, tuple[str, bytes]] = {
    "no UTF-8": ("x.jsonl", ROW + b"\n\xff\n"),
    "no UTF-8 in CSV": ("x.csv", b"question,expected_response\n\xff,x\n"),
    "no gzip": ("x.jsonl.gz", ROW),
    "half a gzip": ("x.jsonl.gz", gzip.compress(ROW * 100)[:60]),
    "damaged gzip": ("x.jsonl.gz", gzip.compress(ROW)[:20] + b"\xff" * 20 + gzip.compress(ROW)[40:]),
    "half a gzip of CSV": ("x.csv.gz", gzip.compress(b"question,expected_response\n" * 9)[:25]),
    "a cell without end": ("x.csv", b'question,expected_response\n"' + b"x" * 200_000 + b"\n"),
    "too deep": ("x.jsonl", b"[" * 100_000),
    "too long a number": ("x.jsonl", b'{"reference":' + b"1" * 5000 + b"}"),
    "a tolerance that is none": ("x.csv", b"question,reference,check,tolerance\n?,4,number,much\n"),
    "too deep a cell": ("x.csv", b"question,expected_response,tools\n?,x," + b"[" * 20_000 + b"\n"),
    "no JSON": ("x.json", b"\xff{"),
    "no parquet": ("x.parquet", b"PAR1 and nothing else"),
    "no table": ("x.xlsx", b"PK\x03\x04 and nothing else"),
    "no feather": ("x.feather", b"FEA1 and nothing else"),
}


@pytest.mark.parametrize(("name", "content"), DAMAGED.values(), ids=DAMAGED)
def test_the_error_of_a_damaged_file_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(QuestionError, match=rf"^{re.escape(str(path))}[:,]") as error:
        read(str(path))
    assert "\n" not in str(error.value)
    if name.startswith("x.jsonl"):
        with pytest.raises(InputError, match=rf"^{re.escape(str(path))}:"):
            read_outcomes([path])


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"3", b"\xff", b'{"models":{"a":{"tiers":3}}}'])
def test_the_error_of_any_other_damaged_json_file_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content + b"\n")
    readers: list[tuple[type[Exception], Callable[[], object]]] = [
        (LedgerError, lambda: Ledger(path)),
        (PriceError, lambda: load_prices(path)),
    ]
    for error, reading in readers:
        if content.startswith(b"{") and error is LedgerError:
            continue  # a row without a key
        with pytest.raises(error, match=re.escape(str(path))):
            reading()
