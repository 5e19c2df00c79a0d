"""`GET /router/overview`: the data of the dashboard, from the sums of `router/usage/tallies.py`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.adaptation.adapter import Adapter
from router.errors import BadRequestError, StoreError
from router.json_response import json_response
from router.notices import Collaborators as Reporting
from router.notices import notices
from router.policy.mix import quality_kept_by_mix, target_support
from router.policy.rules import Rules
from router.settings import Settings
from router.usage.tallies import DAY, HOUR, MINUTE, SUMS, percentile, reading

STRONG = {"low": "strong_low_usd", "estimate": "strong_usd", "high": "strong_high_usd"}
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MAX_MODELS = 12  # largest models listed; clients may send arbitrary names


class Collaborators(Reporting, Protocol):
    """What the overview needs."""

    settings: Settings
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class Window:
    """A period that ends now, and the step of its charts."""

    table: str
    seconds: int
    step: int

    def span(self, now_unix: float) -> tuple[int, int]:
        """Start and end of the period, both multiples of the step."""
        until = (int(now_unix) // self.step + 1) * self.step
        return until - self.seconds, until


WINDOWS = {
    "hour": Window("minutes", HOUR, MINUTE),
    "day": Window("hours", DAY, HOUR),
    "week": Window("hours", 7 * DAY, 6 * HOUR),
    "month": Window("days", 30 * DAY, DAY),
}


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoint."""

    @app.get("/router/overview")
    async def overview(request: Request, window: str = "hour") -> Response:
        """Totals, by model, over time, by question type and by reason, of the last hour, day, week or month."""
        try:
            worker.keys.authenticate(request.scope["headers"]).require_admin()
            if window not in WINDOWS:
                raise BadRequestError(f"window: expected one of {', '.join(WINDOWS)}", "window")
            rules, target = worker.serving.policy.rules, worker.serving.default_target
            path = worker.settings.home / "tallies.db"
            seen = await run_in_threadpool(summed, path, WINDOWS[window], rules, time.time(), target)
        except sqlite3.Error as error:
            raise StoreError(f"The usage sums in {path.name} cannot be read: {error}") from error
        now = {
            "simulated": worker.settings.simulated,
            "upstreams": [status._asdict() for status in worker.upstreams.statuses()],
            "warnings": await run_in_threadpool(lambda: notices(worker, alerts=True)),
            "learnt": worker.adapter.describe_lessons(),
            "content": worker.settings.record_content,
            "default_target": target,
            "policy_version": worker.serving.policy.version,
            "sentinel": worker.sentinel_watch.report,
        }
        return json_response({"window": window, **now, **seen})


def summed(path: Path, window: Window, rules: Rules, now_unix: float, target: float) -> dict[str, Any]:
    """Sum the requests of a window, from the store at `path`; `target` is the target of `auto`."""
    since, until = window.span(now_unix)
    total, models, types, steps = Sums(), Group(), Group(), Group()
    reasons: list[sqlite3.Row] = []
    times: list[sqlite3.Row] = []
    verified: list[sqlite3.Row] = []
    with reading(path) as store:
        if store is not None:
            for row in _rows(store, window, since, "unix / :step * :step AS step, model, outcome"):
                for sums in (total, models.at(row["model"]), steps.at(row["step"])):
                    sums.add(row)
            for row in _rows(store, window, since, "question_type, model, outcome"):
                types.at(row["question_type"]).add(row)
            reasons = _reasons(store, window, since)
            times = _times(store, window, since)
            verified = _verified(store, window, since)
    return {
        "from_unix": since,
        "to_unix": until,
        "step_seconds": window.step,
        "total": {**total.as_mapping(), "milliseconds": _percentiles(times)},
        "models": [{"model": name, **sums.as_mapping()} for name, sums in models.largest(MAX_MODELS)],
        "over_time": _over_time(steps, times, range(since, until, window.step)),
        "types": [_type(name, sums, rules) for name, sums in types.largest(200) if name],
        "reasons": [{"reason": row["reason"], "requests": int(row["requests"])} for row in reasons],
        "verified": [dict(row) for row in verified],
        "mix": _mix({name: sums.requests for name, sums in types.sums.items() if name}, rules, target),
    }


def _rows(store: sqlite3.Connection, window: Window, since: int, groups: str) -> list[sqlite3.Row]:
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
    return store.execute(
        f"SELECT {groups}, {sums} FROM {window.table} WHERE unix >= :since GROUP BY 1, 2, 3",  # noqa: S608
        {"step": window.step, "since": since},
    ).fetchall()


def _reasons(store: sqlite3.Connection, window: Window, since: int) -> list[sqlite3.Row]:
    return store.execute(
        f"SELECT reason, sum(requests) AS requests FROM {window.table} "  # noqa: S608
        "WHERE unix >= ? AND reason <> '' GROUP BY 1 ORDER BY 2 DESC",
        (since,),
    ).fetchall()


def _times(store: sqlite3.Connection, window: Window, since: int) -> list[sqlite3.Row]:
    return store.execute(
        f"SELECT unix / ? * ? AS step, what, bucket, sum(requests) AS requests FROM {window.table}_times "  # noqa: S608
        "WHERE unix >= ? GROUP BY 1, 2, 3",
        (window.step, window.step, since),
    ).fetchall()


def _verified(store: sqlite3.Connection, window: Window, since: int) -> list[sqlite3.Row]:
    """Verification results; empty for a store of an earlier version."""
    name = f"{window.table}_verified"
    if not store.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]:
        return []
    return store.execute(
        "SELECT verification, finding, sum(requests) AS requests, sum(escalation_usd) AS escalation_usd "  # noqa: S608
        f"FROM {name} WHERE unix >= ? GROUP BY 1, 2 ORDER BY 3 DESC",
        (since,),
    ).fetchall()


class Sums:
    """Sums over the requests of one group."""

    __slots__ = ("by_model", "by_outcome", "numbers")

    def __init__(self) -> None:
        self.numbers = dict.fromkeys(SUMS, 0.0)
        self.by_model: dict[str, int] = {}
        self.by_outcome: dict[str, int] = {}

    def add(self, row: sqlite3.Row) -> None:
        """Add a row of the store."""
        for name in SUMS:
            self.numbers[name] += row[name]
        for known, name in ((self.by_model, row["model"]), (self.by_outcome, row["outcome"])):
            known[name] = known.get(name, 0) + int(row["requests"])

    @property
    def requests(self) -> int:
        """The number of requests."""
        return int(self.numbers["requests"])

    def as_mapping(self) -> dict[str, Any]:
        """The sums as JSON values. Savings are net of failed and discarded attempts."""
        numbers = self.numbers
        paid = numbers["compared_usd"] + numbers["vain_usd"] + numbers["wasted_usd"]
        strong = {end: numbers[name] for end, name in STRONG.items()}
        whole = ("requests", "unpriced", "compared", "input_tokens", "output_tokens")
        return {
            **{name: int(numbers[name]) for name in whole},
            "cost_usd": numbers["cost_usd"],
            "wasted_usd": numbers["wasted_usd"],
            "always_strong_usd": strong,
            "saved_usd": {end: strong[end] - paid for end in STRONG},
            "models": _first(self.by_model, MAX_MODELS),
            "outcomes": self.by_outcome,
        }


class Group:
    """Sums by name."""

    def __init__(self) -> None:
        self.sums: dict[Any, Sums] = {}

    def at(self, name: Any) -> Sums:
        """The sums of one name, created if necessary."""
        sums = self.sums.get(name)
        if sums is None:
            sums = self.sums[name] = Sums()
        return sums

    def largest(self, limit: int) -> list[tuple[Any, Sums]]:
        """Up to `limit` names with the most requests, largest first."""
        return sorted(self.sums.items(), key=lambda item: -item[1].requests)[:limit]


def _first(counts: Mapping[str, int], limit: int) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:limit])


def _percentiles(times: Iterable[sqlite3.Row]) -> dict[str, dict[str, float | None]]:
    counts: dict[str, dict[int, int]] = {"added": {}, "first_byte": {}, "whole": {}}
    for row in times:
        buckets = counts[row["what"]]
        buckets[row["bucket"]] = buckets.get(row["bucket"], 0) + row["requests"]
    return {
        kind: {name: percentile(buckets, share) for name, share in SHARES.items()} for kind, buckets in counts.items()
    }


def _over_time(steps: Group, times: Iterable[sqlite3.Row], span: range) -> list[dict[str, Any]]:
    by_step: dict[int, list[sqlite3.Row]] = {}
    for row in times:
        by_step.setdefault(row["step"], []).append(row)
    return [
        {"unix": unix, **steps.at(unix).as_mapping(), "milliseconds": _percentiles(by_step.get(unix, []))}
        for unix in span
    ]


def _type(name: str, sums: Sums, rules: Rules) -> dict[str, Any]:
    evidence = rules.evidence.get(name)
    known: dict[str, Any] = {"kind": "none", "n": 0, "quality": {}}
    if evidence is not None:
        quality = {model: interval._asdict() for model, interval in evidence.quality.items()}
        known = {"kind": evidence.kind, "n": evidence.n, "quality": quality}
    return {"question_type": name, **sums.as_mapping(), "evidence": known}


def _mix(requests: Mapping[str, int], rules: Rules, target: float) -> dict[str, Any]:
    """Compare traffic with the calibration: requests by kind of evidence, distance, and expected quality."""
    kinds = {"measured": 0, "published": 0, "transferred": 0, "none": 0}
    live: dict[str, int] = {}
    for name, count in requests.items():
        kind = rules.evidence[name].kind if name in rules.evidence else "none"
        kinds[kind] += count
        if kind == "measured":
            live[name] = count
    calibrated = {name: evidence.n for name, evidence in rules.evidence.items() if evidence.kind == "measured"}
    kept = quality_kept_by_mix(rules, target, requests)
    return {
        "requests": kinds,
        "calibrated": calibrated,
        "quality_kept": kept and {**kept._asdict(), "holds": target_support(kept, target)},
        "distance": _distance(live, calibrated),  # 0: same mix; 1: nothing in common; None: no traffic
    }


def _distance(live: Mapping[str, int], calibrated: Mapping[str, int]) -> float | None:
    """Total variation distance: the share of the traffic that would have to change type to match.

    >>> _distance({"a": 3, "b": 1}, {"a": 50, "b": 50})
    0.25
    """
    total, of = sum(live.values()), sum(calibrated.values())
    if not total or not of:
        return None
    names = {*live, *calibrated}
    return sum(abs(live.get(name, 0) / total - calibrated.get(name, 0) / of) for name in names) / 2
