"""Answers become scores: exact checks where a reference allows, and MLflow's evaluation for the rest.

An answer is worth its weakest verdict: it is right where it is correct and complete. A row that got no verdict is asked
for again, and what is then still without one is counted and named; it never leaves a mean unseen.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from calibration.answers import tracking
from calibration.answers.answers import Answer
from calibration.judging.relay import JudgeRelay
from calibration.ledger import Ledger
from calibration.questions.questions import Question
from calibration.spending import StoppedError

ROWS_PER_EVALUATION = 100  # what an interruption may have to evaluate again, from replies that are kept
ROUNDS = 3
CORRECTNESS, COMPLETENESS = "correctness", "completeness"
DEFAULT_SCORERS = (CORRECTNESS, COMPLETENESS)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an answer is worth, by scorer, and why."""

    scores: Mapping[str, float]  # each in [0, 1]
    rationales: Mapping[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The weakest of the scores."""
        return min(self.scores.values())


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgements, by question id and model, and what got none."""

    judgements: Mapping[tuple[str, str], Judgement]
    failures: Mapping[tuple[str, str], str]


class ScorerError(ValueError):
    """A scorer cannot be used; says which and why."""


@dataclass(frozen=True, slots=True)
class Scorers:
    """What scores an answer: the two of MLflow by name, and those of the user by import path."""

    names: Sequence[str]
    judge: str  # as MLflow names it, such as openai:/gpt-4.1-mini
    own: Sequence[Any] = ()  # MLflow scorers

    @classmethod
    def load(cls, given: Sequence[str], judge: str) -> Scorers:
        """Find the scorers; each is a name or `package.module:attribute`.

        Raises:
            ScorerError: there is no such scorer, or it is none.
        """
        names = [each for each in given if each in DEFAULT_SCORERS]
        return cls(names, judge, [_own(each) for each in given if each not in DEFAULT_SCORERS])

    def needed(self, question: Question) -> Mapping[str, Any]:
        """The MLflow scorers that a question needs, by name; an exact check needs no judge."""
        from mlflow.genai.scorers import Completeness, Correctness

        own = {scorer.name: scorer for scorer in self.own}
        if question.check is not None:
            return own
        judges = {CORRECTNESS: Correctness, COMPLETENESS: Completeness}
        return {**{name: judges[name](name=name, model=self.judge) for name in self.names}, **own}

    def verdicts(self, question: Question) -> int:
        """How often the judge is asked about one answer."""
        return 0 if question.check is not None else len(self.names)

    def key(self, question: Question, answer: Answer) -> str:
        """What a judgement is kept under."""
        expected = [question.expected_facts, question.expected_response, repr(question.check)]
        scored = [*self.names, *(scorer.name for scorer in self.own), self.judge]
        return hashlib.sha256(json.dumps([answer.key, expected, scored]).encode()).hexdigest()


def _own(path: str) -> Any:
    from mlflow.genai.scorers import Scorer

    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(DEFAULT_SCORERS)
        raise ScorerError(f"scorer {path!r}: {error}; give {known}, or package.module:name") from error
    found = found() if isinstance(found, type) else found
    if not isinstance(found, Scorer):
        raise ScorerError(f"scorer {path!r} is not an MLflow scorer; decorate it with @mlflow.genai.scorer")
    return found


def kept(pairs: Sequence[tuple[Question, Answer]], scorers: Scorers, ledger: Ledger) -> Judged:
    """The judgements that are there already, exact checks among them: they cost nothing."""
    judgements: dict[tuple[str, str], Judgement] = {}
    for question, answer in pairs:
        row = ledger.get(scorers.key(question, answer))
        if row is not None:
            judgements[question.id, answer.model] = Judgement(row["scores"], row["rationales"])
        elif question.check is not None and not scorers.own:
            judgements[question.id, answer.model] = Judgement(_checked(question, answer))
    return Judged(judgements, {})


def _checked(question: Question, answer: Answer) -> dict[str, float]:
    return {} if question.check is None else {CORRECTNESS: float(question.check.passes(answer.text))}


def judge(
    pairs: Sequence[tuple[Question, Answer]],
    scorers: Scorers,
    ledger: Ledger,
    relay: JudgeRelay,
    runs: tracking.Runs,
    on_progress: Callable[[], None] = lambda: None,
) -> Judged:
    """Score every answer; those of one model are evaluated in its MLflow run.

    Raises:
        StoppedError: by budget, outage or interruption. Verdicts until then are in the ledger.
    """
    judgements = dict(kept(pairs, scorers, ledger).judgements)
    failures: dict[tuple[str, str], str] = {}
    todo = [pair for pair in pairs if (pair[0].id, pair[1].model) not in judgements]
    with relay.in_environment():
        for chunk in _chunks(todo):
            for (question, answer), result in zip(chunk, _evaluated(chunk, scorers, relay, runs), strict=True):
                at = question.id, answer.model
                if isinstance(result, str):
                    failures[at] = result
                else:
                    judgements[at] = result
                    row = {"scores": dict(result.scores), "rationales": dict(result.rationales)}
                    ledger.add(scorers.key(question, answer), row)
                on_progress()
            if relay.stopped is not None:
                raise relay.stopped
    return Judged(judgements, failures)


def _chunks(pairs: Sequence[tuple[Question, Answer]]) -> Iterator[list[tuple[Question, Answer]]]:
    """Pairs of one model and one set of scorers, as MLflow evaluates them."""
    kinds: dict[tuple[str, bool], list[tuple[Question, Answer]]] = {}
    for question, answer in pairs:
        kinds.setdefault((answer.model, question.check is None), []).append((question, answer))
    for alike in kinds.values():
        for start in range(0, len(alike), ROWS_PER_EVALUATION):
            yield alike[start : start + ROWS_PER_EVALUATION]


def _evaluated(
    chunk: Sequence[tuple[Question, Answer]], scorers: Scorers, relay: JudgeRelay, runs: tracking.Runs
) -> list[Judgement | str]:
    """A judgement for each pair, or what kept it from one, after as many rounds as are worth it."""
    needed = scorers.needed(chunk[0][0])
    verdicts: list[dict[str, tuple[float, str]]] = [{} for _ in chunk]
    problems: list[str] = ["" for _ in chunk]
    for _ in range(ROUNDS):
        missing = [number for number, found in enumerate(verdicts) if len(found) < len(needed)]
        if not missing or relay.stopped is not None:
            break
        wanted = {name for number in missing for name in needed if name not in verdicts[number]}
        rows = _evaluate([chunk[number] for number in missing], [needed[name] for name in sorted(wanted)], runs)
        for number, row in zip(missing, rows, strict=True):
            for name in wanted:
                value = as_score(row.get(f"{name}/value"))
                if value is None:
                    problems[number] = f"{name}: {row.get(f'{name}/error_message') or row.get(f'{name}/value')!r}"
                else:
                    verdicts[number].setdefault(name, (value, str(row.get(f"{name}/rationale") or "")))
    return [
        Judgement(
            {**_checked(question, answer), **{name: score for name, (score, _) in found.items()}},
            {name: why for name, (_, why) in found.items()},
        )
        if len(found) == len(needed)
        else f"no verdict after {ROUNDS} rounds, {problem}"[:300]
        for (question, answer), found, problem in zip(chunk, verdicts, problems, strict=True)
    ]


def _evaluate(
    pairs: Sequence[tuple[Question, Answer]], scorers: Sequence[Any], runs: tracking.Runs
) -> list[dict[str, Any]]:
    """One evaluation by MLflow; the rows of its table in the order of `pairs`."""
    import mlflow

    traces = tracking.traces_of([answer for _, answer in pairs])
    data = [
        {"inputs": _inputs(question), "outputs": answer.text, "expectations": _expectations(question), "trace": trace}
        for (question, answer), trace in zip(pairs, traces, strict=True)
    ]
    with mlflow.start_run(run_id=runs.models[pairs[0][1].model]), contextlib.redirect_stdout(io.StringIO()):
        result = mlflow.genai.evaluate(data=data, scorers=list(scorers))
    if result.result_df is None or len(result.result_df) != len(pairs):
        raise StoppedError(f"MLflow evaluated {len(result.result_df or [])} rows of {len(pairs)}; run again")
    rows = {str(row["trace_id"]): _named(row) for row in result.result_df.to_dict("records")}
    return [rows[trace.info.trace_id] for trace in traces]


def _named(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def _inputs(question: Question) -> dict[str, Any]:
    """What the judge reads of a question: its text, or the whole where there were earlier turns or tools."""
    turns = [message for message in question.messages if message.get("role") not in ("system", "developer")]
    if len(turns) == 1 and not question.tools:
        return {"question": question.text}
    return {"messages": turns, **({"tools": list(question.tools)} if question.tools else {})}


def _expectations(question: Question) -> dict[str, Any]:
    if question.expected_facts:
        return {"expected_facts": list(question.expected_facts)}
    if question.expected_response is not None:
        return {"expected_response": question.expected_response}
    return {"expected_response": question.check.accepted_answer()} if question.check is not None else {}


def as_score(value: Any) -> float | None:
    """A scorer's value as a number from 0 to 1; None where it is no verdict.

    >>> [as_score(value) for value in ("yes", "No", True, 0.5, 3, "perhaps", None, float("nan"))]
    [1.0, 0.0, 1.0, 0.5, None, None, None, None]
    """
    if isinstance(value, str):
        return {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}.get(value.strip().lower())
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0.0 <= number <= 1.0 else None
