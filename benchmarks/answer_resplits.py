"""Resplits: how often promises are violated if thresholds are certified on some questions and measured on others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from calibration.learning.escalation import CascadeReplay
from calibration.learning.intervals import lower_bound
from calibration.learning.replay import Replay, pick_columns
from router.policy.document import Policy

TARGETS = (0.95, 0.97, 0.99)
STEPS = 100
Draw = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows to certify on, their groups, and rows to measure
Draws = Iterator[Draw]


def measure_resplits(policy: Policy, replay: CascadeReplay, groups: np.ndarray, n: int, times: int) -> dict[str, Any]:
    """Both ways to draw, with and without answers."""
    results = {}
    for name, draw in (("with replacement, all", draw_with_replacement), ("the others", draw_without_replacement)):
        draws = list(draw(groups, n, times))
        results[name] = {
            "with": resplit(policy, replay, n, draws),
            "without": resplit(policy, without_answers(replay), n, draws),
        }
    return results


def resplit(policy: Policy, replay: Replay, n: int, draws: Sequence[Draw]) -> list[dict[str, Any]]:
    """The share of violated promises if thresholds are certified on drawn questions and measured on others."""
    rows = []
    for target in TARGETS:
        needed, choose = replay.switch_thresholds(policy.rules, target), replay.chooser(policy.rules, target)
        finite = needed[np.isfinite(needed)]
        grid = np.unique(np.quantile(finite, np.linspace(0, 1, STEPS + 1)[1:]) + 1e-9)
        choices = [choose(np.full(len(needed), price)) for price in grid]
        scores = [pick_columns(replay.scores, columns) for columns in choices]
        costs = [pick_columns(replay.costs_usd, columns) for columns in choices]
        strong, strong_costs = replay.scores[:, -1], replay.costs_usd[:, -1]
        kept, saved = [], []
        for drawn_rows, names, other_rows in draws:
            last_step = -1
            for step, values in enumerate(scores):
                if lower_bound(values[drawn_rows] - target * strong[drawn_rows], names, -target) < 0:
                    break
                last_step = step
            kept.append(1.0 if last_step < 0 else float(scores[last_step][other_rows].sum() / strong[other_rows].sum()))
            saved.append(
                0.0 if last_step < 0 else float(1 - costs[last_step][other_rows].sum() / strong_costs[other_rows].sum())
            )
        rows.append(
            {
                "target": target,
                "resplits": len(draws),
                "n": n,
                "violated": float((np.array(kept) < target).mean()),
                "by_a_point": float((np.array(kept) < target - 0.01).mean()),
                "kept": float(np.median(kept)),
                "saved": float(np.median(saved)),
            }
        )
    return rows


def draw_without_replacement(groups: np.ndarray, n: int, times: int) -> Draws:
    """Questions to certify on, drawn without replacement, and all others to measure."""
    rng = np.random.default_rng(0)
    names, group_numbers = np.unique(groups, return_inverse=True)
    for _ in range(times):
        rank = rng.permutation(len(names))[group_numbers]
        is_drawn = rank <= np.sort(rank)[n - 1]
        yield np.flatnonzero(is_drawn), groups[is_drawn], np.flatnonzero(~is_drawn)


def draw_with_replacement(groups: np.ndarray, n: int, times: int) -> Draws:
    """Questions to certify on, drawn with replacement by whole groups, and all questions as the population."""
    rng = np.random.default_rng(0)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.cumsum(np.unique(groups, return_counts=True)[1])[:-1])
    for _ in range(times):
        parts = [members[i] for i in rng.integers(len(members), size=n)]
        rows, names = np.concatenate(parts)[:n], np.repeat(np.arange(n), [len(part) for part in parts])[:n]
        yield rows, names, np.arange(len(groups))


def without_answers(cascade: CascadeReplay) -> Replay:
    """The same questions without inspected answers."""
    return Replay(
        cascade.outcomes,
        cascade.features,
        cascade.predictions,
        cascade.scores[:, [0, 2]],
        cascade.costs_usd[:, [0, 2]],
        cascade.models,
    )
