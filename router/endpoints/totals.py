"""Adds up the counts of all workers from their files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from router.metrics import (
    ADDED_BUCKETS,
    LIVE_SECONDS,
    Counts,
    Flow,
    Histogram,
    Judged,
    Kind,
    Place,
    Series,
    Timing,
    UpstreamSeries,
    Verified,
)

log = logging.getLogger(__name__)


class Total(msgspec.Struct):
    """The sums over all workers."""

    series: dict[Kind, Series] = {}
    timings: dict[Flow, Timing] = {}
    added: Histogram = msgspec.field(default_factory=lambda: Histogram([0] * (len(ADDED_BUCKETS) + 1)))
    open_circuits: dict[str, int] = {}  # in how many workers
    unrecorded: int = 0
    state_away: int = 0
    in_flight: int = 0
    shed: dict[str, int] = {}
    keys: dict[str, Series] = {}
    teams: dict[str, Series] = {}
    upstreams: dict[Place, UpstreamSeries] = {}
    verified: dict[Judged, Verified] = {}
    workers: int = 0


_decoder = msgspec.json.Decoder(Counts)


def read_counts(directory: Path, but: Path | None = None) -> Iterator[Counts]:
    """The counts of each worker, ended workers included, so that no counter decreases."""
    for path in sorted(directory.glob("*.json")):
        if path == but:
            continue
        try:
            yield _decoder.decode(path.read_bytes())
        except FileNotFoundError:
            continue
        except msgspec.DecodeError as error:  # of another version
            log.warning("metrics: cannot read %s: %s", path.name, error)


def total(workers: Iterable[Counts], now_unix: float) -> Total:
    """Add up the counts of workers. The state of a worker, such as an open circuit, counts only while it runs."""
    together = Total()
    for counts in workers:
        for kind, series in counts.series:
            together.series.setdefault(kind, Series()).add(series)
        for flow, timing in counts.timings:
            together.timings.setdefault(flow, Timing()).add(timing)
        together.added.add(counts.added)
        together.unrecorded += counts.unrecorded
        for why, number in counts.shed.items():
            together.shed[why] = together.shed.get(why, 0) + number
        for owners, into in ((counts.keys, together.keys), (counts.teams, together.teams)):
            for name, series in owners.items():
                into.setdefault(name, Series()).add(series)
        live = now_unix - counts.written_unix < LIVE_SECONDS
        together.state_away += counts.state_away if live else 0
        together.in_flight += counts.in_flight if live else 0
        for place, calls in counts.upstreams:
            sums = together.upstreams.setdefault(place, UpstreamSeries())
            sums.answered += calls.answered
            sums.failed += calls.failed
            sums.left_alone += calls.left_alone * live
            sums.key_refused += calls.key_refused * live
        for judged, verified in counts.verified:
            together.verified.setdefault(judged, Verified()).add(verified)
        if live:
            together.workers += 1
            for model in counts.open_circuits:
                together.open_circuits[model] = together.open_circuits.get(model, 0) + 1
    return together
