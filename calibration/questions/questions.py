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
| *or* `reference`, `check` | an exact answer, and how to compare (`checks.py`; some take `tolerance`, `example`) |

```json
{"id": "cs/1", "question_type": "facts/simple", "question": "What is a database index?", "expected_facts": ["..."]}
{"id": "a/7", "question_type": "math/arithmetic", "question": "What is 17 * 23?", "reference": 391, "check": "number"}
```

MLflow's own form, `{"inputs": {"question": ...}, "expectations": {"expected_facts": [...]}}`, is read as well.
In CSV, `expected_facts` is a JSON list or one fact a line, the others as in JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from calibration.checks import checks
from calibration.outcomes import ROW_ERRORS
from calibration.questions.sources import QuestionError, rows
from router.policy.features import RequestError, read_question

DEFAULT_SYSTEM_PROMPT = (
    "You are a senior software engineer. Answer technical questions accurately and concisely in 2-4 sentences."
)
FIELDS = frozenset(
    {"id", "question_type", "language", "question", "messages", "system", "tools"}
    | {"expected_facts", "expected_response", "reference", "check", "tolerance", "example"}
    | {"source", "note", "difficulty"}
)


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
    for where, row in rows(source):
        try:
            question = parse(row, system)
        except ValueError as error:
            raise QuestionError(where, str(error)) from error
        except ROW_ERRORS as error:
            raise QuestionError(where, f"does not fit ({type(error).__name__}: {error})") from error
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
    return replace(question, id="q-" + _digest(question)[:12])


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
    if "question" in row and "messages" in row:
        raise ValueError('"question" and "messages" exclude each other')
    if "question" not in row and "messages" not in row:
        raise ValueError('"question" is missing (or "messages")')
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
        return (), None, checks.parse_check(row["check"], row["reference"], row.get("tolerance"), row.get("example"))
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
