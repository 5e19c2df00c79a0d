"""Files of questions and outcomes: read, or rejected by an error that names the file."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from calibration.outcomes import InputError, read_outcomes
from calibration.questions.questions import read
from calibration.questions.sources import QuestionError
from fuzz.inputs import changed_examples, inputs
from fuzz.targets import Target

GZIP = b"\x1f\x8b"
EXAMPLES = (
    b'{"id":"a","question_type":"t","question":"What is 1 + 1?","reference":2,"check":"number","tolerance":0.5}\n'
    b'{"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}],"expected_facts":["hello"],"tools":[]}\n',
    b'{"inputs":{"question":"a?"},"expectations":{"expected_facts":["x"]}}\n\n'
    b'{"question":"b?","reference":"A","check":"choice","system":"","language":"de"}\n'
    b'{"question":"c?","reference":["a",["b","c"]],"check":"contains"}\n',
    b'{"question":"d?","reference":"a+b","check":"regex","example":"aab"}\n'
    b'{"question":"e?","reference":{"a":[1,true]},"check":"json"}\n'
    b'{"question":"f?","reference":{"name":"f","arguments":{"a":{"any":[1,null]}}},"check":"tool_call"}\n',
    b'question,reference,check,tolerance\nWhat is 1 + 1?,2,number,0.1\n"two\nlines","[""a"",""b""]",exact,\n',
    b'id,question,expected_facts,messages,tools\n1,Hi?,"[""a""]",,\n'
    b'2,,one fact,"[{""role"":""user"",""content"":""?""}]",\n',
    b'{"id":"a","messages":[{"role":"user","content":"?"}],"outcomes":{"m":{"score":1,"output_tokens":3}}}\n'
    b'{"id":"b","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"question_type":"t",'
    b'"outcomes":{"m":{"score":0.5,"answer":"x"}},"expected_facts":["y"]}\n',
    b'[{"id":"a","question":"?","expected_response":"yes"},{"id":"b","question":"!","reference":3,"check":"number"}]',
)
PIECES = (
    *(b'"check":"number"', b'"check":"regex","example":"a"', b'"check":"json"', b'"check":"exact"', b'"reference":'),
    *(b'"question":"?",', b'"tolerance":', b'"score":', b'"content":', b'"id":"a",', b"\t", b'"\n', b"messages,"),
    *(b'"1/0"', b'"1e9999999"', b'"**"', b'"\\u0000"', b'"A"', b'"\xc2\xbd"', b'"any":[null]'),
)  # fmt: skip


def _check_questions(path: Path) -> None:
    try:
        for question in read(str(path)):
            assert question.id and isinstance(question.text, str)
            if question.check is not None:
                question.check.passes("The answer is 5.")
    except QuestionError as error:
        assert str(path) in str(error), f"no name of the file in {error}"


def _check_outcomes(path: Path) -> None:
    try:
        for outcome in read_outcomes([path]):
            assert outcome.id and isinstance(outcome.text, str)
    except InputError as error:
        assert str(path) in str(error), f"no name of the file in {error}"


def _check_in(folder: Path, data: bytes) -> None:
    kinds = ("jsonl.gz", "csv.gz") if data.startswith(GZIP) else ("jsonl", "csv", "tsv", "json")
    for kind in kinds:
        path = folder / f"rows.{kind}"
        path.write_bytes(data)
        _check_questions(path)
        if kind.startswith("jsonl"):
            _check_outcomes(path)


@contextmanager
def open_target() -> Iterator[Target]:
    """The target, with a folder for its files."""
    packed = st.builds(lambda text: gzip.compress(text, 1, mtime=0), changed_examples(EXAMPLES, PIECES))
    damaged = changed_examples([gzip.compress(example, mtime=0) for example in EXAMPLES])
    near = inputs(EXAMPLES, PIECES)
    with tempfile.TemporaryDirectory() as folder:
        yield Target(lambda data: _check_in(Path(folder), data), st.one_of(near, near, near, packed, damaged))
