"""Real clients ask a pair of reasoning models as their users do: what is refused directly, and through the router.

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
"""  # mended: what the pair refused the router, which sent it again
BEGINS, ENDS = "<!-- made by tests/clients/refusing.py -->\n", "<!-- end -->"
METRIC = re.compile(r'^router_requests_total\{.*status="(\d+)".*\} (\S+)$', re.MULTILINE)
STANDARD = "langchain"  # LangChain's own tests, some of which need more than a made-up OpenAI says
COUNTED_SECONDS = 1.5  # after which a worker has written what it counted


@dataclass(frozen=True)
class Count:
    """Requests that a server got, and those that it answered with an error."""

    requests: int
    refused: int


def main() -> int:
    """Run the clients named on the command line, or all; the exit code tells whether any user would see a refusal."""
    names = sys.argv[1:] or list(CLIENTS)
    HOME.mkdir(exist_ok=True)
    sys.stdout.write(HEAD)
    rows, bad = "", 0
    for name in names:
        row, good = compared(name)
        rows += row
        bad += not good
        sys.stdout.write(row)
        sys.stdout.flush()
    if names == list(CLIENTS):
        write(rows)
    return 1 if bad else 0


def compared(name: str) -> tuple[str, bool]:
    """A client's row of the table, and whether the router kept every refusal from it."""
    client = replace(CLIENTS[name], script=f"refusing_{CLIENTS[name].script}")
    version = installed(name, client)
    with refusing() as base:
        run(name, client, base, "auto")
        direct = asked(base)
    with refusing() as base, routed(base, ROUTER_PAIR=PAIR) as router:
        through = run(name, client, router, "auto")
        seen, behind = answered(router), asked(base)
    failed = [line for line in through if not line.startswith("ok ")]
    for line in failed:
        sys.stderr.write(f"  {name}: {line}\n")
    cells = [name, version, score(through), seen.requests, f"{direct.refused} of {direct.requests}"]
    row = "".join(f"| {cell} " for cell in [*cells, seen.refused, behind.refused]) + "|\n"
    return row, bool(direct.refused and seen.requests) and not seen.refused and (not failed or name == STANDARD)


@contextmanager
def refusing() -> Iterator[str]:
    """An OpenAI that refuses, where `auto` is the cheap model of the pair; its base URL."""
    port = free_port()
    base = f"http://127.0.0.1:{port}/v1"
    alias = f"auto={PAIR.partition(',')[0]}"
    command = [sys.executable, str(HERE.parent / "refusing_openai.py"), "--port", str(port), "--alias", alias]
    with server(command, base + "/models", {}):
        yield base


def asked(base_url: str) -> Count:
    """What the refusing OpenAI got, and refused."""
    return Count(len(fetched(base_url + "/bodies")), len(fetched(base_url + "/refusals")))


def answered(router: str) -> Count:
    """What the router was asked, and answered with an error."""
    time.sleep(COUNTED_SECONDS)
    with urllib.request.urlopen(router.removesuffix("/v1") + "/metrics", timeout=30) as answer:
        counts = [(int(status), int(float(count))) for status, count in METRIC.findall(answer.read().decode())]
    return Count(sum(count for _, count in counts), sum(count for status, count in counts if status >= 400))


def fetched(url: str) -> list[object]:
    """A list that a server tells as JSON."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        found: list[object] = json.load(answer)
    return found


def write(rows: str) -> None:
    """Put the table into the page, with the day."""
    before, _, rest = PAGE.read_text().partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    day = datetime.now(UTC).date()
    PAGE.write_text(f"{before}{BEGINS}Run in one go on {day}:\n\n{HEAD}{rows}{ENDS}{after}")


if __name__ == "__main__":
    sys.exit(main())
