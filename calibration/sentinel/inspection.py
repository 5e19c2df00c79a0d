"""An inspection: sample recorded requests, compare their answers with the strong model's, and compute the findings.

Answers and verdicts are stored, so an interrupted inspection repeats no call. Dollars are reserved on disk before a
call, so a killed process cannot make the next one exceed the daily limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.sentinel.comparison import compare, max_comparison_usd
from calibration.sentinel.findings import build_sentinel
from calibration.sentinel.ledgers import SentinelLedgers, today
from calibration.sentinel.plan import Plan
from calibration.sentinel.sample import SampledRequest, sample_requests
from calibration.spending import Meter, StoppedError
from router.policy.sentinel import Sentinel

CHUNK_SIZE = 50  # requests that are answered and judged together, unless they are submitted as a batch


@dataclass(frozen=True, slots=True)
class InspectionResult:
    """The findings, and counts of this inspection."""

    sentinel: Sentinel
    new_requests: int
    new_pairs: int
    deferred: int  # sampled requests that exceed the rest of the day's limit
    too_expensive: int  # sampled requests that each exceed the limit of a whole day
    unjudged: int  # sampled requests without an answer of the strong model or a verdict
    spent_usd: float


def inspect(plan: Plan, ledgers: SentinelLedgers, previous: Sentinel | None) -> InspectionResult:
    """Run one inspection; `previous` are the last findings.

    Raises:
        TrafficError: MLflow has no recorded requests.
        StoppedError: an outage, a refusal or an interruption; finished answers and verdicts are stored.
    """
    sampled, new_requests = _sample(plan, ledgers)
    queue = sorted(filter(plan.monitors, sampled), key=lambda request: request.sampling_number)
    affordable = [request for request in queue if max_comparison_usd(plan, request) <= plan.usd_a_day]
    too_expensive = len(queue) - len(affordable)
    queue = affordable
    pairs = unjudged = 0
    spent_usd = 0.0
    while queue and (chunk := _reserve_chunk(plan, ledgers, queue)):
        trace_ids = {request.trace_id for request in chunk}
        queue = [request for request in queue if request.trace_id not in trace_ids]
        meter = Meter(plan.prices, sum(max_comparison_usd(plan, request) for request in chunk))
        try:
            new_pairs, failures = compare(plan, ledgers, chunk, meter)
        except StoppedError:
            (ledgers.hold if plan.batch else ledgers.settle)(trace_ids, meter.spent_usd())  # a batch may be running
            raise
        ledgers.settle(trace_ids, meter.spent_usd())
        spent_usd += meter.spent_usd()
        pairs, unjudged = pairs + new_pairs, unjudged + failures
    findings = build_sentinel(plan, ledgers, previous)
    return InspectionResult(findings, new_requests, pairs, len(queue), too_expensive, unjudged, spent_usd)


def _sample(plan: Plan, ledgers: SentinelLedgers) -> tuple[list[SampledRequest], int]:
    """Sample requests that are not finished, store the new ones oldest first, and count the new ones."""
    version = plan.policy.version
    finished = ledgers.finished_trace_ids()
    sampled = list(sample_requests(plan.tracking_uri, version, plan.share, plan.since, finished))
    new = [request for request in sampled if request.trace_id not in ledgers.requests]
    for request in sorted(new, key=lambda request: request.started_unix_ns):
        ledgers.add_request(request, version)
    return sampled, len(new)


def _reserve_chunk(plan: Plan, ledgers: SentinelLedgers, queue: Sequence[SampledRequest]) -> list[SampledRequest]:
    """Reserve dollars for the head of the queue, up to the first request that exceeds the rest of the day's limit.

    The queue is not searched for cheaper requests, because that would compare cheap requests more often. Requests that
    an interrupted inspection had reserved come first and form one chunk, because their batch may still be running. Held
    ones are reserved already.
    """
    reserved = [request for request in queue if ledgers.is_reserved(request.trace_id)]
    chunk = [request for request in reserved if plan.batch and ledgers.is_held(request.trace_id)]
    remaining_usd = plan.usd_a_day - ledgers.spent_usd(today())
    for request in reserved or (queue if plan.batch else queue[:CHUNK_SIZE]):
        if plan.batch and ledgers.is_held(request.trace_id):
            continue
        remaining_usd -= max_comparison_usd(plan, request)
        if remaining_usd < 0:
            break
        ledgers.reserve(request.trace_id, max_comparison_usd(plan, request))
        chunk.append(request)
    if plan.batch:
        ledgers.hold([request.trace_id for request in chunk], 0.0)
    return chunk
