"""What the soak is judged by: journal, ledger, MLflow and the upstream's own count, compared by request."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from soak_traffic import Clients, Upstream


def journal_records(home: Path) -> list[dict[str, Any]]:
    """Every request in the journal."""
    records = []
    for segment in sorted((home / "journal").glob("*.jsonl")):
        for line in segment.read_bytes().splitlines():
            record = json.loads(line)
            if record["kind"] == "request":
                records.append(record)
    return records


def mlflow_rows(store: Path) -> dict[str, tuple[int, int, float | None]]:
    """Tokens and cost by trace, as MLflow keeps them."""
    with contextlib.closing(sqlite3.connect(store, timeout=60)) as db:
        columns = {row[1] for row in db.execute("pragma table_info(trace_info)")}
        tokens = [name for name in ("input_tokens", "output_tokens", "total_cost") if name in columns]
        if len(tokens) != 3:
            raise RuntimeError(f"MLflow keeps tokens elsewhere: {sorted(columns)}")
        rows = db.execute("select request_id, input_tokens, output_tokens, total_cost from trace_info")
        return {row[0].removeprefix("tr-"): (row[1] or 0, row[2] or 0, row[3]) for row in rows}


def ledger_rows(home: Path) -> dict[str, tuple[int, int, float | None]]:
    """Tokens and cost by trace, as the usage tables keep them."""
    with contextlib.closing(sqlite3.connect(home / "usage.db", timeout=60)) as db:
        rows = db.execute("select trace_id, input_tokens, output_tokens, cost_usd from router_requests")
        return {row[0]: (row[1] or 0, row[2] or 0, row[3]) for row in rows}


def compare(home: Path, store: Path, upstream: Upstream, clients: Clients) -> dict[str, Any]:
    """Who counted what, and whether they agree."""
    records = journal_records(home)
    by_trace = {record["trace_id"]: record for record in records}
    usage = {trace: record.get("usage") or {} for trace, record in by_trace.items()}
    journal = {
        trace: (usage[trace].get("input_tokens", 0), usage[trace].get("output_tokens", 0), record.get("cost_usd"))
        for trace, record in by_trace.items()
    }
    ledger, mlflow = ledger_rows(home), mlflow_rows(store)
    usage_by_request = {record["request_id"]: usage[trace] for trace, record in by_trace.items() if record.get("usage")}
    differing = [
        request_id
        for request_id, recorded in usage_by_request.items()
        if (billed := upstream.billed.get(request_id)) is None
        or (billed["prompt_tokens"], billed["completion_tokens"])
        != (recorded["input_tokens"], recorded["output_tokens"])
        or billed["prompt_tokens_details"]["cached_tokens"] != recorded["cached_input_tokens"]  # type: ignore[index]
    ]
    outcomes = Counter(record.get("outcome", "answered") for record in records)
    recorded_ids = {record.get("request_id") for record in records}
    return {
        "asked": clients.counts["asked"],
        "clients": dict(clients.counts),
        "upstream_billed": len(upstream.billed),
        "upstream_failed": upstream.failed,
        "journal_records": len(records),
        "journal_traces": len(by_trace),
        "ledger_rows": len(ledger),
        "mlflow_traces": len(mlflow),
        "outcomes": dict(outcomes),
        "whole_answers_without_a_record": len(clients.whole - set(by_trace)),
        "ledger_differs": sum(not same(journal[trace], ledger.get(trace)) for trace in journal),
        "mlflow_differs": sum(not same(journal[trace], mlflow.get(trace)) for trace in journal),
        "usage_unlike_the_upstreams": len(differing),
        "billed_whose_usage_never_arrived": len(
            (set(upstream.billed) & recorded_ids) - set(usage_by_request)
        ),  # the client had left
        "billed_while_the_proxy_was_killed": len(set(upstream.billed) - recorded_ids),
        "tokens": {
            name: [sum(row[index] for row in rows.values()) for rows in (journal, ledger, mlflow)]
            for index, name in ((0, "input"), (1, "output"))
        },
        "cost_usd": [sum(row[2] or 0.0 for row in rows.values()) for rows in (journal, ledger, mlflow)],
        "upstream_tokens": [
            sum(billed[name] for billed in upstream.billed.values()) for name in ("prompt_tokens", "completion_tokens")
        ],
    }


def same(counts: tuple[int, int, float | None], other_counts: tuple[int, int, float | None] | None) -> bool:
    """Whether two counts agree; dollars to a billionth of one."""
    if other_counts is None or counts[:2] != other_counts[:2] or (counts[2] is None) != (other_counts[2] is None):
        return False
    return counts[2] is None or other_counts[2] is None or abs(counts[2] - other_counts[2]) < 1e-9
