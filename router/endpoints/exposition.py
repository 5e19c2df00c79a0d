"""`GET /metrics`: what all workers counted, in the words of Prometheus and of OpenTelemetry's GenAI conventions."""

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
from router.endpoints.totals import Total, everyone, total
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
    leaving: dict[str, date]

    def counts(self) -> Counts:
        """What this process counted so far."""
        ...


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoint."""

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """The numbers of all workers; in OpenMetrics where that is asked for."""
        worker.keys.check(request.scope["headers"]).require_metrics()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        body = await run_in_threadpool(lambda: encode(_Once(families(worker))))
        return Response(body, headers={"content-type": content_type})


class _Once(CollectorRegistry):
    """A registry of families that were made for one answer."""

    def __init__(self, made: Iterable[Metric]) -> None:
        super().__init__()
        self._made = made

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield from self._made


def families(worker: Collaborators) -> Iterator[Metric]:
    """Every metric there is."""
    # one's own file first: whoever is asked next then reads at least as much, so no counter ever falls
    own = worker.counts()
    with contextlib.suppress(OSError):  # a full disk, which the counts tell of
        worker.meter.write(own)
    counted = total([own, *everyone(worker.meter.directory, worker.meter.path)], time.time())
    yield from _requests(counted)
    yield from _keys(counted.keys)
    yield from _upstreams(counted.upstreams)
    yield from _verified(counted.verified)
    yield from _timings(counted.timings)
    yield from _state(counted, worker.serving.policy, worker.serving.default_target)
    yield from _owner(worker)
    yield from _exporter(worker.journal.directory)


def _requests(counted: Total) -> Iterator[Metric]:
    requests = _Sum("router_requests", "Finished requests.", ["endpoint", "model", "outcome", "status"])
    decisions = _Sum("router_decisions", "Decisions, by what they rest on.", ["model", "question_type", "reason"])
    tokens = _Sum("router_tokens", "Tokens as billed; cached ones are among the input.", ["model", "token_type"])
    cost = _Sum("router_cost_usd", "Dollars, where the price is known.", ["model"])
    wasted = _Sum("router_wasted_usd", "Dollars of attempts that were thrown away.", ["model"])
    unpriced = _Sum("router_unpriced_requests", "Answered requests whose cost is not known.", ["model"])
    retries = _Sum("router_retries", "Calls to upstreams beyond the first.", ["model"])
    client = _Sum("router_client_retries", "Requests that clients say they sent before.", ["model"])
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


def _keys(keys: Mapping[str, Series]) -> Iterator[Metric]:
    requests = _Sum("router_key_requests", "Finished requests of named keys.", ["key"])
    tokens = _Sum("router_key_tokens", "Tokens of named keys, as billed.", ["key", "token_type"])
    cost = _Sum("router_key_cost_usd", "Dollars of named keys, where the price is known.", ["key"])
    unpriced = _Sum("router_key_unpriced_requests", "Answered requests of named keys, of unknown cost.", ["key"])
    for name, series in keys.items():
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
    alone = GaugeMetricFamily("router_upstream_left_alone", "Workers that leave this upstream alone.", labels=place)
    refused = GaugeMetricFamily("router_upstream_key_refused", "Workers whose key it refuses.", labels=place)
    for labels, series in upstreams.items():
        calls.add_metric([*labels, "answered"], series.answered)
        calls.add_metric([*labels, "failed"], series.failed)
        alone.add_metric(labels, series.left_alone)
        refused.add_metric(labels, series.key_refused)
    yield from (calls, alone, refused)


def _verified(verified: Mapping[Judged, Verified]) -> Iterator[Metric]:
    labels = ["model", "verification", "finding"]
    requests = _Sum("router_verified_answers", "Answers that were verified, by what was found.", labels)
    cost = _Sum("router_escalation_usd", "Dollars of the answers of stronger models.", labels)
    for judged, counted in verified.items():
        requests.add(counted.requests, *judged)
        cost.add(counted.escalation_usd, *judged)
    for made in (requests, cost):
        yield made.family()


class _Sum:
    """A counter in the making: kinds that share their labels are added up."""

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
    added = HistogramMetricFamily("router_added_latency_seconds", "Time to first byte that the router took itself.")
    _add(added, [], ADDED_BUCKETS, counted.added)
    circuits = GaugeMetricFamily("router_circuit_open", "Workers that leave this model alone.", labels=["model"])
    for model in {*counted.open_circuits, *(model.name for model in policy.rules.models)}:
        circuits.add_metric([model], counted.open_circuits.get(model, 0))
    version = GaugeMetricFamily("router_policy_info", "The policy that is served.", labels=["version"])
    version.add_metric([policy.version], 1)
    shed = CounterMetricFamily("router_shed_requests", "Requests refused for want of room or time.", labels=["why"])
    for why, number in counted.shed.items():
        shed.add_metric([why], number)
    yield from (added, circuits, version, shed)
    yield CounterMetricFamily("router_unrecorded_requests", "Requests the journal had no room for.", counted.unrecorded)
    yield GaugeMetricFamily("router_workers", "Processes that answer.", counted.workers)
    yield GaugeMetricFamily("router_state_away", "Workers whose Redis is away.", counted.state_away)
    yield GaugeMetricFamily("router_default_target", "Share of quality that `auto` keeps.", default_target)
    made = policy_made_unix(policy.about)
    if made is not None:
        yield GaugeMetricFamily("router_policy_age_seconds", "Since it was made.", max(time.time() - made, 0))


def _owner(worker: Collaborators) -> Iterator[Metric]:
    """What `/health` says in words to the owner, as numbers that alerts can be made of."""
    serving = worker.serving
    rule = serving.policy.rules.rule(serving.default_target)
    certified = rule is not None and rule.certified
    yield GaugeMetricFamily("router_policy_certified", "1 if `auto` routes by a certified promise.", int(certified))
    leaving = GaugeMetricFamily(
        "router_model_leaves_days", "Days until a model of the policy leaves its upstream.", labels=["model"]
    )
    today = datetime.now(UTC).date()
    for model, day in worker.leaving.items():
        leaving.add_metric([model], (day - today).days)
    yield leaving
    warnings = GaugeMetricFamily("router_warnings", "What the owner should know, as in /health.", labels=["about"])
    warnings.add_metric(["models"], len(worker.warnings))
    warnings.add_metric(["policy"], int(bool(serving.problem)))
    warnings.add_metric(["keys"], int(bool(worker.keys.problem)))
    raised = worker.alerts.all()
    warnings.add_metric(["alerts"], sum(each.alert.unix > time.time() - SHOWN_SECONDS for each in raised))
    yield warnings
    learnt = GaugeMetricFamily("router_learnt_refusals", "What a model's refusals taught, in force.", labels=["model"])
    for model, count in Counter(lesson.model for lesson in worker.adapter.lessons).items():
        learnt.add_metric([model], count)
    yield learnt
    alerts = GaugeMetricFamily(
        "router_alerts",
        "Alerts that are kept, those of a budget until a day after it ends.",
        labels=["kind", "delivery"],
    )
    for (kind, delivery), number in Counter((each.alert.kind, each.delivery) for each in raised).items():
        alerts.add_metric([kind, delivery], number)
    yield alerts
    yield from _sentinel(worker)


def _sentinel(worker: Collaborators) -> Iterator[Metric]:
    """What the sentinel found of the policy that is served; no samples where none watches."""
    found = worker.sentinel_watch.found
    drifted = GaugeMetricFamily("router_type_drifted", "1 if the type was shown to drift.", labels=["question_type"])
    pairs = GaugeMetricFamily("router_type_judged_pairs", "Pairs of answers compared.", labels=["question_type"])
    kept = GaugeMetricFamily(
        "router_type_quality_kept", "Of the strong model's, by the sentinel.", labels=["question_type", "end"]
    )
    for name, its in (found.types if found else {}).items():
        drifted.add_metric([name], int(its.state == "drifted"))
        pairs.add_metric([name], its.pairs)
        for end, value in zip(("low", "estimate", "high"), its.kept, strict=True):
            kept.add_metric([name, end], value)
    changed = GaugeMetricFamily("router_signal_changed", "1 if it was shown to be another.", labels=["signal"])
    for signal in found.signals if found else ():
        changed.add_metric([signal.name], int(signal.evidence >= 1))
    age = GaugeMetricFamily("router_sentinel_age_seconds", "Since its last look.", labels=[])
    if found is not None:
        age.add_metric([], max(time.time() - found.made_unix, 0))
    yield from (drifted, pairs, kept, changed, age)


def policy_made_unix(about: Mapping[str, Any]) -> float | None:
    """When a policy was made, where it says so."""
    try:
        return datetime.fromisoformat(about["made_at"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _exporter(journal: Path) -> Iterator[Metric]:
    behind = GaugeMetricFamily("router_exporter_behind_bytes", "Journal not yet exported.", labels=["reader"])
    seconds = GaugeMetricFamily("router_exporter_behind_seconds", "Age of what is exported next.", labels=["reader"])
    failures = GaugeMetricFamily("router_exporter_failures", "Attempts in a row that failed.", labels=["reader"])
    refused = GaugeMetricFamily("router_exporter_refused_entries", "Entries put aside for good.", labels=["reader"])
    for reader, lag in lags(journal).items():
        behind.add_metric([reader], lag.behind_bytes)
        seconds.add_metric([reader], lag.behind_seconds)
        failures.add_metric([reader], lag.failures)
        refused.add_metric([reader], lag.refused)
    yield from (behind, seconds, failures, refused)
