"""Questions to calibrate on: read from a file or an MLflow dataset, each row looked over.

A row (a line of JSON, or a row of whatever else pandas reads) has:

| field | |
|---|---|
| `id` | unique text; where it is absent, a digest of the question |
| `question_type` | such as "math/arithmetic"; where it is absent, it is predicted or the questions are clustered |
| `language` | such as "de"; "en" where absent. For people; nothing is decided by it |
| `question` *or* `messages` | the text of one user turn, or the earlier turns and the last user turn in OpenAI's form |
| `system` | the system prompt; `""` for none. Absent: the default of the run, unless `messages` begins with its own |
| `tools` | tools in OpenAI's form |
| `expected_facts` | a list of texts, each to be found in a right answer; judged by Correctness and Completeness |
| *or* `expected_response` | a text that a right answer agrees with; judged alike |
| *or* `reference` and `check` | an exact answer and how to compare (`calibration/checks.py`); with `tolerance`, `example` where it says |

```json
{"id": "cs/1", "question_type": "facts/simple", "question": "What is a database index?", "expected_facts": ["..."]}
{"id": "a/7", "question_type": "math/arithmetic", "system": "", "question": "What is 17 * 23?", "reference": 391, "check": "number"}
```

The document's own form, `{"inputs": {"question": ...}, "expectations": {"expected_facts": [...]}}`, is read as well, which
is also that of MLflow's datasets. In CSV, `expected_facts` is a JSON list or one fact a line, the others as in JSON.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration import checks
from router.policy.features import RequestError, read_question

DEFAULT_SYSTEM_PROMPT = (
    "You are a senior software engineer. Answer technical questions accurately and concisely in 2-4 sentences."
)
FIELDS = frozenset(
    [
        "id",
        "question_type",
        "language",
        "question",
        "messages",
        "system",
        "tools",
        "expected_facts",
        "expected_response",
        "reference",
        "check",
        "tolerance",
        "example",
        "source",
        "note",
        "difficulty",
    ]
)
MLFLOW_DATASET = "mlflow:"  # a source of this form names a dataset of the tracking server


class QuestionError(ValueError):
    """A row does not fit; says where, and what is missing."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every model, and how an answer is known to be right."""

    id: str
    messages: Sequence[Mapping[str, Any]]  # as they are sent, the system prompt included
    question_type: str | None = None
    language: str = "en"
    tools: Sequence[Mapping[str, Any]] = ()
    expected_facts: Sequence[str] = ()
    expected_response: str | None = None
    check: checks.Check | None = None

    @property
    def text(self) -> str:
        """The last user turn, for people and judges."""
        turns = [content_text(m.get("content")) for m in self.messages if m.get("role") == "user"]
        return turns[-1] if turns else ""


def read(source: str, system: str = DEFAULT_SYSTEM_PROMPT) -> list[Question]:
    """The questions of a file or of `mlflow:NAME`; rows without a system prompt get `system`.

    Raises:
        QuestionError: the first row that does not fit, with file and line.
    """
    questions: list[Question] = []
    ids: dict[str, str] = {}
    texts: dict[str, str] = {}
    for where, row in _rows(source):
        try:
            question = parse(row, system)
        except ValueError as error:
            raise QuestionError(where, str(error)) from error
        for seen, key, what in ((ids, question.id, "id"), (texts, _digest(question), "question")):
            if key in seen:
                raise QuestionError(where, f"the same {what} as {seen[key]}")
            seen[key] = where
        questions.append(question)
    if not questions:
        raise QuestionError(source, "no questions in it")
    return questions


def parse(row: Mapping[str, Any], system: str = DEFAULT_SYSTEM_PROMPT) -> Question:
    """One row as a question.

    Raises:
        ValueError: what is missing, or does not fit.
    """
    row = _flat(row)
    unknown = sorted(set(row) - FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(FIELDS))}")
    messages = _messages(row, system)
    tools = row.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError('"tools" is not a list of tools')
    try:
        read_question(messages, tools)
    except RequestError as error:
        raise ValueError(str(error)) from error
    facts, response, check = _expectation(row)
    question = Question(
        id=_text(row, "id") or "",
        messages=messages,
        question_type=_text(row, "question_type"),
        language=_text(row, "language") or "en",
        tools=tools,
        expected_facts=facts,
        expected_response=response,
        check=check,
    )
    if question.id:
        return question
    return Question(
        **{**{name: getattr(question, name) for name in Question.__slots__}, "id": "q-" + _digest(question)[:12]}
    )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without its empty cells, and with MLflow's `inputs` and `expectations` unpacked."""
    flat = {name: value for name, value in row.items() if not _empty(value)}
    for nested in ("inputs", "expectations"):
        inner = flat.pop(nested, None)
        if inner is not None:
            if not isinstance(inner, Mapping):
                raise ValueError(f'"{nested}" is not an object')
            flat.update({name: value for name, value in inner.items() if not _empty(value)})
    return flat


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, str) and not value.strip()):
        raise ValueError(f'"{name}" is not a text')
    return str(value)


def _messages(row: Mapping[str, Any], system: str) -> list[Mapping[str, Any]]:
    if ("question" in row) == ("messages" in row):
        raise ValueError(
            'one of "question" and "messages" is needed'
            if "question" not in row
            else '"question" and "messages" exclude each other'
        )
    if "question" in row:
        messages: list[Mapping[str, Any]] = [{"role": "user", "content": _text(row, "question")}]
    else:
        messages = row["messages"]
        if not isinstance(messages, list) or not all(isinstance(m, Mapping) and m.get("role") for m in messages):
            raise ValueError('"messages" is not a list of {"role", "content"}')
        if not messages or messages[-1]["role"] not in ("user", "tool"):
            raise ValueError('"messages" does not end with a turn of the user')
    prompt = row.get("system", system)
    if not isinstance(prompt, str):
        raise ValueError('"system" is not a text')
    has_own = any(m["role"] in ("system", "developer") for m in messages)
    if has_own and row.get("system"):
        raise ValueError('"system" is given, and "messages" has a system prompt of its own')
    return messages if has_own or not prompt else [{"role": "system", "content": prompt}, *messages]


def _expectation(row: Mapping[str, Any]) -> tuple[Sequence[str], str | None, checks.Check | None]:
    given = [name for name in ("expected_facts", "expected_response", "reference") if name in row]
    if not given:
        raise ValueError('"expected_facts" is missing (or "expected_response", or "reference" with "check")')
    if len(given) > 1:
        raise ValueError(f'"{given[0]}" and "{given[1]}" exclude each other')
    if given[0] == "reference":
        if "check" not in row:
            raise ValueError('"reference" needs a "check" that says how to compare')
        return (), None, checks.parse(row["check"], row["reference"], row.get("tolerance"), row.get("example"))
    if "check" in row:
        raise ValueError('"check" needs a "reference"')
    if given[0] == "expected_response":
        return (), _text(row, "expected_response"), None
    facts = row["expected_facts"]
    if not isinstance(facts, list) or not facts or not all(isinstance(fact, str) and fact.strip() for fact in facts):
        raise ValueError('"expected_facts" is not a list of texts')
    return tuple(facts), None, None


def content_text(content: Any) -> str:
    """The text of a message's content, whether given whole or in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, Mapping) and part.get("text"))


def _digest(question: Question) -> str:
    asked = json.dumps([list(question.messages), list(question.tools)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()


def _rows(source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows with where they stand, for messages about them."""
    if source.startswith(MLFLOW_DATASET):
        yield from _dataset_rows(source.removeprefix(MLFLOW_DATASET))
        return
    path = Path(source)
    if not path.is_file():
        raise QuestionError(source, "no such file")
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind in (".jsonl", ".ndjson"):
        yield from _json_lines(path)
    elif kind in (".csv", ".tsv"):
        yield from _csv_rows(path, "\t" if kind == ".tsv" else ",")
    else:
        yield from _frame_rows(path, kind)


def _open(path: Path) -> Any:
    return (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8-sig", newline="")
    )


def _json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise QuestionError(where, f"not JSON ({error})") from error
            if not isinstance(row, dict):
                raise QuestionError(where, "not an object")
            yield where, row


_IN_JSON = ("messages", "tools", "reference", "inputs", "expectations", "expected_facts")


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with _open(path) as lines:
        # pandas forgets on which line a row began, and a quoted cell may span several.
        reader = csv.DictReader(lines, delimiter=delimiter)
        begins = 2
        for row in reader:
            where = f"{path}:{begins}"
            begins = reader.line_num + 1
            if None in row:
                raise QuestionError(where, "more cells than the header has")
            yield where, _cells(where, row)


def _cells(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Cells as values: those that may hold JSON decoded, empty ones left out (a system prompt of `""` is written so)."""
    values: dict[str, Any] = {}
    for name, cell in row.items():
        text = cell.strip() if isinstance(cell, str) else cell
        if text in ("", None):
            continue
        if text == '""':
            text = ""
        elif name in _IN_JSON and isinstance(text, str):
            try:
                text = json.loads(text)
            except ValueError as error:
                if name == "expected_facts":
                    text = [fact.strip() for fact in text.splitlines() if fact.strip()]
                elif name != "reference":
                    raise QuestionError(where, f'"{name}" is not JSON ({error})') from error
        elif name == "tolerance" and isinstance(text, str):
            text = float(text)
        values[name] = text
    return values


def _frame_rows(path: Path, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pandas as pd  # half a second that JSON lines do not need

    readers = {
        ".json": pd.read_json,
        ".parquet": pd.read_parquet,
        ".feather": pd.read_feather,
        ".xlsx": pd.read_excel,
        ".orc": pd.read_orc,
    }
    if kind not in readers:
        raise QuestionError(
            str(path),
            f"cannot read {kind or 'a file without an ending'}; known are .jsonl, .csv, .tsv, {', '.join(readers)}",
        )
    try:
        frame = readers[kind](path)
    except (ValueError, ImportError, OSError) as error:
        raise QuestionError(str(path), f"cannot be read ({error})") from error
    for number, row in enumerate(frame.to_dict("records"), 1):
        where = f"{path}, row {number}"
        yield where, _cells(where, {str(name): _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    """A cell of pandas without numpy's types, which nested columns of Parquet come as."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if each is not None}
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _dataset_rows(name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from mlflow.exceptions import MlflowException
    from mlflow.genai.datasets import get_dataset

    try:
        dataset = get_dataset(dataset_id=name) if name.startswith("d-") else get_dataset(name=name)
    except MlflowException as error:
        raise QuestionError(MLFLOW_DATASET + name, f"no such dataset ({error.message})") from error
    for number, record in enumerate(dataset.to_df().to_dict("records"), 1):
        row = {field: _plain(record[field]) for field in ("inputs", "expectations") if field in record}
        yield f"{MLFLOW_DATASET}{name}, record {number}", row
