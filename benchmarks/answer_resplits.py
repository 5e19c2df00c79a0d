"""Resplits: how often promises are violated if thresholds are certified on some questions and measured on others.

Thresholds are certified by the functions of `calibration learn`, with the limits of types. Predictions stay as they
are: they come from predictors that did not learn from the questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from calibration.learning.certificate import FixedSequenceTest, TargetTest
from calibration.learning.escalation import CascadeReplay
from calibration.learning.intervals import consecutive_numbers
from calibration.learning.replay import Replay, Thresholds, largest_thresholds, pick_columns
from router.policy.document import Policy
from router.policy.rules import Promise, Rule

TARGETS = (0.95, 0.97, 0.99)
Draw = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows to certify on, their groups, and rows to measure
Rows = TypeVar("Rows", Replay, Thresholds)


def measure_resplits(
    policy: Policy, replay: CascadeReplay, groups: np.ndarray, n: int, times: int
) -> dict[str, list[dict[str, Any]]]:
    """The resplits with `n` drawn questions, with and without answers."""
    draws = list(draw_questions(groups, n, times))
    results: dict[str, list[dict[str, Any]]] = {}
    for answers, replayed in (("with", replay), ("without", without_answers(replay))):
        results[answers] = []
        for row in resplit(policy, replayed, draws):
            results[answers].append(row)
            print(
                f"{answers} answers, target {row['target']}: violated {row['violated']:.1%} "
                f"± {row['violated_error']:.1%}",
                flush=True,
            )
    return results


def resplit(policy: Policy, replay: Replay, draws: Sequence[Draw]) -> Iterator[dict[str, Any]]:
    """For each target, the share of violated promises, with its standard error over the draws."""
    types = replay.question_types
    for target, thresholds in zip(TARGETS, replay.thresholds(policy.rules, TARGETS), strict=True):
        kept, saved = np.ones(len(draws)), np.zeros(len(draws))
        for at, (drawn_rows, names, other_rows) in enumerate(draws):
            rule = certify(policy, replay, thresholds, types, target, drawn_rows, names)
            if rule.quality_per_usd is None:
                continue
            limits = largest_thresholds(rule, types[other_rows])
            chosen = take_rows(thresholds, other_rows).choose(limits)
            scores, costs = replay.scores[other_rows], replay.costs_usd[other_rows]
            kept[at] = pick_columns(scores, chosen).sum() / scores[:, -1].sum()
            saved[at] = 1 - pick_columns(costs, chosen).sum() / costs[:, -1].sum()
        violated = float((kept < target).mean())
        yield {
            "target": target,
            "resplits": len(draws),
            "n": len(draws[0][0]),
            "violated": violated,
            "violated_error": math.sqrt(violated * (1 - violated) / len(draws)),
            "by_a_point": float((kept < target - 0.01).mean()),
            "kept": float(np.median(kept)),
            "saved": float(np.median(saved)),
        }


def certify(
    policy: Policy,
    replay: Replay,
    thresholds: Thresholds,
    types: np.ndarray,
    target: float,
    rows: np.ndarray,
    names: np.ndarray,
) -> Rule:
    """The rule that `calibration learn` certifies on these rows, whose groups are `names`, with its limits of types.

    Predictions stay as they are. No predictor has learnt from the rows, so the replay also serves as the replay of
    questions that users ask again.
    """
    drawn, of_drawn = take_rows(replay, rows), take_rows(thresholds, rows)
    sequence = FixedSequenceTest(
        policy.rules, drawn, drawn, names, policy.about["confidence"], policy.about["type_margin"]
    )
    return TargetTest(sequence, target, of_drawn, of_drawn, types[rows], types[rows]).certify(0, Promise.CERTIFIED)


def take_rows(table: Rows, rows: np.ndarray) -> Rows:
    """A replay or its thresholds for some of the questions."""
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    arrays = {name: value[rows] for name, value in values.items() if isinstance(value, np.ndarray)}
    lists = {name: [value[row] for row in rows] for name, value in values.items() if isinstance(value, list)}
    return replace(table, **arrays, **lists)


def draw_questions(groups: np.ndarray, n: int, times: int) -> Iterator[Draw]:
    """Questions to certify on, drawn in whole groups, and all others to measure."""
    rng = np.random.default_rng(0)
    names, group_numbers = np.unique(groups, return_inverse=True)
    for _ in range(times):
        rank = rng.permutation(len(names))[group_numbers]
        is_drawn = rank <= np.sort(rank)[n - 1]
        yield np.flatnonzero(is_drawn), consecutive_numbers(groups[is_drawn]), np.flatnonzero(~is_drawn)


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
