"""Does the promise hold? Recorded outcomes are split again and again: certify on one part, look at the other.

    python benchmarks/certificate.py ../shared/data/calibration.jsonl.gz [--resplits 1000] [--out FILE]

A policy's predictor is fitted on 40 % of the outcomes, once a seed. Of the rest, `--questions` certify a threshold at
95 % confidence and the others show what it keeps and saves; near-duplicates stay on one side. A resplit violates the
promise where the other questions keep less than the target. Those are a sample too, so that an exact threshold would
fail half of the time: `violated_pool` asks the same of all questions of the pool. The saving is compared with the best
threshold of the same walk, chosen in hindsight on the questions that show.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from calibration.certificate import CONFIDENCE, Walk, losses, p_value, threshold_grid
from calibration.learning import examples_of, measured_evidence, rules_for, split
from calibration.outcomes import Outcome, read_outcomes
from calibration.policies import load_prices, models_named
from calibration.predictor import fit
from calibration.replay import picked, replayed

PAIR = ("gpt-4o-mini", "gpt-4o")
TARGETS = (0.95, 0.97, 0.99)
POOL_SHARE = 0.6
METHODS = ("betting (exact)", "t-test (approximate)", "cheapest that kept the target (naive)")


@dataclass(frozen=True, slots=True)
class Pool:
    """Every step of the walk on questions that the predictor has not seen. G steps, n questions."""

    losses: np.ndarray  # (G, n)
    scores: np.ndarray  # (G, n) of the model decided on
    costs_usd: np.ndarray  # (G, n)
    strong_scores: np.ndarray  # (n,)
    strong_costs_usd: np.ndarray  # (n,)
    groups: np.ndarray  # (n,)
    target: float

    def kept(self, rows: np.ndarray) -> np.ndarray:
        """The share of the strong model's quality at every step (G,)."""
        return np.asarray(self.scores[:, rows].sum(axis=1) / self.strong_scores[rows].sum())

    def saved(self, rows: np.ndarray) -> np.ndarray:
        """The share of the strong model's dollars saved at every step (G,)."""
        return np.asarray(1 - self.costs_usd[:, rows].sum(axis=1) / self.strong_costs_usd[rows].sum())


def pools(outcomes: Sequence[Outcome], seed: int, targets: Sequence[float]) -> list[Pool]:
    """Fit on a part, and replay every step of every target's walk on the rest."""
    models = models_named(PAIR, load_prices())
    examples = examples_of(outcomes, PAIR)
    fitted_on, held = split(examples.groups, POOL_SHARE, seed)
    predictor = fit(examples.part(fitted_on), PAIR, seed).export()
    evidence = measured_evidence(examples.part(fitted_on), PAIR)
    grid = threshold_grid(replayed([outcomes[i] for i in fitted_on], predictor, models).gaps_per_usd)
    replay = replayed([outcomes[i] for i in held], predictor, models)
    walk = Walk(grid, rules_for(models, evidence), replay, examples.groups[held])
    made = []
    for target in targets:
        chosen = [walk.chosen(target, step) for step in range(len(grid))]
        made.append(
            Pool(
                losses=np.array([losses(replay.scores, c, target) for c in chosen]),
                scores=np.array([picked(replay.scores, c) for c in chosen]),
                costs_usd=np.array([picked(replay.costs_usd, c) for c in chosen]),
                strong_scores=replay.scores[:, -1],
                strong_costs_usd=replay.costs_usd[:, -1],
                groups=walk.groups,
                target=target,
            )
        )
    return made


def t_test(values: np.ndarray, _low: float) -> float:
    """Student's test that the mean is above 0: tighter than the exact one, and approximate."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    return float(stats.t.sf(values.mean() / max(error, 1e-12), len(values) - 1))


def last_passed(pool: Pool, rows: np.ndarray, test: Callable[[np.ndarray, float], float]) -> int:
    """The last step of the walk that passes, -1 where the first fails."""
    for step, values in enumerate(pool.losses):
        if test(values[rows], -pool.target) > 1 - CONFIDENCE:
            return step - 1
    return len(pool.losses) - 1


def cheapest_that_kept(pool: Pool, rows: np.ndarray) -> int:
    """What one would do without a test: the cheapest step that kept the target on these questions."""
    kept = pool.losses[:, rows].mean(axis=1) >= 0
    return int(np.where(kept, pool.saved(rows), -np.inf).argmax()) if kept.any() else -1


def resplit(pool: Pool, questions: int, rng: np.random.Generator) -> dict[str, tuple[float, float, float, float]]:
    """For each method: quality kept and dollars saved on the other questions, kept on all, saved in hindsight."""
    certify, show = split(pool.groups, 1 - questions / len(pool.groups), int(rng.integers(2**31)))
    certify = rng.permutation(certify)
    steps = (
        last_passed(pool, certify, p_value),
        last_passed(pool, certify, t_test),
        cheapest_that_kept(pool, certify),
    )
    kept, saved, everywhere = pool.kept(show), pool.saved(show), pool.kept(np.arange(len(pool.groups)))
    possible = float(saved[kept >= pool.target].max(initial=0.0))
    return {
        method: (kept[step], saved[step], everywhere[step], possible) if step >= 0 else (1.0, 0.0, 1.0, possible)
        for method, step in zip(METHODS, steps, strict=True)
    }


def measure(
    outcomes: Sequence[Outcome], resplits: int, questions: int, seeds: int, targets: Sequence[float] = TARGETS
) -> list[dict[str, Any]]:
    """A row for each target and method, over all resplits of all seeds."""
    seen: dict[tuple[float, str], list[tuple[float, ...]]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        for pool in pools(outcomes, seed, targets):
            for _ in range(resplits // seeds + (seed < resplits % seeds)):
                for method, row in resplit(pool, questions, rng).items():
                    seen.setdefault((pool.target, method), []).append(row)
    return [_row(target, method, questions, np.array(rows)) for (target, method), rows in seen.items()]


def _row(target: float, method: str, questions: int, rows: np.ndarray) -> dict[str, Any]:
    kept, saved, everywhere, possible = rows.T
    return {
        "target": target,
        "method": method,
        "questions": questions,
        "resplits": len(rows),
        "violated": float((kept < target).mean()),
        "violated_pool": float((everywhere < target).mean()),
        "kept": float(kept.mean()),
        "saved": float(saved.mean()),
        "saved_in_hindsight": float(possible.mean()),
        "share_of_hindsight": float(saved.mean() / max(possible.mean(), 1e-12)),
        "not_certified": float((saved == 0).mean()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--resplits", type=int, default=1000)
    parser.add_argument("--questions", type=int, default=1000, help="questions that certify")
    parser.add_argument("--seeds", type=int, default=2, help="fits that the resplits are shared among")
    parser.add_argument("--out", type=Path, help="where the rows go as JSON lines")
    arguments = parser.parse_args()
    if not arguments.outcomes.is_file():
        print(f"skipped: {arguments.outcomes} is not here")
        return 0
    outcomes = read_outcomes([arguments.outcomes], PAIR)
    rows = measure(outcomes, arguments.resplits, arguments.questions, arguments.seeds)
    for row in rows:
        print(
            "{target:.2f} {method:38} n {questions} violated {violated:.1%} (on the whole pool {violated_pool:.1%}) "
            "kept {kept:.3f} saved {saved:.1%}, {share_of_hindsight:.0%} of hindsight's {saved_in_hindsight:.1%}; "
            "no certificate in {not_certified:.1%}".format(**row)
        )
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
