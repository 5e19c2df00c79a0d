"""The predictions of a policy for requests (`score`), and its quality on recorded outcomes (`evaluate`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibration.comparison.mix import evaluate_mix
from calibration.learning.corpus import Ints
from calibration.learning.duplicates import near_duplicate_groups
from calibration.learning.escalation import CHEAP_THEN_STRONG, replay_cascade
from calibration.learning.intervals import bootstrap
from calibration.learning.ranking import apgr, cpt, quotient, saved_cost, saved_share
from calibration.learning.replay import Replay, pick_columns, replay_outcomes
from calibration.outcomes import InputError, Outcome, question_types, read_rows
from router.policy.answers import Answers
from router.policy.decision import decide
from router.policy.document import Policy
from router.policy.features import RequestError, read_question
from router.policy.prediction import predict
from router.policy.rules import Interval, Rule
from router.policy.vocabulary import Floats

SAVING_TARGETS = (0.95, 0.97, 0.99)
MIN_TYPE_ROWS = 30  # of a type that is evaluated by itself; the intervals of fewer are too wide to be useful


def score_rows(policy: Policy, path: Path) -> Iterator[dict[str, Any]]:
    """The prediction and the decisions of the policy for each request of a file, in the same order.

    Raises:
        InputError: a row has no messages, or messages that cannot be read.
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


class Evaluation:
    """A policy replayed on outcomes; every figure has a 95 % interval from `rounds` rounds of the bootstrap."""

    def __init__(self, policy: Policy, outcomes: Sequence[Outcome], rounds: int, seed: int) -> None:
        self.policy = policy
        self.replay = replay_outcomes(outcomes, policy.predictor, policy.rules.models)
        self.groups = near_duplicate_groups([outcome.text for outcome in outcomes])
        self.types = np.array(question_types(outcomes))
        self._rounds = rounds
        self._seed = seed

    def interval(self, statistic: Callable[[Ints], float], rows: Ints | None = None) -> Interval:
        """The interval of a statistic of all rows, or of these `rows` by their place in `rows`."""
        groups = self.groups if rows is None else self.groups[rows]
        return bootstrap(statistic, groups, self._rounds, self._seed)

    def frequent_types(self) -> list[str]:
        """The recorded types with enough rows to be evaluated."""
        names, counts = np.unique(self.types, return_counts=True)
        return [str(name) for name, count in zip(names, counts, strict=True) if count >= MIN_TYPE_ROWS]

    def ranking(self, rows: Ints) -> dict[str, Any]:
        """How well the policy ranks these rows for escalation."""
        replay, policy = self.replay, self.policy
        thresholds = replay.switch_thresholds(policy.rules, policy.default_target)
        gaps, thresholds, scores, costs = (t[rows] for t in (replay.gaps, thresholds, replay.scores, replay.costs_usd))

        def savings(ranks: Floats) -> dict[str, Interval]:
            return {
                f"{kept:g}": self.interval(lambda i, kept=kept: saved_cost(ranks[i], scores[i], costs[i], kept), rows)  # type: ignore[misc]
                for kept in SAVING_TARGETS
            }

        return {
            "n": len(rows),
            "quality": {m.name: float(scores[:, i].mean()) for i, m in enumerate(replay.models)},
            "cost_usd": {m.name: float(costs[:, i].sum()) for i, m in enumerate(replay.models)},
            "apgr": self.interval(lambda i: apgr(gaps[i], scores[i]), rows),
            "cpt50": self.interval(lambda i: cpt(gaps[i], scores[i], 0.5), rows),
            "cpt80": self.interval(lambda i: cpt(gaps[i], scores[i], 0.8), rows),
            "saved_cost": savings(thresholds),
            "saved_cost_by_gap": savings(gaps),
        }

    def targets(self) -> dict[str, Any]:
        """The quality kept and the cost saved by each target of the policy, with the policy's own thresholds."""
        targets = {}
        for rule in self.policy.rules.targets:
            chosen = self.replay.choose(self.policy.rules, rule.target)
            targets[f"{rule.target:g}"] = self._quality_and_saving(rule, self.replay, chosen) | {
                "strong_calls": float((chosen == len(self.replay.models) - 1).mean())
            }
        return targets

    def cascade(self, answers: Answers) -> dict[str, Any]:
        """The same for the cascade of the policy's answer rules. Its cost is that of both calls where both are made."""
        replay, cascade = self.replay, replay_cascade(self.policy, answers, self.replay)
        gaps = replay.gaps
        targets = {}
        for rule in answers.targets:
            chosen = cascade.choose_by_rule(self.policy.rules, rule)
            spent, strong = pick_columns(cascade.costs_usd, chosen), cascade.costs_usd[:, -1]
            targets[f"{rule.target:g}"] = self._quality_and_saving(rule, cascade, chosen) | {
                "cheap_then_strong": float((chosen == CHEAP_THEN_STRONG).mean()),
                "saved_cost_by_type": {
                    name: saved_share(spent[self.types == name], strong[self.types == name])
                    for name in self.frequent_types()
                },
            }
        return {
            "types": sorted(answers.types),
            "apgr": self.interval(lambda i: apgr(cascade.gaps[i], replay.scores[i])),
            "apgr_without": self.interval(lambda i: apgr(gaps[i], replay.scores[i])),
            "targets": targets,
        }

    def _quality_and_saving(self, rule: Rule, replay: Replay, chosen: Ints) -> dict[str, Any]:
        def share(table: Floats) -> Interval:
            of_chosen, of_strong = pick_columns(table, chosen), table[:, -1]
            return self.interval(lambda rows: quotient(float(of_chosen[rows].sum()), float(of_strong[rows].sum())))

        cost = share(replay.costs_usd)
        return {
            "certified": rule.certified,
            "quality_kept": share(replay.scores),
            "saved_cost": Interval(1 - cost.high, 1 - cost.estimate, 1 - cost.low),
        }


def evaluate(
    policy: Policy, outcomes: Sequence[Outcome], rounds: int, seed: int, mix: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """How well the policy ranks, what it keeps and what it saves, pooled and per recorded type, with 95 % intervals.

    `mix` has shares of types that sum to 1 (`mix.py`); with it, the figures of every target also come for that mix.
    """
    evaluation = Evaluation(policy, outcomes, rounds, seed)
    figures = {
        "policy": policy.version,
        "models": [model.name for model in policy.rules.models],
        "pooled": evaluation.ranking(np.arange(len(outcomes))),
        "targets": evaluation.targets(),
        "by_type": {
            name: evaluation.ranking(np.flatnonzero(evaluation.types == name)) for name in evaluation.frequent_types()
        },
    }
    if policy.answers is not None:
        figures["answers"] = evaluation.cascade(policy.answers)
    if mix is not None:
        figures["mix"] = evaluate_mix(policy, evaluation.replay, evaluation.groups, mix, rounds, seed)
    return figures
