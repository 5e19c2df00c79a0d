"""Time and memory of learning against the number of outcomes.

No larger file of recorded outcomes is at hand, so larger ones are resampled: a row is drawn with replacement from the
recorded ones, gets an id of its own, and a share of its words is exchanged for words of other questions of its type.
So the texts are not near-duplicates, and terms grow in number as they would, roughly. Scores and tokens stay those of
the row that was drawn: what is learnt is of no use, only what it costs to learn.

    python benchmarks/learning_scale.py ../shared/data/calibration.jsonl.gz --rows 5000 10000 [--jobs 1 2] [--ray auto]

A policy is told by its SHA-256, so that runs with other numbers of jobs can be compared.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from calibration.outcomes import Outcome, read_outcomes, write_outcomes

PAIR = ("gpt-4o-mini", "gpt-4o")
EXCHANGED = 0.4  # of the words of a question
_WORD = re.compile(r"[^\W\d_]{2,}")


def resample(outcomes: Sequence[Outcome], rows: int, seed: int) -> Iterator[Outcome]:
    """So many outcomes drawn with replacement, with words exchanged within their type."""
    chance = random.Random(seed)
    words: dict[str | None, list[str]] = defaultdict(list)
    for outcome in outcomes:
        words[outcome.question_type] += _WORD.findall(outcome.text)
    for number in range(rows):
        outcome = chance.choice(outcomes)
        of_type = words[outcome.question_type] or ["word"]

        def exchange(match: re.Match[str], of_type: Sequence[str] = of_type) -> str:
            return chance.choice(of_type) if chance.random() < EXCHANGED else match[0]

        messages = [
            {**message, "content": _WORD.sub(exchange, message["content"])}
            if isinstance(message.get("content"), str)
            else message
            for message in outcome.messages
        ]
        yield replace(outcome, id=f"{outcome.id}-resampled-{number}", messages=messages)


def run_measured(file: Path, policy_folder: Path, options: Sequence[str]) -> dict[str, float]:
    """What learning from a file takes: seconds, processor seconds, and MiB at the peak.

    `command_mib` is the peak of the command alone; `all_mib` that of the command and its workers together, in which
    memory that they share counts once. A Ray cluster that was there before is in neither, nor in the processor seconds.
    """
    command = [
        sys.executable,
        "-m",
        "calibration",
        "learn",
        "--outcomes",
        str(file),
        "--out",
        str(policy_folder),
        *options,
    ]
    usage_before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "0"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
    peak = [0, 0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    watcher.start()
    try:
        if process.wait():
            raise SystemExit(f"learning from {file} failed")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers, where it was interrupted
        watcher.join()
    usage_after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage_after.ru_utime + usage_after.ru_stime - usage_before.ru_utime - usage_before.ru_stime
    return {
        "seconds": time.monotonic() - start,
        "processor_seconds": cpu,
        "command_mib": peak[0] / 1024,
        "all_mib": peak[1] / 1024,
    }


def _watch(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    """The peaks in KiB: the command's resident memory as the system tells it, and that of its session, looked at."""
    while process.poll() is None:
        peak[0] = max(peak[0], _kib(Path(f"/proc/{process.pid}/status"), "VmHWM"))
        peak[1] = max(peak[1], sum(_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss") for pid in _session(process.pid)))
        time.sleep(2)


def _kib(file: Path, name: str) -> int:
    with contextlib.suppress(OSError):  # it ended meanwhile
        match = re.search(rf"^{name}:\s+(\d+)", file.read_text(), re.MULTILINE)
        return int(match[1]) if match else 0
    return 0


def _session(leader: int) -> Iterator[int]:
    """The processes of a session."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "stat").read_text().rpartition(")")[2].split()[3] == str(leader):
                yield int(folder.name)


def digest(folder: Path) -> str:
    """The SHA-256 of all files of a folder."""
    hasher = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        hasher.update(file.name.encode() + b"\0" + file.read_bytes())
    return hasher.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1])
    parser.add_argument("--ray")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    recorded = read_outcomes([arguments.outcomes], PAIR, answers=False)
    with tempfile.TemporaryDirectory() as folder:
        for rows in arguments.rows:
            file = Path(folder) / f"{rows}.jsonl"
            write_outcomes(resample(recorded, rows, arguments.seed), file)
            for jobs in arguments.jobs:
                policy_folder = Path(folder) / f"policy-{rows}-{jobs}"
                figures = run_measured(
                    file, policy_folder, ["--jobs", str(jobs), *(["--ray", arguments.ray] if arguments.ray else [])]
                )
                rounded = {name: round(value, 1) for name, value in figures.items()}
                print(
                    json.dumps({"rows": rows, "jobs": jobs, **rounded, "policy": digest(policy_folder)[:16]}),
                    flush=True,
                )


if __name__ == "__main__":
    main()
