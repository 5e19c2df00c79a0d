"""What a policy says of requests, and how well it ranks known outcomes: what `score` and `evaluate` show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibration.comparison.mix import mixed, types_of
from calibration.learning.corpus import Ints
from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.escalation import CHEAP_THEN_STRONG, replay_answers
from calibration.learning.replay import Replay, apgr, bootstrap, cpt, picked, replayed, saved_cost
from calibration.outcomes import InputError, Outcome, read_rows
from router.policy.answers import Answers
from router.policy.decision import Interval, Rule, decide
from router.policy.document import Policy
from router.policy.features import RequestError, read_question
from router.policy.prediction import predict
from router.policy.vocabulary import Floats

KEPT = (0.95, 0.97, 0.99)
MIN_TYPE_ROWS = 30  # fewer give intervals that say nothing


def score_rows(policy: Policy, path: Path) -> Iterator[dict[str, Any]]:
    """What the policy says of each request of a file, in its order.

    Raises:
        InputError: a row has no id or no messages that can be read.
    """
    for line, row in read_rows(path):
        if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
            raise InputError(path, line, "'messages' is missing or not a list")
        try:
            features = read_question(row["messages"], row.get("tools"))
        except RequestError as error:
            raise InputError(path, line, str(error)) from error
        prediction = predict(policy.predictor, features)
        decisions = {
            rule.target: decide(policy.rules, features, prediction, rule.target) for rule in policy.rules.targets
        }
        any_decision = decide(policy.rules, features, prediction, 1.0)
        yield {
            "id": row.get("id", str(line)),
            "question_type": prediction.question_type,
            "quality": dict(prediction.quality),
            "gap": any_decision.gap,
            "novelty": prediction.novelty,
            "expected_cost_usd": dict(any_decision.expected_cost_usd),
            "decision": {f"{target:g}": decision.model for target, decision in decisions.items()},
        }


def evaluate(
    policy: Policy, outcomes: Sequence[Outcome], rounds: int, seed: int, mix: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """How well the policy ranks, what it keeps and what it saves, pooled and per recorded type, with 95 % intervals.

    With the shares of a mix (`mix.py`), also what its promises give for that.
    """
    replay = replayed(outcomes, policy.predictor, policy.rules.models)
    groups = near_duplicate_groups([outcome.text for outcome in outcomes])
    types = np.array(types_of(outcomes))
    names, counts = np.unique(types, return_counts=True)
    everything = np.arange(len(outcomes))
    return {
        "policy": policy.version,
        "models": [model.name for model in policy.rules.models],
        "pooled": _ranking(policy, replay, groups, everything, rounds, seed),
        "targets": _targets(policy, replay, groups, rounds, seed),
        "by_type": {
            str(name): _ranking(policy, replay, groups, np.flatnonzero(types == name), rounds, seed)
            for name, count in zip(names, counts, strict=True)
            if count >= MIN_TYPE_ROWS
        },
        **(
            {}
            if policy.answers is None
            else {"answers": _answers(policy, policy.answers, replay, groups, rounds, seed)}
        ),
        **({} if mix is None else {"mix": mixed(policy, replay, groups, mix, rounds, seed)}),
    }


def _ranking(
    policy: Policy, replay: Replay, groups: np.ndarray, rows: np.ndarray, rounds: int, seed: int
) -> dict[str, Any]:
    per_usd = replay.needed(policy.rules, policy.default_target)
    gaps, per_usd, scores, costs = (t[rows] for t in (replay.gaps, per_usd, replay.scores, replay.costs_usd))

    def interval(statistic: Any) -> Interval:
        return bootstrap(statistic, groups[rows], rounds, seed)

    return {
        "n": len(rows),
        "quality": {m.name: float(scores[:, i].mean()) for i, m in enumerate(replay.models)},
        "cost_usd": {m.name: float(costs[:, i].sum()) for i, m in enumerate(replay.models)},
        "apgr": interval(lambda i: apgr(gaps[i], scores[i])),
        "cpt50": interval(lambda i: cpt(gaps[i], scores[i], 0.5)),
        "cpt80": interval(lambda i: cpt(gaps[i], scores[i], 0.8)),
        "saved_cost": {f"{k:g}": interval(lambda i, k=k: saved_cost(per_usd[i], scores[i], costs[i], k)) for k in KEPT},
        "saved_cost_by_gap": {
            f"{k:g}": interval(lambda i, k=k: saved_cost(gaps[i], scores[i], costs[i], k)) for k in KEPT
        },
    }


def _targets(policy: Policy, replay: Replay, groups: np.ndarray, rounds: int, seed: int) -> dict[str, Any]:
    """What each promise of the policy gave on these outcomes: no threshold is chosen here."""
    return {f"{rule.target:g}": _target(policy, rule, replay, groups, rounds, seed) for rule in policy.rules.targets}


def _target(policy: Policy, rule: Rule, replay: Replay, groups: np.ndarray, rounds: int, seed: int) -> dict[str, Any]:
    chosen = replay.chosen(policy.rules, rule.target)
    calls = float((chosen == len(replay.models) - 1).mean())
    return _kept_and_saved(rule, replay, chosen, groups, rounds, seed) | {"strong_calls": calls}


def _answers(
    policy: Policy, answers: Answers, replay: Replay, groups: np.ndarray, rounds: int, seed: int
) -> dict[str, Any]:
    """The same with the cheap model's answers looked at; dollars are of both calls where both are made."""
    looked = replay_answers(policy, answers, replay)
    by_question = replay.gaps
    types = np.array([outcome.question_type or "unknown" for outcome in replay.outcomes])
    targets = {}
    for rule in answers.targets:
        chosen = looked.chosen_by(policy.rules, rule)
        costs = picked(looked.costs_usd, chosen)
        targets[f"{rule.target:g}"] = _kept_and_saved(rule, looked, chosen, groups, rounds, seed) | {
            "cheap_then_strong": float((chosen == CHEAP_THEN_STRONG).mean()),
            "saved_cost_by_type": {
                str(name): float(1 - costs[types == name].sum() / looked.costs_usd[types == name, -1].sum())
                for name in np.unique(types)
                if (types == name).sum() >= MIN_TYPE_ROWS
            },
        }
    return {
        "types": sorted(answers.types),
        "apgr": bootstrap(lambda i: apgr(looked.gaps[i], replay.scores[i]), groups, rounds, seed),
        "apgr_without": bootstrap(lambda i: apgr(by_question[i], replay.scores[i]), groups, rounds, seed),
        "targets": targets,
    }


def _kept_and_saved(
    rule: Rule, replay: Replay, chosen: Ints, groups: np.ndarray, rounds: int, seed: int
) -> dict[str, Any]:
    def share(table: Floats) -> Interval:
        of_chosen, of_strong = picked(table, chosen), table[:, -1]
        return bootstrap(lambda rows: float(of_chosen[rows].sum() / of_strong[rows].sum()), groups, rounds, seed)

    cost = share(replay.costs_usd)
    return {
        "certified": rule.certified,
        "quality_kept": share(replay.scores),
        "saved_cost": Interval(1 - cost.high, 1 - cost.estimate, 1 - cost.low),
    }
