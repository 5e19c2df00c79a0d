"""Calibration questions, read from a file or an MLflow dataset and validated.

A row (a JSON line, or a row of another format that pandas reads) has these fields:

| field | |
|---|---|
| `id` | unique text; default: a digest of the question |
| `question_type` | such as "math/arithmetic"; default: predicted by a policy, or found by clustering |
| `language` | such as "de"; default: "en". Informational only |
| `question` *or* `messages` | the text of one user turn, or a conversation that ends with a user turn |
| `system` | the system prompt; `""` for none. Default: that of the run, unless `messages` has a system prompt |
| `tools` | tools in OpenAI's format |
| `expected_facts` | a list of texts that a right answer contains; judged by Correctness and Completeness |
| *or* `expected_response` | a text that a right answer agrees with; judged by Correctness and Completeness |
| *or* `reference`, `check` | an exact answer and its check (`checks.py`; some use `tolerance` or `example`) |

```json
{"id": "cs/1", "question_type": "facts/simple", "question": "What is a database index?", "expected_facts": ["..."]}
{"id": "a/7", "question_type": "math/arithmetic", "question": "What is 17 * 23?", "reference": 391, "check": "number"}
```

MLflow's format, `{"inputs": {"question": ...}, "expectations": {"expected_facts": [...]}}`, is also accepted.
In CSV, `expected_facts` is a JSON list or has one fact per line. Other structured fields are JSON.
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
    """A question for every model, and the criterion for a right answer."""

    id: str
    messages: Sequence[Mapping[str, Any]]  # as sent, including the system prompt
    question_type: str | None = None
    language: str = "en"
    tools: Sequence[Mapping[str, Any]] = ()
    expected_facts: Sequence[str] = ()
    expected_response: str | None = None
    check: checks.Check | None = None

    @property
    def text(self) -> str:
        """The last user turn, for display and for judges."""
        turns = [content_text(m.get("content")) for m in self.messages if m.get("role") == "user"]
        return turns[-1] if turns else ""


def read(source: str, system: str = DEFAULT_SYSTEM_PROMPT) -> list[Question]:
    """Read the questions of a file or of `mlflow:NAME`; questions without a system prompt get `system`.

    Raises:
        QuestionError: a row is invalid, or the source cannot be read. The message names file and line.
    """
    questions: list[Question] = []
    ids: dict[str, str] = {}
    texts: dict[str, str] = {}
    for location, row in rows(source):
        try:
            question = parse(row, system)
        except ValueError as error:
            raise QuestionError(location, str(error)) from error
        except ROW_ERRORS as error:
            raise QuestionError(location, f"invalid row ({type(error).__name__}: {error})") from error
        for seen, key, kind in ((ids, question.id, "id"), (texts, _digest(question), "question")):
            if key in seen:
                raise QuestionError(location, f"the same {kind} as {seen[key]}")
            seen[key] = location
        questions.append(question)
    if not questions:
        raise QuestionError(source, "contains no questions")
    return questions


def parse(row: Mapping[str, Any], system: str = DEFAULT_SYSTEM_PROMPT) -> Question:
    """Parse one row.

    Raises:
        ValueError: a field is missing or invalid.
    """
    row = _flatten(row)
    unknown = sorted(set(row) - FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; the fields are {', '.join(sorted(FIELDS))}")
    messages = _parse_messages(row, system)
    tools = row.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise ValueError('"tools" is not a list of tools')
    try:
        read_question(messages, tools)
    except RequestError as error:
        raise ValueError(str(error)) from error
    facts, response, check = _parse_expectation(row)
    question = Question(
        id=_parse_text(row, "id") or "",
        messages=messages,
        question_type=_parse_text(row, "question_type"),
        language=_parse_text(row, "language") or "en",
        tools=tools,
        expected_facts=facts,
        expected_response=response,
        check=check,
    )
    if question.id:
        return question
    return replace(question, id="q-" + _digest(question)[:12])


def _flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    """Remove empty cells, and unpack MLflow's `inputs` and `expectations`."""
    flat = {name: value for name, value in row.items() if not _is_empty(value)}
    for nested in ("inputs", "expectations"):
        inner = flat.pop(nested, None)
        if inner is not None:
            if not isinstance(inner, Mapping):
                raise ValueError(f'"{nested}" is not an object')
            flat.update({name: value for name, value in inner.items() if not _is_empty(value)})
    return flat


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _parse_text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, str) and not value.strip()):
        raise ValueError(f'"{name}" is not a text')
    return str(value)


def _parse_messages(row: Mapping[str, Any], system: str) -> list[Mapping[str, Any]]:
    if "question" in row and "messages" in row:
        raise ValueError('"question" and "messages" exclude each other')
    if "question" not in row and "messages" not in row:
        raise ValueError('"question" is missing (or "messages")')
    if "question" in row:
        messages: list[Mapping[str, Any]] = [{"role": "user", "content": _parse_text(row, "question")}]
    else:
        messages = row["messages"]
        if not isinstance(messages, list) or not all(isinstance(m, Mapping) and m.get("role") for m in messages):
            raise ValueError('"messages" is not a list of {"role", "content"}')
        if not messages or messages[-1]["role"] not in ("user", "tool"):
            raise ValueError('"messages" does not end with a user turn')
    prompt = row.get("system", system)
    if not isinstance(prompt, str):
        raise ValueError('"system" is not a text')
    has_system = any(m["role"] in ("system", "developer") for m in messages)
    if has_system and row.get("system"):
        raise ValueError('"system" and a system prompt in "messages" exclude each other')
    return messages if has_system or not prompt else [{"role": "system", "content": prompt}, *messages]


def _parse_expectation(row: Mapping[str, Any]) -> tuple[Sequence[str], str | None, checks.Check | None]:
    present = [name for name in ("expected_facts", "expected_response", "reference") if name in row]
    if not present:
        raise ValueError('"expected_facts" is missing (or "expected_response", or "reference" with "check")')
    if len(present) > 1:
        raise ValueError(f'"{present[0]}" and "{present[1]}" exclude each other')
    if present[0] == "reference":
        if "check" not in row:
            raise ValueError('"reference" needs a "check", the name of a comparison')
        return (), None, checks.parse_check(row["check"], row["reference"], row.get("tolerance"), row.get("example"))
    if "check" in row:
        raise ValueError('"check" needs a "reference"')
    if present[0] == "expected_response":
        return (), _parse_text(row, "expected_response"), None
    facts = row["expected_facts"]
    if not isinstance(facts, list) or not facts or not all(isinstance(fact, str) and fact.strip() for fact in facts):
        raise ValueError('"expected_facts" is not a list of texts')
    return tuple(facts), None, None


def content_text(content: Any) -> str:
    """The text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if isinstance(part, Mapping) and part.get("text"))


def _digest(question: Question) -> str:
    content = json.dumps([list(question.messages), list(question.tools)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()
