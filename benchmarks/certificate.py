"""Does the promise hold? Recorded outcomes are drawn again and again: learn on the draw, look at all the others.

    python benchmarks/certificate.py ../shared/data [--resplits 1000] [--n 100,200,400] [--only mixed] [--out FILE]

The questions of both files of the gpt-4o pair are one population. A policy is learnt from `n` of them, and its promises
are looked at on all that are neither drawn nor near-duplicates of what was drawn. A resplit violates a promise where
those questions keep less than the target. Scenarios: mixed (all kinds as they come), narrow (four kinds, one user's),
balanced (as many of each kind, and the others weighted alike).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.learning import learn
from calibration.learning.replay import pick_columns, replay_outcomes
from calibration.outcomes import Outcome, read_outcomes
from calibration.policies import load_prices, models_named
from router.policy.rules import Promise

PAIR = ("gpt-4o-mini", "gpt-4o")
TARGETS = (0.95, 0.97)
SIZES = (100, 200, 400, 640, 1600)
SCENARIOS = ("mixed", "narrow", "balanced")
NARROW = ("math/grade-school", "factual/short-answer", "medical/usmle", "tool-use/simple")


@dataclass(frozen=True, slots=True)
class Population:
    """Outcomes to draw from, with what tells them apart."""

    outcomes: Sequence[Outcome]
    groups: np.ndarray  # near-duplicates share a number

    @classmethod
    def read(cls, data: Path) -> Population:
        outcomes = [o for name in ("calibration", "test") for o in read_outcomes([data / f"{name}.jsonl.gz"], PAIR)]
        return cls(outcomes, near_duplicate_groups([outcome.text for outcome in outcomes]))

    def subset(self, scenario: str) -> Population:
        """Those that a scenario draws from."""
        if scenario != "narrow":
            return self
        rows = [i for i, outcome in enumerate(self.outcomes) if outcome.question_type in NARROW]
        return Population([self.outcomes[i] for i in rows], self.groups[rows])


def draw(population: Population, scenario: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from, and rows to look at."""
    order = rng.permutation(len(population.outcomes))
    if scenario == "balanced":
        waiting: dict[str, list[int]] = defaultdict(list)
        for i in order:
            waiting[population.outcomes[i].question_type or ""].append(int(i))
        largest = max(map(len, waiting.values()))
        rounds = [[of_type[k] for of_type in waiting.values() if k < len(of_type)] for k in range(largest)]
        order = np.array([i for row in rounds for i in row])
    drawn_rows = order[:n]
    other_rows = order[n:]
    return drawn_rows, other_rows[~np.isin(population.groups[other_rows], population.groups[drawn_rows])]


def weights_of(population: Population, scenario: str, other_rows: np.ndarray) -> np.ndarray:
    """How much each of the others counts: alike, or alike by type."""
    types = [population.outcomes[i].question_type for i in other_rows]
    counts = Counter(types)
    return np.array([1.0 / counts[t] if scenario == "balanced" else 1.0 for t in types])


def resplit(population: Population, scenario: str, n: int, seed: int) -> dict[float, tuple[float, float]]:
    """By target: the quality that the others keep, and the dollars they save."""
    models = models_named(PAIR, load_prices())
    drawn_rows, other_rows = draw(population, scenario, n, np.random.default_rng(seed))
    rows = [population.outcomes[i] for i in drawn_rows]
    policy = learn(rows, models, seed, {}, None, TARGETS, promise=Promise.CERTIFIED).policy
    replay = replay_outcomes([population.outcomes[i] for i in other_rows], policy.predictor, models)
    weights = weights_of(population, scenario, other_rows)
    results = {}
    for target in TARGETS:
        choices = replay.choose(policy.rules, target)
        kept, saved = (
            float(weights @ pick_columns(table, choices) / (weights @ table[:, -1]))
            for table in (replay.scores, replay.costs_usd)
        )
        results[target] = kept, 1 - saved
    return results


def measure(population: Population, scenario: str, n: int, resplits: int, first_seed: int = 0) -> list[dict[str, Any]]:
    """A row for each target."""
    part = population.subset(scenario)
    results = [resplit(part, scenario, n, seed) for seed in range(first_seed, first_seed + resplits)]
    rows = []
    for target in TARGETS:
        kept, saved = (np.array([result[target][index] for result in results]) for index in (0, 1))
        rows.append(
            {
                "scenario": scenario,
                "n": n,
                "target": target,
                "resplits": resplits,
                "violated": float((kept < target).mean()),
                "by_a_point": float((kept < target - 0.01).mean()),
                "saved": float(np.median(saved)),
                "kept": float(np.median(kept)),
                "not_certified": float((saved == 0).mean()),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--resplits", type=int, default=1000)
    parser.add_argument("--n", default=",".join(map(str, SIZES)))
    parser.add_argument("--only", default=",".join(SCENARIOS))
    parser.add_argument("--seed", type=int, default=0, help="of the first resplit")
    parser.add_argument("--out", type=Path, help="where the rows go as JSON lines")
    arguments = parser.parse_args()
    if not (arguments.data / "test.jsonl.gz").is_file():
        print(f"skipped: the recorded outcomes ({arguments.data}) are not here")
        return 0
    population = Population.read(arguments.data)
    rows = []
    for scenario in arguments.only.split(","):
        for n in map(int, arguments.n.split(",")):
            for row in measure(population, scenario, n, arguments.resplits, arguments.seed):
                rows.append(row)
                print(
                    "{scenario:9} {n:5} {target:.2f} violated {violated:.1%} (by a point {by_a_point:.1%}) "
                    "saved {saved:.3f} kept {kept:.3f} no certificate {not_certified:.1%}".format(**row),
                    flush=True,
                )
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
