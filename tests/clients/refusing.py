"""Real clients call a pair of reasoning models as their users do: counts refusals directly and through the router.

Run: make test-clients-refusing [CLIENTS="openai langchain"]. The upstream is `refusing_openai.py`, which refuses what
the real models refuse. Each client asks for `auto`, with the parameters that its users set. Directly, `auto` is another
name for the cheap model of the pair; through the router, the router adapts each request. A run of all clients rewrites
the table in docs/reference/compatibility.md.
"""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from run import CLIENTS, HERE, HOME, PROJECT, free_port, installed, routed, run, score, server

PAIR = "gpt-6-luna,gpt-6-sol"
PAGE = PROJECT / "docs" / "reference" / "compatibility.md"
HEAD = """| Client | Version | Checks passed | Requests | Refused directly | Refused through the router | Repaired |
|---|---|---|---|---|---|---|
"""  # repaired: refusals that the router received from the pair and resolved by a second request
BEGINS, ENDS = "<!-- made by tests/clients/refusing.py -->\n", "<!-- end -->"
METRIC = re.compile(r'^router_requests_total\{.*status="(\d+)".*\} (\S+)$', re.MULTILINE)
STANDARD = "langchain"  # LangChain's own tests, some of which need more than a fake OpenAI returns
COUNTED_SECONDS = 1.5  # after which a worker has written its counts


@dataclass(frozen=True)
class Count:
    """The requests to a server, and those that it answered with an error."""

    requests: int
    refused: int


def main() -> int:
    """Run the clients named on the command line, or all; the exit code is 1 if a user would see a refusal."""
    names = sys.argv[1:] or list(CLIENTS)
    HOME.mkdir(exist_ok=True)
    sys.stdout.write(HEAD)
    rows, failures = "", 0
    for name in names:
        row, passed = compare_client(name)
        rows += row
        failures += not passed
        sys.stdout.write(row)
        sys.stdout.flush()
    if names == list(CLIENTS):
        write_table(rows)
    return 1 if failures else 0


def compare_client(name: str) -> tuple[str, bool]:
    """A client's row of the table, and whether it saw no refusal through the router."""
    client = replace(CLIENTS[name], script=f"refusing_{CLIENTS[name].script}")
    version = installed(name, client)
    with refusing_upstream() as base:
        run(name, client, base, "auto")
        direct_counts = count_upstream_requests(base)
    with refusing_upstream() as base, routed(base, ROUTER_PAIR=PAIR) as router:
        routed_lines = run(name, client, router, "auto")
        router_counts, upstream_counts = count_router_requests(router), count_upstream_requests(base)
    failed = [line for line in routed_lines if not line.startswith("ok ")]
    for line in failed:
        sys.stderr.write(f"  {name}: {line}\n")
    cells = [
        name,
        version,
        score(routed_lines),
        router_counts.requests,
        f"{direct_counts.refused} of {direct_counts.requests}",
    ]
    row = "".join(f"| {cell} " for cell in [*cells, router_counts.refused, upstream_counts.refused]) + "|\n"
    return row, bool(direct_counts.refused and router_counts.requests) and not router_counts.refused and (
        not failed or name == STANDARD
    )


@contextmanager
def refusing_upstream() -> Iterator[str]:
    """A refusing OpenAI whose `auto` is the cheap model of the pair; yields its base URL."""
    port = free_port()
    base = f"http://127.0.0.1:{port}/v1"
    alias = f"auto={PAIR.partition(',')[0]}"
    command = [sys.executable, str(HERE.parent / "refusing_openai.py"), "--port", str(port), "--alias", alias]
    with server(command, base + "/models", {}):
        yield base


def count_upstream_requests(base_url: str) -> Count:
    """The requests to the refusing OpenAI, and its refusals."""
    return Count(len(fetch_list(base_url + "/bodies")), len(fetch_list(base_url + "/refusals")))


def count_router_requests(router: str) -> Count:
    """The requests to the router, and its errors."""
    time.sleep(COUNTED_SECONDS)
    with urllib.request.urlopen(router.removesuffix("/v1") + "/metrics", timeout=30) as answer:
        counts = [(int(status), int(float(count))) for status, count in METRIC.findall(answer.read().decode())]
    return Count(sum(count for _, count in counts), sum(count for status, count in counts if status >= 400))


def fetch_list(url: str) -> list[object]:
    """A list that a server returns as JSON."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        items: list[object] = json.load(answer)
    return items


def write_table(rows: str) -> None:
    """Write the table and the date into the page."""
    before, _, rest = PAGE.read_text().partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    day = datetime.now(UTC).date()
    PAGE.write_text(f"{before}{BEGINS}Run in one go on {day}:\n\n{HEAD}{rows}{ENDS}{after}")


if __name__ == "__main__":
    sys.exit(main())
