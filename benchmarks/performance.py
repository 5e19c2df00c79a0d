"""Our speed beside that of other proxies, on one core in one interleaved run; writes docs/explanations/performance.md.

    python benchmarks/performance.py ../shared/bench [--peers nginx,tensorzero,...] [--home DIR] [--rounds 3]

The peers that are not installed are named as such in the table. Numbers are processor time and latency of this machine
at this hour: compare within a table, never across two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
PAGE = PROJECT / "docs" / "explanations" / "performance.md"
PEERS = "nginx,tensorzero,vllm_router,sglang_router,portkey,litellm,mlflow_gateway"
ROUTED, NAMED = "router", "router_by_name"  # a request for `auto`, and one for a model by its name
KEY = "sk-benchmark-0123456789"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
GOALS = (
    ("processor time a request, us", ROUTED, "closed_cpu_us", 250.0),
    ("processor time a request by a model's name, us", NAMED, "closed_cpu_us", 150.0),
    ("added latency at 500 requests/s, p50, us", ROUTED, "open500_p50_us", 500.0),
    ("added latency at 500 requests/s, p99, us", ROUTED, "open500_p99_us", 1000.0),
    ("added time to first byte, p50, us", ROUTED, "stream_ttfb_p50_us", 1000.0),
    ("lag of a chunk, p99, us", ROUTED, "stream_chunk_p99_us", 400.0),
)
COLUMNS = (
    ("requests/s", "closed_rps", False),
    ("processor us a request", "closed_cpu_us", False),
    ("added p50 at 500/s, us", "open500_p50_us", True),
    ("added p99 at 500/s, us", "open500_p99_us", True),
    ("added first byte p50, us", "stream_ttfb_p50_us", True),
    ("added chunk lag p99, us", "stream_chunk_p99_us", True),
    ("streams/s", "closed_streams_s", False),
)


def run_benchmark(bench: Path, peers: str, home: str | None, rounds: int) -> dict[str, Any]:
    """One interleaved run of ours, routed and by a model's name, and the peers."""
    with tempfile.TemporaryDirectory() as work:
        result_path, peers_file = Path(work) / "result.json", Path(work) / "peers.json"
        known_peers = json.loads((bench / "peers.json").read_text())
        peers_file.write_text(json.dumps({**known_peers, ROUTED: _router("auto"), NAMED: _router("gpt-4o-mini")}))
        command = [
            sys.executable,
            str(bench / "bench.py"),
            "--peers",
            str(peers_file),
            "--only",
            f"{ROUTED},{NAMED},{peers}",
        ]
        command += ["--baseline", ROUTED, "--rounds", str(rounds), "--time-limit", "900", "--out", str(result_path)]
        subprocess.run(command + (["--home", home] if home else []), check=True)
        return dict(json.loads(result_path.read_text()))


def _router(model: str) -> dict[str, Any]:
    """The router as a server of `bench.py`, whose requests name `model`."""
    return {
        "cmd": f"{sys.executable} -m router serve --host 127.0.0.1 --port {{port}}",
        "model": model,
        "headers": {"Authorization": f"Bearer {KEY}"},
        "env": {
            "OPENAI_BASE_URL": "{upstream}/v1",
            "OPENAI_API_KEY": "sk-test",
            "ROUTER_API_KEYS": KEY,
            "ROUTER_HOME": "{work}/home",
            "PYTHONPATH": str(PROJECT),
        },
    }


def _value(target: dict[str, Any], direct: dict[str, Any], metric: str, *, added: bool) -> float | None:
    measurement = target["metrics"].get(metric)
    if measurement is None or measurement["median"] is None:
        return None
    return float(measurement["median"] - (direct["metrics"][metric]["median"] if added else 0))


def _row(name: str, target: dict[str, Any], direct: dict[str, Any]) -> str:
    if target["error"]:
        return f"| {name} | {str(target['error']).splitlines()[0][:60]} |" + " |" * (len(COLUMNS) - 1)
    cells = []
    for _, metric, added in COLUMNS:
        value = _value(target, direct, metric, added=added)
        measurement = target["metrics"].get(metric)
        if value is None:
            cells.append("over capacity")
            continue
        shift = value - measurement["median"]
        cells.append(f"{value:,.0f} ({measurement['min'] + shift:,.0f} to {measurement['max'] + shift:,.0f})")
    return f"| {name} | " + " | ".join(cells) + " |"


def format_tables(result: dict[str, Any]) -> str:
    """The tables of a run, in Markdown."""
    meta, targets = result["meta"], result["targets"]
    direct, routed = targets["direct"], targets[ROUTED]
    lines = [
        f"Measured {meta['date'][:16]} on {meta['cores']} cores ({meta['cpu']}), {meta['rounds']} interleaved rounds,"
        " one core for the proxy; median (least to most of the rounds). Added latency is what comes on top of asking"
        " the upstream directly, in the same run. The router's figures include its exporter, which"
        " runs at low priority.",
        "",
        "| proxy | " + " | ".join(title for title, _, _ in COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
        *(_row(name, target, direct) for name, target in targets.items() if name != "direct"),
        "",
        "| goal | limit | measured | met |",
        "|---|---|---|---|",
    ]
    for title, target, metric, limit in GOALS:
        value = _value(targets[target], direct, metric, added=metric != "closed_cpu_us")
        rate_text = "over capacity" if value is None else f"{value:,.0f}"
        met = "yes" if value is not None and value <= limit else "no"
        lines.append(f"| {title} | {limit:,.0f} | {rate_text} | {met} |")
    own_cpu_us = _value(routed, direct, "closed_cpu_us", added=False)
    for name, target in targets.items():
        cpu = None if target["error"] else _value(target, direct, "closed_cpu_us", added=False)
        if name not in ("direct", ROUTED, NAMED) and cpu and own_cpu_us:
            lines.append(f"| processor time of {name}, in ours | - | {cpu / own_cpu_us:.2f} times | - |")
    info = routed["info"]
    lines += ["", f"Ready after {info['startup_s']} s; {info['rss_idle_mb']} MB resident at rest, worker and exporter."]
    return "\n".join(lines)


def replace_section(begin: str, end: str, text: str) -> None:
    """Put what was measured between two marks of the page."""
    page = PAGE.read_text()
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
    print(text)


def main() -> None:
    """Measure, and put what was measured between the marks of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="the folder of bench.py")
    parser.add_argument("--peers", default=PEERS, help="which of its peers, comma-separated")
    parser.add_argument("--home", help="where the peers are installed")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not (arguments.bench / "bench.py").exists():
        print(f"{arguments.bench}: there is no bench.py, so nothing is measured and {PAGE.name} stays as it is")
        return
    text = format_tables(run_benchmark(arguments.bench.resolve(), arguments.peers, arguments.home, arguments.rounds))
    replace_section(BEGIN, END, text)


if __name__ == "__main__":
    main()
