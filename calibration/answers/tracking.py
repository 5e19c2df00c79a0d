"""The MLflow runs and traces of a calibration: a parent run, a child run per model, and a trace per answer."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration import network
from calibration.answers.answers import Answer
from calibration.questions.questions import Question
from calibration.spending import StoppedError
from router.policy.prices import PriceBook
from router.policy.usage import Usage

EXPERIMENT = "cost-quality-tradeoff"
WORKERS = 4  # threads that write; with more, SQLite's locks cause lost spans
MAX_THREADS = "MLFLOW_GENAI_EVAL_MAX_WORKERS"
TRACES_PER_WRITE = 200
_SETTINGS = {
    MAX_THREADS: str(WORKERS),
    "MLFLOW_GENAI_EVAL_MAX_SCORER_WORKERS": "2",
    "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",  # the relay limits the rate
    "MLFLOW_GENAI_EVAL_SCORER_RATE_LIMIT": "0",
    "MLFLOW_GENAI_EVAL_SKIP_TRACE_VALIDATION": "true",
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_MODEL_CATALOG_URI": "",  # otherwise the first price look-up waits for the network
    "TQDM_DISABLE": "1",
}


@dataclass(frozen=True, slots=True)
class Runs:
    """The ids of the runs of one calibration."""

    experiment_id: str
    parent: str
    models: Mapping[str, str]  # run id by model


def prepare(uri: str) -> str:
    """Configure MLflow for the store at `uri`, which is created if missing; returns the id of the experiment."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    network.prepare_environment()
    import mlflow  # slow (1.5 s), and reads its settings on import

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    folder = _store_folder(uri)
    with _exclusive(folder):
        if folder is not None:
            _create_store(Path(uri.removeprefix("sqlite:///")), folder)
        existing = mlflow.get_experiment_by_name(EXPERIMENT)
        if existing is not None:
            mlflow.set_experiment(experiment_id=existing.experiment_id)
            return str(existing.experiment_id)
        artifacts = None if folder is None else (folder / "artifacts").as_uri()
        if folder is not None:
            _enable_write_ahead_log(Path(uri.removeprefix("sqlite:///")))
        experiment_id = mlflow.create_experiment(EXPERIMENT, artifact_location=artifacts)
        mlflow.set_experiment(experiment_id=experiment_id)
        return str(experiment_id)


def store_uri() -> str:
    """The URI of the prepared store."""
    import mlflow

    return str(mlflow.get_tracking_uri())


def writing_threads(processes: int) -> int:
    """The threads of an evaluation in each of `processes`. With SQLite they share those of one process."""
    threads = int(os.environ[MAX_THREADS])
    return threads if _store_folder(store_uri()) is None else max(threads // processes, 1)


def _create_store(path: Path, folder: Path) -> None:
    """Create the SQLite store if there is none, as `router/exporter/tracestore.py` does.

    It has another name until it is complete: MLflow cannot continue a creation that was interrupted.
    """
    if path.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = path.with_name(f"{path.name}.new")
    for leftover in path.parent.glob(f"{new.name}*"):  # with its journal
        leftover.unlink()
    SqlAlchemyStore(f"sqlite:///{new}", str(folder / "artifacts")).engine.dispose()
    new.replace(path)


def _enable_write_ahead_log(path: Path) -> None:
    """Enable the write-ahead log of an SQLite store, so that readers do not block the evaluation's threads."""
    with contextlib.closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA journal_mode=WAL")


def _store_folder(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute().parent if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def _exclusive(folder: Path | None) -> Iterator[None]:
    """Lock the store's folder: two processes that create one SQLite store at the same time would damage it."""
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def open_runs(experiment_id: str, name: str, models: Sequence[str], params: Mapping[str, Any], state: Path) -> Runs:
    """Start the runs, or resume those of an interrupted calibration, whose ids are in the file `state`."""
    import mlflow

    client = mlflow.MlflowClient()
    runs = _read_interrupted_runs(client, experiment_id, models, state)
    if runs is None:
        parent = client.create_run(experiment_id, run_name=name).info.run_id
        beneath = {"mlflow.parentRunId": parent}
        children = {m: client.create_run(experiment_id, run_name=m, tags=beneath).info.run_id for m in models}
        runs = Runs(experiment_id, parent, children)
        for model, run in children.items():
            client.log_param(run, "model", model)
        for key, value in params.items():
            client.log_param(parent, key, value)
        state.write_text(json.dumps({"experiment_id": experiment_id, "parent": parent, "models": children}))
    return runs


def _read_interrupted_runs(client: Any, experiment_id: str, models: Sequence[str], state: Path) -> Runs | None:
    from mlflow.exceptions import MlflowException

    try:
        kept = json.loads(state.read_text())
        runs = Runs(kept["experiment_id"], kept["parent"], kept["models"])
        unfinished = client.get_run(runs.parent).info.status in ("RUNNING", "KILLED", "FAILED")
    except (OSError, ValueError, KeyError, RecursionError, TypeError, MlflowException):
        return None
    return runs if unfinished and runs.experiment_id == experiment_id and set(runs.models) == set(models) else None


def close_runs(runs: Runs, status: str = "FINISHED") -> None:
    """End all runs with this status."""
    import mlflow

    client = mlflow.MlflowClient()
    for run in (*runs.models.values(), runs.parent):
        client.set_terminated(run, status)


def close_children(runs: Runs, models: Sequence[str]) -> None:
    """End the runs of these models."""
    import mlflow

    client = mlflow.MlflowClient()
    for model in models:
        client.set_terminated(runs.models[model])


def publish(experiment: str, name: str, content: bytes, version: str) -> None:
    """Store a file for routers on other machines, in a new run of `experiment`; routers read the newest run."""
    import mlflow

    client = mlflow.MlflowClient()
    existing = client.get_experiment_by_name(experiment)
    experiment_id = client.create_experiment(experiment) if existing is None else existing.experiment_id
    run = client.create_run(experiment_id, run_name=f"policy {version}", tags={"router.policy": version})
    client.log_text(run.info.run_id, content.decode(), name)
    client.set_terminated(run.info.run_id)


def trace_id(answer: Answer) -> str:
    """The id of an answer's trace, derived from its key: writing a trace again does not duplicate it."""
    return "tr-" + hashlib.sha256(answer.key.encode()).hexdigest()[:32]


def root_span_id(trace: str) -> str:
    """The id of the only span of an answer's trace."""
    return trace[3:19]


def log_answers(
    runs: Runs, model: str, answers: Sequence[Answer], questions: Mapping[str, Question], prices: PriceBook
) -> None:
    """Write the missing traces of answers, link all traces to the run of the model, and verify them in the store.

    Raises:
        StoppedError: traces are missing in the store.
    """
    import mlflow
    from mlflow.tracing.client import TracingClient

    client = TracingClient()
    stored = _stored_ids(client, answers)
    missing = [answer for answer in answers if trace_id(answer) not in stored]
    for start in range(0, len(missing), TRACES_PER_WRITE):
        part = missing[start : start + TRACES_PER_WRITE]
        client.log_spans(runs.experiment_id, [_build_span(a, questions[a.question_id], prices) for a in part])
    ids = [trace_id(answer) for answer in answers]
    for start in range(0, len(ids), 100):
        mlflow.MlflowClient().link_traces_to_run(ids[start : start + 100], run_id=runs.models[model])
    lost = set(ids) - _stored_ids(client, answers)
    if lost:
        raise StoppedError(
            f"{len(lost)} of {len(ids)} traces are missing in MLflow's store; run the same command again"
        )


def _stored_ids(client: Any, answers: Sequence[Answer]) -> set[str]:
    return {info.trace_id for info in _trace_infos(client, answers)}


def _trace_infos(client: Any, answers: Sequence[Answer]) -> Iterator[Any]:
    ids = [trace_id(answer) for answer in answers]
    for start in range(0, len(ids), 100):
        yield from client.store.batch_get_trace_infos(ids[start : start + 100])


def assessments_of(answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """The assessments in MLflow's store, by trace id."""
    from mlflow.tracing.client import TracingClient

    return {info.trace_id: list(info.assessments) for info in _trace_infos(TracingClient(), answers)}


def _build_span(answer: Answer, question: Question, prices: PriceBook) -> Any:
    from mlflow.entities import Span

    trace = trace_id(answer)
    attributes = {
        "mlflow.traceRequestId": trace,
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.llm.model": answer.model,
        "mlflow.spanInputs": {
            "model": answer.model,
            "messages": list(question.messages),
            "tools": list(question.tools),
        },
        "mlflow.spanOutputs": {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": answer.text}}],
        },
        "mlflow.chat.tokenUsage": _token_usage(answer.usage),
        "mlflow.llm.cost": _cost_by_direction(answer, prices),
        "mlflow.traceTag.question_id": question.id,
        "mlflow.traceTag.question_type": question.question_type or "",
        "mlflow.traceTag.model": answer.model,
    }
    return Span.from_dict(
        {
            "trace_id": _base64(trace[3:]),
            "span_id": _base64(root_span_id(trace)),
            "parent_span_id": None,
            "name": answer.model,
            "start_time_unix_nano": answer.started_unix_ns,
            "end_time_unix_nano": answer.started_unix_ns + round(answer.seconds * 1e9),
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {name: json.dumps(value, ensure_ascii=False) for name, value in attributes.items()},
            "events": [],
        }
    )


def _base64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


def _token_usage(usage: Usage) -> dict[str, int]:
    tokens = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    return {**tokens, "cache_read_input_tokens": usage.cached_input_tokens} if usage.cached_input_tokens else tokens


def _cost_by_direction(answer: Answer, prices: PriceBook) -> dict[str, float]:
    output_usd = prices.cost_usd(answer.model, Usage(output_tokens=answer.usage.output_tokens)) or 0.0
    output_usd = min(output_usd * (0.5 if answer.batch else 1.0), answer.cost_usd)
    return {"input_cost": answer.cost_usd - output_usd, "output_cost": output_usd, "total_cost": answer.cost_usd}


def traces_of(answers: Sequence[Answer]) -> list[Any]:
    """The traces of these answers, in the same order."""
    from mlflow.tracing.client import TracingClient

    ids = [trace_id(answer) for answer in answers]
    traces = {trace.info.trace_id: trace for trace in TracingClient().batch_get_traces(ids)}
    return [traces[trace] for trace in ids]


def usage_in_store(runs: Runs, model: str, answers: Sequence[Answer]) -> tuple[int, Usage]:
    """The number of the answers' traces in the run of the model, and the sum of their tokens."""
    import mlflow

    traces = mlflow.search_traces(
        locations=[runs.experiment_id], run_id=runs.models[model], include_spans=False, return_type="list"
    )
    ids = {trace_id(answer) for answer in answers}
    usages = [trace.info.token_usage or {} for trace in traces if trace.info.trace_id in ids]
    total = sum((Usage(usage.get("input_tokens", 0), usage.get("output_tokens", 0)) for usage in usages), Usage())
    return len(usages), total
