"""Measures the effect of inspecting answers, and writes the tables of docs/explanations/answers.md.

    python benchmarks/answers.py [--data ../shared/data] [--rounds 200] [--resplits 1000]
                                 [--only-resplits | --from-results]

The shipped policy was learnt and certified on `calibration.jsonl.gz`; all figures are measured on `test.jsonl.gz`. No
threshold is chosen on it, except "in hindsight" and in the resplits, which keep the predictions and certify new
thresholds on questions drawn from both files, with limits of types, as `calibration learn` does. They are measured on
all others; questions of `calibration.jsonl.gz` are predicted by models that did not learn from them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import quality
import ranking
from answer_resplits import measure_resplits
from answer_tables import Interval, build_tables

from calibration.comparison.scoring import MIN_TYPE_ROWS
from calibration.learning.certificate import GRID_STEPS
from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.escalation import (
    CascadeReplay,
    build_cascade,
    cross_fit_gaps,
    read_answer_inputs,
    replay_cascade,
)
from calibration.learning.intervals import bootstrap
from calibration.learning.learning import cross_fit_replay
from calibration.learning.prior import Prior, read_prior
from calibration.learning.ranking import apgr
from calibration.learning.replay import Replay, pick_columns, replay_outcomes
from calibration.outcomes import Outcome, question_types, read_outcomes
from calibration.policies import DATA, TYPED_QUESTIONS, read_policy
from router.policy.answer_prediction import answer_gap
from router.policy.answers import Answers
from router.policy.document import Policy

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS = (
    ROOT / "docs" / "explanations" / "answers.md",
    ROOT / "docs" / "explanations" / "quality" / "answers.json",
)
DRAWN = 1_600  # questions of a resplit


def measure_ranking(
    replay: Replay, cascade: CascadeReplay, types: np.ndarray, groups: np.ndarray, rounds: int
) -> dict[str, dict[str, Any]]:
    """APGR with and without answers: pooled, of all mathematics, and by recorded type."""
    maths = np.char.startswith(types, "math/")
    parts = {"all": np.ones(len(types), bool), "math (all)": maths} | {str(t): types == t for t in np.unique(types)}
    results = {}
    for name, members in parts.items():
        rows = np.flatnonzero(members)
        if len(rows) < MIN_TYPE_ROWS:
            continue
        scores = replay.scores[rows]

        def interval(statistic: Callable[[np.ndarray], float], rows: np.ndarray = rows) -> Interval:
            return bootstrap(statistic, groups[rows], rounds, 0)

        with_, without = cascade.gaps[rows], replay.gaps[rows]
        results[name] = {
            "n": len(rows),
            "looked_at": float(cascade.uses_answer[rows].mean()),
            "with": interval(lambda i, r=with_, s=scores: apgr(r[i], s[i])),
            "without": interval(lambda i, r=without, s=scores: apgr(r[i], s[i])),
            "difference": interval(lambda i, a=with_, b=without, s=scores: apgr(a[i], s[i]) - apgr(b[i], s[i])),
        }
    return results


def measure_targets(
    policy: Policy, replay: Replay, cascade: CascadeReplay, types: np.ndarray, groups: np.ndarray, rounds: int
) -> list[dict[str, Any]]:
    """Quality kept and cost saved by each promise, with and without answers, pooled and by recorded type."""
    assert policy.answers is not None
    rows = []
    for rule, with_answers in zip(policy.rules.targets, policy.answers.targets, strict=True):
        row: dict[str, Any] = {"target": rule.target}
        choices = {"without": (replay, replay.choose(policy.rules, rule.target))}
        choices["with"] = cascade, cascade.choose_by_rule(policy.rules, with_answers)
        for name, (replayed, columns) in choices.items():
            scores, costs = pick_columns(replayed.scores, columns), pick_columns(replayed.costs_usd, columns)
            strong, strong_costs = replayed.scores[:, -1], replayed.costs_usd[:, -1]
            row[name] = {
                "kept": bootstrap(lambda i, a=scores, b=strong: a[i].sum() / b[i].sum(), groups, rounds, 0),
                "saved": bootstrap(lambda i, a=costs, b=strong_costs: 1 - a[i].sum() / b[i].sum(), groups, rounds, 0),
                "strong_calls": float((columns > 0).mean()),
                "by_type": {
                    str(t): [
                        float(1 - costs[types == t].sum() / strong_costs[types == t].sum()),
                        float(scores[types == t].sum() / strong[types == t].sum()),
                    ]
                    for t in np.unique(types)
                    if (types == t).sum() >= MIN_TYPE_ROWS
                },
            }
        row["expected"] = {"with": with_answers.expected_saving, "without": rule.expected_saving}
        row["certified"] = {"with": with_answers.certified, "without": rule.certified}
        rows.append(row)
    return rows


def hindsight(policy: Policy, replay: Replay, quality_kept: float, groups: np.ndarray, rounds: int) -> Interval:
    """The largest share of dollars that one price saves with at least `kept` of the strong model's quality."""
    needed, choose = replay.switch_thresholds(policy.rules, 1.0), replay.chooser(policy.rules, 1.0)
    grid = np.quantile(needed[np.isfinite(needed)], np.linspace(0, 1, GRID_STEPS + 1))
    choices = [choose(np.full(len(needed), price)) for price in grid]
    scores = np.array([pick_columns(replay.scores, columns) for columns in choices])
    costs = np.array([pick_columns(replay.costs_usd, columns) for columns in choices])

    def saved(i: np.ndarray) -> float:
        enough = scores[:, i].sum(axis=1) >= quality_kept * replay.scores[i, -1].sum()
        return float(max((1 - costs[enough][:, i].sum(axis=1) / replay.costs_usd[i, -1].sum()).max(initial=0.0), 0.0))

    return bootstrap(saved, groups, rounds, 0)


def measure_speed(policy: Policy, cascade: CascadeReplay) -> dict[str, float]:
    """CPU milliseconds per inspected answer."""
    assert policy.answers is not None
    cheap = policy.rules.models[0].name
    milliseconds = []
    for row in np.flatnonzero(cascade.uses_answer):
        answer = cascade.outcomes[row].results[cheap].answer or ""
        start = time.thread_time()
        answer_gap(policy.answers.predictor, cascade.features[row], cascade.predictions[row], answer)
        milliseconds.append(1e3 * (time.thread_time() - start))
    return {
        "median": float(np.median(milliseconds)),
        "p99": float(np.quantile(milliseconds, 0.99)),
        "most": float(max(milliseconds)),
    }


def join_replays(parts: Sequence[CascadeReplay]) -> CascadeReplay:
    """The questions of several replays as one."""
    tables = ("scores", "costs_usd", "uses_answer", "answer_gaps", "acceptance_thresholds")
    lists = ("outcomes", "features", "predictions")
    return CascadeReplay(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in tables},
        **{name: [item for part in parts for item in getattr(part, name)] for name in lists},
        models=parts[0].models,
    )


def cross_fit_cascade(policy: Policy, outcomes: Sequence[Outcome], background: Prior) -> CascadeReplay:
    """The calibration outcomes; models that did not learn from them predict questions and answers."""
    assert policy.answers is not None
    replay, groups = cross_fit_replay(outcomes, policy.rules.models, int(policy.about["seed"]), background)
    inputs = read_answer_inputs(replay)
    gains = replay.scores[:, 1] - replay.scores[:, 0]
    gaps = cross_fit_gaps(inputs, gains, groups, policy.predictor.types, int(policy.about["seed"]))
    return build_cascade(replay, policy.rules, policy.answers.types, inputs, gaps)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The shipped policy, and the test questions as it decides on them."""

    policy: Policy
    answers: Answers
    background: Prior
    replay: Replay  # by the question alone
    cascade: CascadeReplay
    groups: np.ndarray  # (n,) near-duplicates share a number


def read_recorded(data: Path) -> Recorded:
    """The shipped policy, and the questions of `test.jsonl.gz`."""
    policy = read_policy(DATA / "policy")
    assert policy.answers is not None, "the shipped policy inspects no answers"
    background = read_prior(TYPED_QUESTIONS, DATA / "types.json", data / "published.json", ranking.PAIR)
    outcomes = background.rename_types(read_outcomes([data / "test.jsonl.gz"], ranking.PAIR))
    replay = replay_outcomes(outcomes, policy.predictor, policy.rules.models)
    cascade = replay_cascade(policy, policy.answers, replay)
    groups = near_duplicate_groups([outcome.text for outcome in outcomes])
    return Recorded(policy, policy.answers, background, replay, cascade, groups)


def measure(recorded: Recorded, rounds: int) -> dict[str, Any]:
    """All results that the page shows, but the resplits."""
    policy, replay, cascade, groups = recorded.policy, recorded.replay, recorded.cascade, recorded.groups
    types = np.array(question_types(replay.outcomes))
    return {
        "policy": policy.version,
        "speed_ms": measure_speed(policy, cascade),
        "looked_at": {
            name: {
                "n": answer_type.n,
                "apgr": answer_type.apgr,
                "apgr_without": answer_type.apgr_without,
                "score": answer_type.score,
            }
            for name, answer_type in recorded.answers.types.items()
        },
        "ranking": measure_ranking(replay, cascade, types, groups, rounds),
        "targets": measure_targets(policy, replay, cascade, types, groups, rounds),
        "hindsight": {
            f"{quality_kept:g}": {
                "with": hindsight(policy, cascade, quality_kept, groups, rounds),
                "without": hindsight(policy, replay, quality_kept, groups, rounds),
            }
            for quality_kept in (0.97, 0.99, 1.0)
        },
    }


def measure_promises(recorded: Recorded, data: Path, times: int) -> dict[str, list[dict[str, Any]]]:
    """The resplits of both files."""
    calibration = read_outcomes([data / "calibration.jsonl.gz"], ranking.PAIR)
    of_calibration = cross_fit_cascade(recorded.policy, calibration, recorded.background)
    both = join_replays([of_calibration, recorded.cascade])
    groups = near_duplicate_groups([outcome.text for outcome in both.outcomes])
    return measure_resplits(recorded.policy, both, groups, DRAWN, times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=200, help="of the bootstrap")
    parser.add_argument("--resplits", type=int, default=1000)
    parser.add_argument("--only-resplits", action="store_true", help="keep the other results of the last run")
    parser.add_argument("--from-results", action="store_true", help="only render the page again")
    arguments = parser.parse_args()
    if not arguments.from_results:
        if not (arguments.data / "test.jsonl.gz").is_file():
            print(f"skipped: the recorded outcomes ({arguments.data}) are not here")
            return 0
        recorded = read_recorded(arguments.data)
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if arguments.only_resplits else None
        results = kept or measure(recorded, arguments.rounds)
        results["resplits"] = measure_promises(recorded, arguments.data, arguments.resplits)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    parts = build_tables(json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(quality.fill_section(PAGE.read_text(encoding="utf-8"), parts), encoding="utf-8")
    print(f"written: {PAGE} and {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
