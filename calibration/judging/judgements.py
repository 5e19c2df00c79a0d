"""Scoring answers: by an exact check where the question has a reference, otherwise by MLflow's evaluation.

The score of an answer is its lowest verdict: an answer is right if it is correct and complete. A row without a verdict
is evaluated again. A row that still has none is reported as a failure, and never silently missing from a mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from calibration.answers import tracking
from calibration.answers.answers import Answer
from calibration.judging.relay import JudgeRelay, judges_at
from calibration.ledger import Ledger
from calibration.questions.questions import Question
from calibration.spending import StoppedError
from calibration.workers import Processes

ROWS_PER_EVALUATION = 100  # the most that an interruption may repeat, from stored replies
ROUNDS = 3
CORRECTNESS, COMPLETENESS = "correctness", "completeness"
DEFAULT_SCORERS = (CORRECTNESS, COMPLETENESS)
Chunk = Sequence[tuple[Question, Answer]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The scores of an answer, and their rationales, by scorer."""

    scores: Mapping[str, float]  # each in [0, 1]
    rationales: Mapping[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The lowest score."""
        return min(self.scores.values())


@dataclass(frozen=True, slots=True)
class JudgementSet:
    """Judgements, and the errors of answers without one; both by question id and model."""

    judgements: Mapping[tuple[str, str], Judgement]
    failures: Mapping[tuple[str, str], str]


class ScorerError(ValueError):
    """A scorer cannot be loaded."""


@dataclass(frozen=True, slots=True)
class Scorers:
    """The scorers of answers: MLflow's two by name, and custom ones by import path."""

    names: Sequence[str]
    judge: str  # as MLflow names it, such as openai:/gpt-4.1-mini
    custom: Sequence[Any] = ()  # MLflow scorers
    paths: Sequence[str] = ()  # import paths of the custom scorers

    @classmethod
    def load(cls, paths: Sequence[str], judge: str) -> Scorers:
        """Load the scorers; path is a name or `package.module:attribute`.

        Raises:
            ScorerError: a scorer does not exist, or is not an MLflow scorer.
        """
        names = [path for path in paths if path in DEFAULT_SCORERS]
        custom = [path for path in paths if path not in DEFAULT_SCORERS]
        return cls(names, judge, [_load_scorer(path) for path in custom], custom)

    def __reduce__(self) -> tuple[Any, ...]:
        """Load the scorers again in another process, since MLflow's cannot be sent."""
        return Scorers.load, ([*self.names, *self.paths], self.judge)

    def scorers_for(self, question: Question) -> Mapping[str, Any]:
        """The MLflow scorers for a question, by name; a question with an exact check needs no judge."""
        from mlflow.genai.scorers import Completeness, Correctness

        custom = {scorer.name: scorer for scorer in self.custom}
        if question.check is not None:
            return custom
        judges = {CORRECTNESS: Correctness, COMPLETENESS: Completeness}
        return {**{name: judges[name](name=name, model=self.judge) for name in self.names}, **custom}

    def judge_calls(self, question: Question) -> int:
        """The number of judge calls for one answer to the question."""
        return 0 if question.check is not None else len(self.names)

    def key(self, question: Question, answer: Answer) -> str:
        """The key of a judgement in the ledger."""
        expected = [question.expected_facts, question.expected_response, repr(question.check)]
        scored = [*self.names, *(scorer.name for scorer in self.custom), self.judge]
        return hashlib.sha256(json.dumps([answer.key, expected, scored]).encode()).hexdigest()


def _load_scorer(path: str) -> Any:
    from mlflow.genai.scorers import Scorer

    module, _, name = path.partition(":")
    try:
        scorer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(DEFAULT_SCORERS)
        raise ScorerError(f"scorer {path!r}: {error}; give {known}, or package.module:name") from error
    scorer = scorer() if isinstance(scorer, type) else scorer
    if not isinstance(scorer, Scorer):
        raise ScorerError(f"scorer {path!r} is not an MLflow scorer; decorate it with @mlflow.genai.scorer")
    return scorer


def stored_judgements(pairs: Sequence[tuple[Question, Answer]], scorers: Scorers, ledger: Ledger) -> JudgementSet:
    """The judgements in the ledger, and those of exact checks, which cost nothing."""
    judgements: dict[tuple[str, str], Judgement] = {}
    for question, answer in pairs:
        row = ledger.get(scorers.key(question, answer))
        if row is not None:
            judgements[question.id, answer.model] = Judgement(row["scores"], row["rationales"])
        elif question.check is not None and not scorers.custom:
            judgements[question.id, answer.model] = Judgement(_check_score(question, answer))
    return JudgementSet(judgements, {})


def _check_score(question: Question, answer: Answer) -> dict[str, float]:
    return {} if question.check is None else {CORRECTNESS: float(question.check.passes(answer.text))}


def judge(
    pairs: Sequence[tuple[Question, Answer]],
    scorers: Scorers,
    ledger: Ledger,
    relay: JudgeRelay,
    runs: tracking.Runs,
    on_progress: Callable[[], None] = lambda: None,
    processes: Processes | None = None,
) -> JudgementSet:
    """Score every answer, in this process or in `processes`; the answers of a model are evaluated in its MLflow run.

    Raises:
        StoppedError: by budget, outage or interruption. The ledger keeps the verdicts received before.
    """
    judgements = dict(stored_judgements(pairs, scorers, ledger).judgements)
    failures: dict[tuple[str, str], str] = {}
    missing = [pair for pair in pairs if (pair[0].id, pair[1].model) not in judgements]
    chunks = list(_split_for_evaluation(missing))
    with relay.in_environment():
        for chunk, results in zip(chunks, _judge_chunks(chunks, scorers, relay, runs, processes), strict=True):
            for (question, answer), result in zip(chunk, results, strict=True):
                key = question.id, answer.model
                if isinstance(result, str):
                    failures[key] = result
                else:
                    judgements[key] = result
                    row = {"scores": dict(result.scores), "rationales": dict(result.rationales)}
                    ledger.add(scorers.key(question, answer), row)
                on_progress()
            if relay.stopped is not None:
                raise relay.stopped
    return JudgementSet(judgements, failures)


def _split_for_evaluation(pairs: Sequence[tuple[Question, Answer]]) -> Iterator[list[tuple[Question, Answer]]]:
    """Split the pairs into evaluations, each of one model and one set of scorers."""
    kinds: dict[tuple[str, bool], list[tuple[Question, Answer]]] = {}
    for question, answer in pairs:
        kinds.setdefault((answer.model, question.check is None), []).append((question, answer))
    for pairs_of_kind in kinds.values():
        for start in range(0, len(pairs_of_kind), ROWS_PER_EVALUATION):
            yield pairs_of_kind[start : start + ROWS_PER_EVALUATION]


def _judge_chunks(
    chunks: Sequence[Chunk], scorers: Scorers, relay: JudgeRelay, runs: tracking.Runs, processes: Processes | None
) -> Iterator[list[Judgement | str]]:
    """The results of `_judge_chunk` for each chunk, in their order."""
    if processes is None or len(chunks) < 2:
        return (_judge_chunk(chunk, scorers, runs, lambda: relay.stopped is not None) for chunk in chunks)
    threads = tracking.writing_threads(processes.jobs)
    return processes.map(ChunkJudge(scorers, runs, tracking.store_uri(), relay.base_url, threads), chunks)


@dataclass(frozen=True, slots=True)
class ChunkJudge:
    """Judges a chunk in another process, through the relay of the process that started it."""

    scorers: Scorers
    runs: tracking.Runs
    store_uri: str
    relay_url: str
    threads: int  # that write into the store

    def __call__(self, chunk: Chunk) -> list[Judgement | str]:
        """The results of `_judge_chunk`."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starting process handles Ctrl-C
        os.environ[tracking.MAX_THREADS] = str(self.threads)
        warnings.simplefilter("ignore")
        tracking.prepare(self.store_uri)
        with judges_at(self.relay_url):
            return _judge_chunk(chunk, self.scorers, self.runs, lambda: False)


def _judge_chunk(
    chunk: Chunk, scorers: Scorers, runs: tracking.Runs, is_stopped: Callable[[], bool]
) -> list[Judgement | str]:
    """A judgement or an error for each pair. Missing verdicts are requested again, for up to ROUNDS rounds."""
    named_scorers = scorers.scorers_for(chunk[0][0])
    verdicts: list[dict[str, tuple[float, str]]] = [{} for _ in chunk]
    problems: list[str] = ["" for _ in chunk]
    for _ in range(ROUNDS):
        missing = [number for number, scored in enumerate(verdicts) if len(scored) < len(named_scorers)]
        if not missing or is_stopped():
            break
        names = {name for number in missing for name in named_scorers if name not in verdicts[number]}
        rows = _evaluate([chunk[number] for number in missing], [named_scorers[name] for name in sorted(names)], runs)
        for number, row in zip(missing, rows, strict=True):
            for name in names:
                value = as_score(row.get(f"{name}/value"))
                if value is None:
                    problems[number] = f"{name}: {row.get(f'{name}/error_message') or row.get(f'{name}/value')!r}"
                else:
                    verdicts[number].setdefault(name, (value, str(row.get(f"{name}/rationale") or "")))
    return [
        Judgement(
            {**_check_score(question, answer), **{name: score for name, (score, _) in scored.items()}},
            {name: rationale for name, (_, rationale) in scored.items()},
        )
        if len(scored) == len(named_scorers)
        else f"no verdict after {ROUNDS} rounds, {problem}"[:300]
        for (question, answer), scored, problem in zip(chunk, verdicts, problems, strict=True)
    ]


def _evaluate(
    pairs: Sequence[tuple[Question, Answer]], scorers: Sequence[Any], runs: tracking.Runs
) -> list[dict[str, Any]]:
    """Run one evaluation by MLflow; returns the rows of its table in the order of `pairs`."""
    import mlflow

    traces = tracking.traces_of([answer for _, answer in pairs])
    data = [
        {
            "inputs": _judge_inputs(question),
            "outputs": answer.text,
            "expectations": _expectations(question),
            "trace": trace,
        }
        for (question, answer), trace in zip(pairs, traces, strict=True)
    ]
    with mlflow.start_run(run_id=runs.models[pairs[0][1].model]), contextlib.redirect_stdout(io.StringIO()):
        result = mlflow.genai.evaluate(data=data, scorers=list(scorers))
    if result.result_df is None or len(result.result_df) != len(pairs):
        raise StoppedError(
            f"MLflow evaluated {len(result.result_df or [])} rows of {len(pairs)}; run the same command again"
        )
    rows = {str(row["trace_id"]): _with_text_keys(row) for row in result.result_df.to_dict("records")}
    return [rows[trace.info.trace_id] for trace in traces]


def _with_text_keys(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}


def _judge_inputs(question: Question) -> dict[str, Any]:
    """The question as the judge reads it: its text, or all messages and tools if it has earlier turns or tools."""
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
    """A scorer's value as a number from 0 to 1; None for other values.

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
