"""What a prediction costs: microseconds a request, milliseconds for a long prompt, memory and time to load.

    python benchmarks/prediction.py [--policy data/policy] [--requests ../shared/data/arena_hard.jsonl.gz]

Processor time of one thread (set OMP_NUM_THREADS=1), so that neighbours on the machine count little. Memory is what the
process takes more after loading and predicting. Without requests, prompts are made of the policy's own vocabulary.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router.policy.document import Policy, parse
from router.policy.features import Features, read_question
from router.policy.prediction import predict

LONG_CHARACTERS = 100_000


def resident_mb() -> float:
    """Memory of this process, in megabytes; NaN where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if statm.is_file() else float("nan")


def prompts(policy: Policy, path: Path | None) -> list[list[dict[str, Any]]]:
    """The messages of each request of a file, or made ones."""
    if path is not None and path.is_file():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line)["messages"] for line in lines]
    rng, terms = random.Random(0), sorted(policy.predictor.vocabulary.rows)
    return [[{"role": "user", "content": " ".join(rng.choices(terms, k=rng.randint(10, 300)))}] for _ in range(500)]


def quantiles_ms(policy: Policy, requests: Sequence[Features], rounds: int) -> dict[str, float]:
    """Times of `predict`, each request's best of some rounds apart from the first."""
    best = []
    for features in requests:
        times = []
        for _ in range(rounds):
            start = time.thread_time()
            predict(policy.predictor, features)
            times.append(time.thread_time() - start)
        best.append(min(times[1:]) * 1e3)
    return {"median": float(np.median(best)), "p99": float(np.quantile(best, 0.99))}


def measure(folder: Path, path: Path | None) -> dict[str, Any]:
    """All figures, for one policy."""
    memory_before = resident_mb()
    start = time.thread_time()
    policy = parse({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
    loaded = time.thread_time() - start
    prompt_list = prompts(policy, path)
    words = " ".join(str(message["content"]) for messages in prompt_list for message in messages) or "word"
    text = (words * (LONG_CHARACTERS // len(words) + 1))[:LONG_CHARACTERS]
    requests = [read_question(messages) for messages in prompt_list]
    figures = {
        "load_seconds": loaded,
        "resident_mb": 0.0,
        "requests": len(requests),
        "predict_ms": quantiles_ms(policy, requests, 4),
        "long_prompt_ms": quantiles_ms(policy, [read_question([{"role": "user", "content": text}])] * 30, 3)["median"],
    }
    figures["resident_mb"] = resident_mb() - memory_before
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, default=Path(__file__).parent.parent / "data" / "policy")
    parser.add_argument("--requests", type=Path, help="JSON lines with messages, gzipped")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.policy, arguments.requests)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
