"""`GET /metrics`: the counts of all workers, for Prometheus, with names from OpenTelemetry's GenAI conventions."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from router.adaptation.adapter import Adapter
from router.alerts.alerts import Alerts
from router.alerts.record import SHOWN_SECONDS
from router.client.keys import Keys
from router.endpoints.totals import Total, read_counts, total
from router.journal.lag import lags
from router.journal.writer import Journal
from router.metrics import (
    ADDED_BUCKETS,
    SECONDS_BUCKETS,
    TOKEN_BUCKETS,
    Counts,
    Flow,
    Histogram,
    Judged,
    Meter,
    Place,
    Series,
    Timing,
    UpstreamSeries,
    Verified,
)
from router.policy.document import Policy
from router.serving.policy import Serving
from router.serving.sentinel import SentinelWatch

OPERATIONS = {"chat/completions": "chat", "responses": "chat", "completions": "text_completion"}  # else the endpoint
_FLOW = ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"]


class Collaborators(Protocol):
    """What `/metrics` reports on."""

    keys: Keys
    meter: Meter
    serving: Serving
    journal: Journal
    adapter: Adapter
    alerts: Alerts
    sentinel_watch: SentinelWatch
    warnings: list[str]
    shutdown_dates: dict[str, date]

    def counts(self) -> Counts:
        """The counts of this process so far."""
        ...


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoint."""

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """The metrics of all workers, in the OpenMetrics format if the client accepts it."""
        worker.keys.authenticate(request.scope["headers"]).require_metrics()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        body = await run_in_threadpool(lambda: encode(_Snapshot(families(worker))))
        return Response(body, headers={"content-type": content_type})


class _Snapshot(CollectorRegistry):
    """A registry of metric families that were built for one response."""

    def __init__(self, made: Iterable[Metric]) -> None:
        super().__init__()
        self._made = made

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield from self._made


def families(worker: Collaborators) -> Iterator[Metric]:
    """All metric families."""
    # write the own file first: the worker that answers next then reads at least these counts, so no counter decreases
    own = worker.counts()
    with contextlib.suppress(OSError):  # a full disk, which a metric reports
        worker.meter.write(own)
    counted = total([own, *read_counts(worker.meter.directory, worker.meter.path)], time.time())
    yield from _requests(counted)
    yield from _owners("key", "named keys", counted.keys)
    yield from _owners("team", "teams", counted.teams)
    yield from _upstreams(counted.upstreams)
    yield from _verified(counted.verified)
    yield from _timings(counted.timings)
    yield from _state(counted, worker.serving.policy, worker.serving.default_target)
    yield from _warnings(worker)
    yield from _exporter(worker.journal.directory)


def _requests(counted: Total) -> Iterator[Metric]:
    requests = _Sum("router_requests", "Finished requests.", ["endpoint", "model", "outcome", "status"])
    decisions = _Sum("router_decisions", "Decisions, by reason.", ["model", "question_type", "reason"])
    tokens = _Sum("router_tokens", "Billed tokens. Cached tokens are part of the input.", ["model", "token_type"])
    cost = _Sum("router_cost_usd", "Cost in dollars, if the price is known.", ["model"])
    wasted = _Sum("router_wasted_usd", "Cost of discarded attempts in dollars.", ["model"])
    unpriced = _Sum("router_unpriced_requests", "Answered requests of unknown cost.", ["model"])
    retries = _Sum("router_retries", "Upstream calls after the first.", ["model"])
    client = _Sum("router_client_retries", "Requests that clients marked as retries.", ["model"])
    for (endpoint, model, question_type, reason, outcome, status), series in counted.series.items():
        requests.add(series.requests, endpoint, model, outcome, str(status))
        if reason:
            decisions.add(series.requests, model, question_type, reason)
        for name in ("input", "cached_input", "cache_write", "output", "reasoning"):
            tokens.add(getattr(series, f"{name}_tokens"), model, name)
        cost.add(series.cost_usd, model)
        wasted.add(series.wasted_usd, model)
        unpriced.add(series.unpriced, model)
        retries.add(series.retries, model)
        client.add(series.client_retries, model)
    for made in (requests, decisions, tokens, cost, wasted, unpriced, retries, client):
        yield made.family()


def _owners(kind: str, of: str, owners: Mapping[str, Series]) -> Iterator[Metric]:
    requests = _Sum(f"router_{kind}_requests", f"Finished requests of {of}.", [kind])
    tokens = _Sum(f"router_{kind}_tokens", f"Billed tokens of {of}.", [kind, "token_type"])
    cost = _Sum(f"router_{kind}_cost_usd", f"Cost of {of} in dollars, if the price is known.", [kind])
    unpriced = _Sum(f"router_{kind}_unpriced_requests", f"Answered requests of {of} of unknown cost.", [kind])
    for name, series in owners.items():
        requests.add(series.requests, name)
        tokens.add(series.input_tokens, name, "input")
        tokens.add(series.output_tokens, name, "output")
        cost.add(series.cost_usd, name)
        unpriced.add(series.unpriced, name)
    for made in (requests, tokens, cost, unpriced):
        yield made.family()


def _upstreams(upstreams: Mapping[Place, UpstreamSeries]) -> Iterator[Metric]:
    place = ["model", "upstream"]
    calls = CounterMetricFamily(
        "router_upstream_calls", "Calls to the upstreams of models that have several.", labels=[*place, "outcome"]
    )
    alone = GaugeMetricFamily(
        "router_upstream_left_alone", "Workers whose circuit breaker for this upstream is open.", labels=place
    )
    refused = GaugeMetricFamily("router_upstream_key_refused", "Workers whose key this upstream rejects.", labels=place)
    for labels, series in upstreams.items():
        calls.add_metric([*labels, "answered"], series.answered)
        calls.add_metric([*labels, "failed"], series.failed)
        alone.add_metric(labels, series.left_alone)
        refused.add_metric(labels, series.key_refused)
    yield from (calls, alone, refused)


def _verified(verified: Mapping[Judged, Verified]) -> Iterator[Metric]:
    labels = ["model", "verification", "finding"]
    requests = _Sum("router_verified_answers", "Verified answers, by finding.", labels)
    cost = _Sum("router_escalation_usd", "Cost of the stronger models' answers in dollars.", labels)
    for judged, counted in verified.items():
        requests.add(counted.requests, *judged)
        cost.add(counted.escalation_usd, *judged)
    for made in (requests, cost):
        yield made.family()


class _Sum:
    """Builds a counter; values with the same labels are added up."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self._family = CounterMetricFamily(name, help_text, labels=labels)
        self._sums: dict[tuple[str, ...], float] = {}

    def add(self, number: float, *labels: str) -> None:
        """Add to the counter of these labels."""
        self._sums[labels] = self._sums.get(labels, 0) + number

    def family(self) -> Metric:
        """The counter."""
        for labels, number in self._sums.items():
            self._family.add_metric(labels, number)
        return self._family


def _timings(timings: Mapping[Flow, Timing]) -> Iterator[Metric]:
    duration = HistogramMetricFamily(
        "gen_ai_client_operation_duration_seconds", "From request to last byte.", labels=[*_FLOW, "error_type"]
    )
    first = HistogramMetricFamily(
        "gen_ai_client_operation_time_to_first_chunk_seconds", "From request to first byte, of streams.", labels=_FLOW
    )
    tokens = HistogramMetricFamily("gen_ai_client_token_usage", "Tokens.", labels=[*_FLOW, "gen_ai_token_type"])
    streams: dict[tuple[str, ...], Histogram] = {}
    usage: dict[tuple[str, ...], Histogram] = {}
    for (endpoint, model, error), timing in timings.items():
        flow = (OPERATIONS.get(endpoint, endpoint), "openai", model)
        _add(duration, [*flow, error], SECONDS_BUCKETS, timing.duration)
        streams.setdefault(flow, Histogram()).add(timing.first_chunk)
        usage.setdefault((*flow, "input"), Histogram()).add(timing.input_tokens)
        usage.setdefault((*flow, "output"), Histogram()).add(timing.output_tokens)
    for labels, histogram in streams.items():
        _add(first, labels, SECONDS_BUCKETS, histogram)
    for labels, histogram in usage.items():
        _add(tokens, labels, TOKEN_BUCKETS, histogram)
    yield from (duration, first, tokens)


def _add(family: HistogramMetricFamily, labels: Sequence[str], bounds: Sequence[float], counted: Histogram) -> None:
    if not any(counted.counts):
        return
    buckets, below = [], 0
    for bound, count in zip([*(f"{bound:.12g}" for bound in bounds), "+Inf"], counted.counts, strict=True):
        below += count
        buckets.append((bound, below))
    family.add_metric(labels, buckets=buckets, sum_value=counted.sum)


def _state(counted: Total, policy: Policy, default_target: float) -> Iterator[Metric]:
    added = HistogramMetricFamily("router_added_latency_seconds", "Time to first byte that the router itself spent.")
    _add(added, [], ADDED_BUCKETS, counted.added)
    circuits = GaugeMetricFamily(
        "router_circuit_open", "Workers whose circuit breaker for this model is open.", labels=["model"]
    )
    for model in {*counted.open_circuits, *(model.name for model in policy.rules.models)}:
        circuits.add_metric([model], counted.open_circuits.get(model, 0))
    version = GaugeMetricFamily("router_policy_info", "The served policy.", labels=["version"])
    version.add_metric([policy.version], 1)
    shed = CounterMetricFamily("router_shed_requests", "Requests rejected for lack of memory or time.", labels=["why"])
    for why, number in counted.shed.items():
        shed.add_metric([why], number)
    yield from (added, circuits, version, shed)
    yield CounterMetricFamily(
        "router_unrecorded_requests", "Requests that the journal could not record.", counted.unrecorded
    )
    yield GaugeMetricFamily("router_workers", "Running worker processes.", counted.workers)
    yield GaugeMetricFamily("router_requests_in_flight", "Requests in flight, including streams.", counted.in_flight)
    yield GaugeMetricFamily("router_state_away", "Workers without a connection to Redis.", counted.state_away)
    yield GaugeMetricFamily(
        "router_default_target", "The share of quality that `auto` promises to keep.", default_target
    )
    made = policy_made_unix(policy.about)
    if made is not None:
        yield GaugeMetricFamily(
            "router_policy_age_seconds", "Seconds since the policy was made.", max(time.time() - made, 0)
        )


def _warnings(worker: Collaborators) -> Iterator[Metric]:
    """The warnings of `/health` as numbers for alert rules."""
    serving = worker.serving
    rule = serving.policy.rules.rule_for(serving.default_target)
    certified = rule is not None and rule.certified
    yield GaugeMetricFamily("router_policy_certified", "1 if the promise of `auto` is certified.", int(certified))
    leaving = GaugeMetricFamily(
        "router_model_leaves_days", "Days until a model of the policy is shut down.", labels=["model"]
    )
    today = datetime.now(UTC).date()
    for model, day in worker.shutdown_dates.items():
        leaving.add_metric([model], (day - today).days)
    yield leaving
    warnings = GaugeMetricFamily("router_warnings", "Warnings, as in /health.", labels=["about"])
    warnings.add_metric(["models"], len(worker.warnings))
    warnings.add_metric(["policy"], int(bool(serving.problem)))
    warnings.add_metric(["keys"], int(bool(worker.keys.problem)))
    raised = worker.alerts.all()
    warnings.add_metric(["alerts"], sum(each.alert.unix > time.time() - SHOWN_SECONDS for each in raised))
    yield warnings
    learnt = GaugeMetricFamily(
        "router_learnt_refusals", "Parameters that a model rejected and that are adapted now.", labels=["model"]
    )
    for model, count in Counter(lesson.model for lesson in worker.adapter.lessons).items():
        learnt.add_metric([model], count)
    yield learnt
    alerts = GaugeMetricFamily(
        "router_alerts",
        "Stored alerts. Alerts of a budget are stored until a day after its period ends.",
        labels=["kind", "delivery"],
    )
    for (kind, delivery), number in Counter((each.alert.kind, each.delivery) for each in raised).items():
        alerts.add_metric([kind, delivery], number)
    yield alerts
    yield from _sentinel(worker)


def _sentinel(worker: Collaborators) -> Iterator[Metric]:
    """The sentinel's findings about the served policy; no samples without a sentinel."""
    found = worker.sentinel_watch.report
    drifted = GaugeMetricFamily("router_type_drifted", "1 if the type has drifted.", labels=["question_type"])
    pairs = GaugeMetricFamily("router_type_judged_pairs", "Compared pairs of answers.", labels=["question_type"])
    kept = GaugeMetricFamily(
        "router_type_quality_kept",
        "Quality kept relative to the strong model, as measured by the sentinel.",
        labels=["question_type", "end"],
    )
    for name, its in (found.types if found else {}).items():
        drifted.add_metric([name], int(its.state == "drifted"))
        pairs.add_metric([name], its.pairs)
        for end, value in zip(("low", "estimate", "high"), its.kept, strict=True):
            kept.add_metric([name, end], value)
    changed = GaugeMetricFamily("router_signal_changed", "1 if the signal has changed.", labels=["signal"])
    for signal in found.signals if found else ():
        changed.add_metric([signal.name], int(signal.evidence >= 1))
    age = GaugeMetricFamily("router_sentinel_age_seconds", "Seconds since the sentinel's last check.", labels=[])
    if found is not None:
        age.add_metric([], max(time.time() - found.made_unix, 0))
    yield from (drifted, pairs, kept, changed, age)


def policy_made_unix(about: Mapping[str, Any]) -> float | None:
    """When a policy was made; None if it does not say."""
    try:
        return datetime.fromisoformat(about["made_at"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _exporter(journal: Path) -> Iterator[Metric]:
    behind = GaugeMetricFamily(
        "router_exporter_behind_bytes", "Bytes of the journal that are not exported yet.", labels=["reader"]
    )
    seconds = GaugeMetricFamily(
        "router_exporter_behind_seconds", "Age of the oldest entry that is not exported yet.", labels=["reader"]
    )
    failures = GaugeMetricFamily("router_exporter_failures", "Consecutive failed attempts.", labels=["reader"])
    refused = GaugeMetricFamily(
        "router_exporter_refused_entries", "Entries set aside because the sink rejects them.", labels=["reader"]
    )
    for reader, lag in lags(journal).items():
        behind.add_metric([reader], lag.behind_bytes)
        seconds.add_metric([reader], lag.behind_seconds)
        failures.add_metric([reader], lag.failures)
        refused.add_metric([reader], lag.refused)
    yield from (behind, seconds, failures, refused)
