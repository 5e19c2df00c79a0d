"""Counters of finished requests, for `/metrics`.

Each worker counts in memory and writes its counts to its own file once a second. The worker that answers `/metrics`
adds up the files. The multiprocess mode of prometheus_client writes to a memory map at every observation, which costs
68 us per request for these metrics; this module costs about 2.5 us. Every request passes through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Container, Iterable, Iterator
from pathlib import Path

import msgspec

from router.journal.writer import Record
from router.lifetime import running
from router.policy.reasons import Reason
from router.upstream.endpoints import Endpoint, Health

log = logging.getLogger(__name__)

# the buckets of OpenTelemetry's semantic conventions for generative AI
TOKEN_BUCKETS = tuple(4**power for power in range(14))
SECONDS_BUCKETS = tuple(0.01 * 2**power for power in range(14))
ADDED_BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)

ENDPOINTS = frozenset({"chat/completions", "completions", "responses", "embeddings", "models"})
OTHER = "other"
MAX_SERIES = 5000  # further kinds of requests are counted together
FLUSH_SECONDS = 1.0
LIVE_SECONDS = 10.0  # a worker that wrote nothing for this long has ended


class Histogram(msgspec.Struct, array_like=True):
    """Counts by bucket, the last for values above all bounds, and the sum of the values."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * 15)
    sum: float = 0.0

    def add(self, other: Histogram) -> None:
        """Add another's counts to these."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum


class Series(msgspec.Struct, array_like=True):
    """Totals of the requests with the same endpoint, model, question type, reason, outcome and status."""

    requests: int = 0
    retries: int = 0  # upstream calls after the first
    client_retries: int = 0  # requests that the client marked as retries
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0  # answered requests of unknown cost
    wasted_usd: float = 0.0  # billed for discarded attempts
    cache_write_tokens: int = 0

    def add(self, other: Series) -> None:
        """Add another's numbers to these."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Timing(msgspec.Struct, array_like=True):
    """Durations and sizes of the requests with the same endpoint, model and error."""

    duration: Histogram = msgspec.field(default_factory=Histogram)
    first_chunk: Histogram = msgspec.field(default_factory=Histogram)  # of streams
    input_tokens: Histogram = msgspec.field(default_factory=Histogram)
    output_tokens: Histogram = msgspec.field(default_factory=Histogram)

    def add(self, other: Timing) -> None:
        """Add another's counts to these."""
        for name in self.__struct_fields__:
            getattr(self, name).add(getattr(other, name))


class Verified(msgspec.Struct, array_like=True):
    """Totals of verified answers with the same outcome and finding."""

    requests: int = 0
    escalation_usd: float = 0.0  # cost of the stronger models' answers

    def add(self, other: Verified) -> None:
        """Add another's numbers to these."""
        self.requests += other.requests
        self.escalation_usd += other.escalation_usd


Judged = tuple[str, str, str]  # model of the first answer, result of the verification, finding
Kind = tuple[str, str, str, str, str, int]  # endpoint, model, question type, reason, outcome, status
Flow = tuple[str, str, str]  # endpoint, model, error ("" for none)


class UpstreamSeries(msgspec.Struct, array_like=True):
    """Calls to one upstream of a model that has several, and its state."""

    answered: int = 0
    failed: int = 0
    left_alone: int = 0  # workers whose circuit breaker is open
    key_refused: int = 0  # workers whose key it rejects


Place = tuple[str, str]  # model, upstream


class Counts(msgspec.Struct):
    """All counts of one worker, or of several."""

    series: list[tuple[Kind, Series]] = []
    timings: list[tuple[Flow, Timing]] = []
    added: Histogram = msgspec.field(default_factory=lambda: Histogram([0] * (len(ADDED_BUCKETS) + 1)))
    open_circuits: list[str] = []
    unrecorded: int = 0
    shed: dict[str, int] = {}  # rejected requests, by reason
    keys: dict[str, Series] = {}  # by the name of the key
    upstreams: list[tuple[Place, UpstreamSeries]] = []
    verified: list[tuple[Judged, Verified]] = []
    written_unix: float = 0.0
    state_away: int = 0  # workers without a connection to the Redis of ROUTER_STATE
    teams: dict[str, Series] = {}  # by the name of the team
    in_flight: int = 0


class Meter:
    """Counts the finished requests of one worker."""

    def __init__(self, directory: Path, models: Iterable[str], keys: Container[str] = ()) -> None:
        """Count into a file of this process in `directory`. Models that are not listed share one label.

        `keys` holds the names of the keys that have their own counts; it may grow.
        """
        self.directory = directory
        self.path = directory / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._models = set(models)
        self._names = keys
        self._keys: dict[str, Series] = {}
        self._teams: dict[str, Series] = {}
        self._known: dict[Kind, tuple[Series, Timing]] = {}  # by unbounded names, each mapped to bounded names once
        self._series: dict[Kind, Series] = {}
        self._timings: dict[Flow, Timing] = {}
        self._added = Histogram([0] * (len(ADDED_BUCKETS) + 1))
        self._verified: dict[Judged, Verified] = {}
        self._changed = True

    def observe(self, record: Record) -> None:
        """Count a finished request."""
        self._changed = True
        model = record.model or record.asked_model
        kind = (record.endpoint, model, record.question_type, record.reason, record.outcome, record.status)
        series, timing = self._known.get(kind) or self._register(kind, record)
        series.requests += 1
        if record.attempts > 1:
            series.retries += record.attempts - 1
        if record.client_retries:
            series.client_retries += 1
        began, first = record.started_unix_ns, record.first_byte_unix_ns
        _count(timing.duration, SECONDS_BUCKETS, (record.ended_unix_ns - began) / 1e9)
        if first is not None and record.stream:
            _count(timing.first_chunk, SECONDS_BUCKETS, (first - began) / 1e9)
        if record.added_ns is not None:
            _count(self._added, ADDED_BUCKETS, record.added_ns / 1e9)
        if record.usage is not None:
            _count_tokens(series, timing, record.usage)
        if record.cost_usd is not None:
            series.cost_usd += record.cost_usd
        elif record.outcome == "answered":
            series.unpriced += 1
        if record.key_id in self._names:
            _count_owner(self._keys, record.key_id, record)
        if record.team:  # the owner gives these names
            _count_owner(self._teams, record.team, record)
        for attempt in record.wasted:
            series.wasted_usd += attempt.get("cost_usd") or 0.0
        if record.verification:
            self._count_verified(record)

    def _count_verified(self, record: Record) -> None:
        model = record.escalated_from or record.model
        judged = (model if model in self._models else OTHER, record.verification, record.finding)
        counted = self._verified.setdefault(judged, Verified())
        counted.requests += 1
        if record.verification == "escalated":
            counted.escalation_usd += record.cost_usd or 0.0

    def _register(self, kind: Kind, record: Record) -> tuple[Series, Timing]:
        """The counters of a new kind of request, under bounded names."""
        endpoint, model, question_type, reason, outcome, status = kind
        if endpoint not in ENDPOINTS:
            endpoint = OTHER
        if (
            model in record.quality or reason == Reason.SUCCESSOR
        ):  # a model of a policy that was promoted after the start
            self._models.add(model)
        elif model and model not in self._models:
            model = OTHER
        error = "" if outcome == "answered" else str(status) if outcome == "failed" else outcome
        bounded = (endpoint, model, question_type, reason, outcome, status)
        found = self._series_of(bounded), self._timing_of((endpoint, model, error))
        if len(self._known) < MAX_SERIES:
            self._known[kind] = found
        return found

    def _series_of(self, kind: Kind) -> Series:
        if kind not in self._series and len(self._series) >= MAX_SERIES:
            kind = (OTHER, OTHER, OTHER, OTHER, OTHER, 0)
        return self._series.setdefault(kind, Series())

    def _timing_of(self, flow: Flow) -> Timing:
        if flow not in self._timings and len(self._timings) >= MAX_SERIES:
            flow = (OTHER, OTHER, OTHER)
        return self._timings.setdefault(flow, Timing())

    def counts(
        self,
        open_circuits: Iterable[str] = (),
        unrecorded: int = 0,
        shed: dict[str, int] | None = None,
        upstreams: Iterable[Endpoint] = (),
    ) -> Counts:
        """The counts so far."""
        series, timings = list(self._series.items()), list(self._timings.items())
        known = [model if model in self._models else OTHER for model in open_circuits]
        places = [_place(endpoint, endpoint.health) for endpoint in upstreams if endpoint.health is not None]
        verified = [*self._verified.items()]
        return Counts(
            *(series, timings, self._added, known, unrecorded, shed or {}, self._keys, places, verified, time.time()),
            teams=self._teams,
        )

    def write(self, counts: Counts) -> None:
        """Write the counts of this worker to its file, replacing the earlier ones."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = self.path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(counts))
        new.replace(self.path)

    @contextlib.asynccontextmanager
    async def writing(self, counts: Callable[[], Counts]) -> AsyncIterator[None]:
        """Write the file once a second and at the end, while the context is open."""
        try:
            with self._locked():
                async with running(self._write_for_ever(counts)):
                    yield
        finally:
            self._try_write(counts)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of this worker's file; it is released when the process ends."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a full disk must not stop the proxy
                self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                lock = stack.enter_context(self.path.with_suffix(".lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    async def _write_for_ever(self, counts: Callable[[], Counts]) -> None:
        written = 0.0
        while True:
            if self._changed or time.monotonic() - written > LIVE_SECONDS / 3:
                written = time.monotonic()
                self._try_write(counts)
            await asyncio.sleep(FLUSH_SECONDS)

    def _try_write(self, counts: Callable[[], Counts]) -> None:
        self._changed = False
        try:
            self.write(counts())
        except OSError as error:  # a full disk must not stop the proxy
            log.warning("cannot write metrics: %s", error)


def _place(endpoint: Endpoint, health: Health) -> tuple[Place, UpstreamSeries]:
    left_alone, refused = int(health.breaker.is_open), int(bool(health.key_refused))
    return (health.model, endpoint.label), UpstreamSeries(health.answered, health.failed, left_alone, refused)


def _count_owner(owners: dict[str, Series], name: str, record: Record) -> None:
    series = owners.setdefault(name, Series())
    series.requests += 1
    if record.usage is not None:
        series.input_tokens += record.usage.get("input_tokens", 0)
        series.output_tokens += record.usage.get("output_tokens", 0)
    if record.cost_usd is not None:
        series.cost_usd += record.cost_usd
    elif record.outcome == "answered":
        series.unpriced += 1


def _count_tokens(series: Series, timing: Timing, usage: dict[str, int]) -> None:
    get = usage.get
    read, written = get("input_tokens", 0), get("output_tokens", 0)
    series.input_tokens += read
    series.output_tokens += written
    series.cached_input_tokens += get("cached_input_tokens", 0)
    series.reasoning_tokens += get("reasoning_tokens", 0)
    series.cache_write_tokens += get("cache_write_tokens", 0)
    _count(timing.input_tokens, TOKEN_BUCKETS, read)
    _count(timing.output_tokens, TOKEN_BUCKETS, written)


def _count(histogram: Histogram, bounds: tuple[float, ...], value: float) -> None:
    if value < 0.0:  # a sum must not decrease when the clock is set back
        value = 0.0
    histogram.counts[bisect_left(bounds, value)] += 1
    histogram.sum += value


def clear(directory: Path) -> None:
    """Remove the counts of ended workers. Called before workers start, so that their counters begin together.

    Files of running workers stay: each holds the lock beside its file.
    """
    for path in directory.glob("*.json"):
        lock = path.with_suffix(".lock")
        with contextlib.suppress(OSError), lock.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
