"""A policy at the prices of now: its outcomes are replayed, its thresholds certified anew, and nothing new is learnt.

The predictor does not know prices, so the same outcomes, seed and background give the same predictor. What changes is
what a decision's dollars are worth, so the walk to each target is made again on the same questions.
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
class Target:
    """One target: as it was certified, with its thresholds at the prices of now, and certified anew."""

    target: float
    promise: str
    saved_then: float  # shares of the strong model's dollars
    saved_unchanged: float
    kept_unchanged: float  # share of the strong model's quality
    saved: float


@dataclass(frozen=True, slots=True)
class Repriced:
    """What became of a policy."""

    policy: Policy
    price_changes: Sequence[PriceChange]
    targets: Sequence[Target]


def repriced(version: Version, prices: PriceBook) -> Repriced | None:
    """A version of the registry at the prices of `prices`; None where these are the policy's own.

    Raises:
        PriceError: a model has no price now.
        PolicyError: the policy that it started from is not the one that is shipped with this version.
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
        _target(before, after, old.rules, replay)
        for before, after in zip(old.rules.targets, learnt.policy.rules.targets, strict=True)
    ]
    return Repriced(learnt.policy, changed, targets)


def _target(before: Rule, after: Rule, rules: Rules, replay: Replay) -> Target:
    """What the old thresholds give at the prices of now: `replay` has these, and so has each decision."""
    unchanged = replay.choose(replace(rules, models=replay.models), before.target)
    spent = pick_columns(replay.costs_usd, unchanged).sum() / max(replay.costs_usd[:, -1].sum(), 1e-12)
    kept = pick_columns(replay.scores, unchanged).sum() / max(replay.scores[:, -1].sum(), 1e-12)
    return Target(
        before.target,
        after.promise.value if after.quality_per_usd is not None else "none",
        before.expected_saving.estimate if before.quality_per_usd is not None else 0.0,
        1 - float(spent),
        float(kept),
        after.expected_saving.estimate if after.quality_per_usd is not None else 0.0,
    )
