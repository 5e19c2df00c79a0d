"""Outcomes: questions with the score, answer and tokens of every model. A policy is learnt from them."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from router.policy.features import read_question
from router.policy.logprobs import LOGPROB_NAMES, Logprobs

# exceptions that a row of an arbitrary form may cause; they are reported as errors of the row
ROW_ERRORS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class InputError(ValueError):
    """A file cannot be read, or one of its rows has the wrong form; the message names file and line."""

    def __init__(self, path: Path | str, line: int | None, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}" if line else f"{path}: {problem}")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one model on a question."""

    score: float  # in [0, 1]
    answer: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    logprobs: Logprobs | None = None  # numbers that sum up the log probabilities of the answer's tokens


@dataclass(frozen=True, slots=True)
class Outcome:
    """A question with the results of models."""

    id: str
    messages: Sequence[Mapping[str, Any]]
    results: Mapping[str, Result]
    question_type: str | None = None
    source: str | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    reference: str | None = None
    expected_facts: Sequence[str] = field(default_factory=tuple)

    @property
    def text(self) -> str:
        """The text of all messages, from which near-duplicates are found."""
        return "\n".join(_text(message.get("content")) for message in self.messages)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return ""


def question_types(outcomes: Sequence[Outcome]) -> list[str]:
    """The recorded type of each question; "unknown" where none was recorded."""
    return [outcome.question_type or "unknown" for outcome in outcomes]


def read_outcomes(paths: Iterable[Path], models: Sequence[str] = (), answers: bool = True) -> list[Outcome]:
    """Read files of outcomes (JSON lines, gzipped or not) whose rows have a result of each of `models`.

    `answers=False` saves memory: it leaves out answers, references and expected facts.

    Raises:
        InputError: a file cannot be read, a row has the wrong form, or an id occurs twice.
    """
    outcomes: list[Outcome] = []
    seen: dict[str, str] = {}
    for path in paths:
        for line, row in read_rows(path):
            where = f"{path}:{line}"
            try:
                outcome = _parse_outcome(row, path, line, models)
            except InputError:
                raise
            except ROW_ERRORS as error:
                raise InputError(path, line, f"has the wrong form ({type(error).__name__}: {error})") from error
            if outcome.id in seen:
                raise InputError(path, line, f"id {outcome.id!r} occurs also at {seen[outcome.id]}")
            seen[outcome.id] = where
            outcomes.append(outcome if answers else _without_answers(outcome))
        if not outcomes:
            raise InputError(path, None, "holds no outcomes")
    return outcomes


def _without_answers(outcome: Outcome) -> Outcome:
    results = {model: replace(result, answer=None) for model, result in outcome.results.items()}
    return replace(outcome, results=results, reference=None, expected_facts=())


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a JSON-lines file, gzipped or not, with their line numbers. Blank lines are skipped."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line, text in enumerate(file, 1):
                if text.strip():
                    yield line, _parse_json(path, line, text)
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror or error}") from error
    except (EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(path, None, f"is damaged: {error}") from error


def _parse_json(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, line, f"is not JSON: {error}") from error


def _parse_outcome(row: Any, path: Path, line: int, models: Sequence[str]) -> Outcome:
    if not isinstance(row, Mapping):
        raise InputError(path, line, "expected an object")
    for name, kind in (("id", str), ("messages", list), ("outcomes", Mapping)):
        if not isinstance(row.get(name), kind) or not row[name]:
            raise InputError(path, line, f"{name!r} is missing or not {kind.__name__.lower()}")
    if not all(isinstance(message, Mapping) for message in row["messages"]):
        raise InputError(path, line, "'messages' holds something that is not an object")
    for name, kind in (("question_type", str), ("source", str), ("tools", list), ("expected_facts", list)):
        if row.get(name) is not None and not isinstance(row[name], kind):
            raise InputError(path, line, f"{name!r} is not {kind.__name__.lower()}")
    if not all(isinstance(tool, Mapping) for tool in row.get("tools") or ()):
        raise InputError(path, line, "'tools' holds something that is not an object")
    read_question(row["messages"], row.get("tools"))
    missing = [model for model in models if model not in row["outcomes"]]
    if missing:
        raise InputError(path, line, f"no outcome of {missing[0]!r}; this row has {', '.join(row['outcomes'])}")
    return Outcome(
        id=row["id"],
        messages=row["messages"],
        results={m: _parse_result(row["outcomes"][m], m, path, line) for m in (models or row["outcomes"])},
        question_type=row.get("question_type"),
        source=row.get("source"),
        tools=row.get("tools"),
        reference=row.get("reference"),
        expected_facts=row.get("expected_facts") or (),
    )


def _parse_result(value: Any, model: str, path: Path, line: int) -> Result:
    score = value.get("score") if isinstance(value, Mapping) else None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise InputError(path, line, f"the score of {model!r} is not a number from 0 to 1: {score!r}")
    for name in ("input_tokens", "output_tokens"):
        count = value.get(name)
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < 2**31):
            raise InputError(path, line, f"{name} of {model!r} is not a count: {count!r}")
    logprobs = value.get("logprobs")
    if logprobs is not None:
        if len(logprobs) != len(LOGPROB_NAMES) or not all(-math.inf < number <= 0 for number in logprobs):
            raise InputError(path, line, f"logprobs of {model!r} are not {len(LOGPROB_NAMES)} numbers up to 0")
        logprobs = tuple(map(float, logprobs))
    return Result(float(score), value.get("answer"), value.get("input_tokens"), value.get("output_tokens"), logprobs)


def write_outcomes(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write a file of outcomes, gzipped if its name ends in .gz. An existing file is replaced atomically."""
    partial = path.with_name(path.name + ".partial")
    with (
        gzip.open(partial, "wt", encoding="utf-8")
        if path.suffix == ".gz"
        else partial.open("w", encoding="utf-8") as file
    ):
        for outcome in outcomes:
            file.write(json.dumps(_build_row(outcome), ensure_ascii=False) + "\n")
    partial.replace(path)


def _build_row(outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {"id": outcome.id}
    for name in ("source", "question_type", "messages", "tools", "reference", "expected_facts"):
        value = getattr(outcome, name)
        if value:
            row[name] = list(value) if isinstance(value, tuple) else value
    row["outcomes"] = {
        model: {k: v for k in Result.__slots__ if (v := getattr(result, k)) is not None}
        for model, result in outcome.results.items()
    }
    return row
