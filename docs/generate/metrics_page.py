"""The reference of the metrics, from the families that `GET /metrics` exposes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from router.endpoints.exposition import families
from router.settings import Settings
from router.worker import Worker

HEAD = """# Metrics

`GET /metrics` returns the figures of all workers of one router, in the Prometheus text format or in OpenMetrics. It
needs an admin key or `ROUTER_METRICS_KEY`. Metrics whose names begin with `gen_ai_` follow OpenTelemetry's semantic
conventions for generative AI. [`docs/grafana/router.json`](../grafana/router.json) is a Grafana dashboard.
`deploy/prometheus/alerts.yaml` has alert rules, which [Deploy](../how-to/deploy.md#alerts) explains.

This page is generated from the code that exposes them.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The page, in Markdown."""
    with tempfile.TemporaryDirectory() as home:
        worker = Worker(Settings(home=Path(home)))
        rows = [_row(family) for family in families(worker)]
        worker.close()
    return HEAD + "\n".join(sorted(rows)) + "\n"


def _row(family: object) -> str:
    labels = ", ".join(f"`{label}`" for label in family._labelnames)
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |"
