"""Repricing: certify the thresholds of a policy again at current prices, from its stored outcomes.

The predictor does not depend on prices, so the same outcomes, seed and prior give the same predictor. Only the
thresholds depend on prices. They are certified again on the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from calibration.learning.certificate import TYPE_MARGIN
from calibration.learning.intervals import CONFIDENCE
from calibration.learning.learning import cross_fit_replay, learn
from calibration.learning.prior import prior_of_run
from calibration.learning.replay import Replay, pick_columns
from calibration.policies import models_named
from calibration.registry.registration import Version
from router.policy.document import Policy
from router.policy.prices import PriceBook
from router.policy.repricing import PriceChange, price_changes
from router.policy.rules import Promise, Rule, Rules


@dataclass(frozen=True, slots=True)
class TargetChange:
    """The saving at one target: as certified, at current prices with the old threshold, and with the new one."""

    target: float
    promise: str
    saved_then: float  # share of the strong model's cost
    saved_unchanged: float  # share of the strong model's cost
    kept_unchanged: float  # share of the strong model's quality
    saved: float  # share of the strong model's cost


@dataclass(frozen=True, slots=True)
class RepricedPolicy:
    """A policy at current prices, and the changes of prices and targets."""

    policy: Policy
    price_changes: Sequence[PriceChange]
    targets: Sequence[TargetChange]


def reprice(version: Version, prices: PriceBook) -> RepricedPolicy | None:
    """Reprice a version of the registry; None if its prices have not changed.

    Raises:
        PriceError: a model has no price in `prices`.
        PolicyError: the policy was learnt with a prior from another shipped policy.
    """
    old = version.policy
    changed = price_changes(old.rules.models, prices)
    if not changed:
        return None
    names = [model.name for model in old.rules.models]
    models = models_named(names, prices)
    about = dict(old.about)
    background = prior_of_run(about, names)
    confidence = about.get("looks", {}).get("tested_at", about.get("confidence", CONFIDENCE))
    learnt = learn(
        version.outcomes,
        models,
        version.seed,
        {**about, "prices_as_of": prices.as_of, "repriced_from": old.version},
        background,
        targets=[rule.target for rule in old.rules.targets],
        confidence=confidence,
        promise=Promise(about.get("promise", Promise.CERTIFIED)),
        type_margin=about.get("type_margin", TYPE_MARGIN),
    )
    replay, _ = cross_fit_replay(version.outcomes, models, version.seed, background)
    targets = [
        _compare_rules(before, after, old.rules, replay)
        for before, after in zip(old.rules.targets, learnt.policy.rules.targets, strict=True)
    ]
    return RepricedPolicy(learnt.policy, changed, targets)


def _compare_rules(before: Rule, after: Rule, rules: Rules, replay: Replay) -> TargetChange:
    """Compare two rules of one target. `replay` and its decisions use current prices."""
    unchanged = replay.choose(replace(rules, models=replay.models), before.target)
    spent = pick_columns(replay.costs_usd, unchanged).sum() / max(replay.costs_usd[:, -1].sum(), 1e-12)
    kept = pick_columns(replay.scores, unchanged).sum() / max(replay.scores[:, -1].sum(), 1e-12)
    return TargetChange(
        before.target,
        after.promise.value if after.quality_per_usd is not None else "none",
        before.expected_saving.estimate if before.quality_per_usd is not None else 0.0,
        1 - float(spent),
        float(kept),
        after.expected_saving.estimate if after.quality_per_usd is not None else 0.0,
    )
