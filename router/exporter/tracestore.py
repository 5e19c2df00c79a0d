"""Writes traces to MLflow, each exactly once; creates the store and the experiment if needed.

A trace has the id that the journal assigned, and a store keeps one span per id. Writing a batch again, after a crash
or a lost response, changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from router.exporter import traces
from router.journal.refused import RefusedError, unfit_is_refused
from router.journal.writer import Entry, Record
from router.policy.prices import PriceBook
from router.serving.champion import import_mlflow
from router.settings import Settings

log = logging.getLogger(__name__)

SERVER_BATCH = 500
SQLITE_BATCH = 100  # a batch holds the write lock for about 0.7 s, and other processes write too
FIRST_BATCH = 50  # doubled while the store is quick, halved when it is slow
QUICK_SECONDS = 5.0
SERVER_TIMEOUT_SECONDS = 60


def disable_network_lookups() -> None:
    """Keep MLflow from fetching prices, which we know, and from retrying, which the exporter does."""
    os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SERVER_TIMEOUT_SECONDS))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def is_sqlite(uri: str) -> bool:
    return uri.startswith("sqlite:///")


class TraceStore:
    """The traces of one experiment."""

    def __init__(self, settings: Settings, prices: PriceBook) -> None:
        disable_network_lookups()
        self.uri = settings.tracking_uri
        self.batch = FIRST_BATCH
        self._largest_batch = SQLITE_BATCH if is_sqlite(self.uri) else SERVER_BATCH
        self._home = settings.home
        self._experiment_name = settings.mlflow_experiment_name
        self._prices = prices
        self._store: Any = None
        self._experiment_id = ""

    def write(self, entries: Sequence[Entry]) -> None:
        """Write the traces of `entries`. After any error they can be written again.

        Raises:
            RefusedError: MLflow rejects an entry even as a minimal trace.
        """
        records = [entry for entry in entries if isinstance(entry, Record)]
        if not records:
            return
        began = time.monotonic()
        try:
            self._connect()
            self._write(records)
        except BaseException:
            self._experiment_id = ""  # looked up again: the server may have restarted with another database
            self.batch = max(self.batch // 2, 1)
            raise
        if time.monotonic() - began < QUICK_SECONDS:
            self.batch = min(self.batch * 2, self._largest_batch)
        else:
            self.batch = max(self.batch // 2, FIRST_BATCH)

    def ready(self) -> Any:
        """MLflow's store, connected."""
        self._connect()
        return self._store

    def _write(self, records: Sequence[Record]) -> None:
        try:
            self._send([span for record in records for span in _spans(record, self._prices)])
        except RefusedError as refusal:
            if len(records) > 1:
                half = len(records) // 2
                self._write(records[:half])
                self._write(records[half:])
                return
            log.error("MLflow rejects trace %s; a minimal trace is written instead: %s", records[0].trace_id, refusal)
            with unfit_is_refused():
                spans = traces.bare(records[0])
            self._send(spans)

    def _send(self, spans: Sequence[Span]) -> None:
        from mlflow.entities.span import Span as MlflowSpan

        with refusals():
            with unfit_is_refused():
                converted = [MlflowSpan.from_otel_proto(span) for span in spans]
            self._store.log_spans(self._experiment_id, converted)

    def _connect(self) -> None:
        if self._experiment_id:
            return
        self._store = open_store(self.uri, self._home)
        self._experiment_id = experiment_id(self._store, self._experiment_name)


def _spans(record: Record, prices: PriceBook) -> list[Span]:
    with unfit_is_refused():
        return traces.spans(record, prices)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raise `RefusedError` for what MLflow rejects permanently. Authorization, absence and rate limits may change."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        status = error.get_http_status_code()
        if 400 <= status < 500 and status not in (401, 403, 404, 408, 429):
            raise RefusedError(str(error)[:500]) from error
        raise


def open_store(uri: str, home: Path) -> Any:
    """Open MLflow's store at `uri`. One process at a time creates or migrates an SQLite file."""
    import_mlflow()
    from mlflow.tracking._tracking_service.utils import _get_store

    if not is_sqlite(uri):
        return _get_store(uri)
    path = Path(uri.removeprefix("sqlite:///"))
    artifacts = f"{(home / 'artifacts').absolute()}"
    with _locked(path):
        if path.exists():
            _upgrade(uri)
        else:
            _create(path, artifacts)
        return _get_store(uri, artifact_uri=artifacts)


def _create(path: Path, artifacts: str) -> None:
    """Create an SQLite store under another name first: MLflow cannot continue a creation that was interrupted."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    new = path.with_name(f"{path.name}.new")
    for leftover in path.parent.glob(f"{new.name}*"):  # with its write-ahead log
        leftover.unlink()
    SqlAlchemyStore(f"sqlite:///{new}", artifacts).engine.dispose()
    with contextlib.closing(sqlite3.connect(new)) as store:
        store.execute("PRAGMA journal_mode=WAL")  # readers are not blocked while a batch is written
    new.replace(path)


def _upgrade(uri: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import (
        _all_tables_exist,
        _upgrade_db,
        _verify_schema,
        create_sqlalchemy_engine_with_retry,
    )

    engine = create_sqlalchemy_engine_with_retry(uri)
    try:
        if _all_tables_exist(engine):
            try:
                _verify_schema(engine)
            except MlflowException:
                _upgrade_db(engine)  # created by an older MLflow
    finally:
        engine.dispose()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the store: concurrent migrations crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name("mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def experiment_id(store: Any, name: str) -> str:
    """The id of the experiment with that name; created if needed."""
    from mlflow.exceptions import MlflowException

    if (found := store.get_experiment_by_name(name)) is None:
        try:
            return str(store.create_experiment(name))
        except MlflowException:  # another process was faster
            found = store.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise RuntimeError(f"experiment {name!r} is deleted in MLflow; restore it or set MLFLOW_EXPERIMENT_NAME")
    return str(found.experiment_id)
