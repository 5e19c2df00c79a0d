"""Promotion and rollback: which version of the policy is the champion, the one that serves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from calibration.comparison.tradeoffs import BOOTSTRAP_ROUNDS, gain_over_mix
from calibration.comparison.verdict import best_rule
from calibration.learning.intervals import bootstrap
from calibration.learning.learning import cross_fit_replay
from calibration.learning.prior import prior_of_run
from calibration.learning.replay import Replay, pick_columns, replay_outcomes
from calibration.registry import registration
from calibration.registry.registration import CHALLENGER, RegistryError, Version
from router.policy.document import CHAMPION, Policy
from router.policy.document import REGISTERED_MODEL as MODEL
from router.policy.rules import Interval

HISTORY = "champions"  # tag of the registered model: the earlier champions, the newest last
MAX_HISTORY = 50
SHIPPED = "the shipped policy"  # serves if there is no champion


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A policy at its default target, on questions that the challenger was not fitted on."""

    target: float
    routes: bool  # some threshold keeps the target
    quality_kept: float  # share of the strong model's quality
    saving: float  # share of the strong model's cost
    gain_over_mix: Interval


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """Whether the challenger became the champion, and the reasons against it."""

    promoted: bool
    version: str
    reasons: Sequence[str]
    challenger: Evaluation
    champion: Evaluation | None


def promote(force: str | None = None) -> PromotionResult:
    """Make the challenger the champion if it is better than a random mix and the champion, or if `force` has a reason.

    Raises:
        RegistryError: there is no challenger, or it cannot be read.
    """
    number = registration.version_number(CHALLENGER)
    if number is None:
        raise RegistryError("there is no challenger; create one with `python -m calibration run`")
    serving = registration.version_number(CHAMPION)
    if serving == number:
        raise RegistryError(f"version {number} is the champion already")
    version = registration.load_version(number)
    replay, groups = _replay_held_out(version)
    challenger = evaluate(version.policy, replay, groups, version.seed)
    champion = None if serving is None else _evaluate_champion(serving, version, replay, groups)
    reasons = [*reasons_against(challenger), *(reasons_for_champion(challenger, champion) if champion else [])]
    promoted = not reasons or force is not None
    if promoted:
        _set_champion(number, serving, "; ".join(reasons) or "better on held-out questions", force)
    return PromotionResult(promoted, number, reasons, challenger, champion)


def _replay_held_out(version: Version) -> tuple[Replay, np.ndarray]:
    """Replay the challenger's questions with cross-fitting: each is predicted by a model learnt without it."""
    models = version.policy.rules.models
    background = prior_of_run(version.policy.about, [model.name for model in models])
    return cross_fit_replay(version.outcomes, models, version.seed, background)


def _evaluate_champion(number: str, challenger: Version, replay: Replay, groups: np.ndarray) -> Evaluation | None:
    """Evaluate the champion on the same questions; None if it has other models or cannot be read."""
    try:
        champion = registration.load_version(number).policy
    except RegistryError:
        return None
    names = [model.name for model in champion.rules.models]
    if names != [model.name for model in challenger.policy.rules.models]:
        return None
    champion_replay = replay_outcomes(replay.outcomes, champion.predictor, champion.rules.models)
    return evaluate(champion, champion_replay, groups, challenger.seed)


def evaluate(policy: Policy, replay: Replay, groups: np.ndarray, seed: int) -> Evaluation:
    """Evaluate a policy at its default target, or at the strictest target that it routes by."""
    rule = best_rule(policy)
    target = rule.target if rule else policy.default_target
    chosen = replay.choose(policy.rules, target)
    kept = pick_columns(replay.scores, chosen).sum() / max(replay.scores[:, -1].sum(), 1e-12)
    spent = pick_columns(replay.costs_usd, chosen).sum() / max(replay.costs_usd[:, -1].sum(), 1e-12)
    gain = bootstrap(lambda i: gain_over_mix(replay, chosen, i), groups, BOOTSTRAP_ROUNDS, seed)
    return Evaluation(target, rule is not None, float(kept), 1 - float(spent), gain)


def reasons_against(challenger: Evaluation) -> list[str]:
    """The reasons against the challenger that do not depend on the champion."""
    reasons = []
    if not challenger.routes:
        reasons.append(
            f"no threshold is shown to keep {challenger.target:.0%}: every request would be sent to the strong model"
        )
    elif challenger.gain_over_mix.low <= 0 and challenger.saving < 1 - 1e-9:
        gain = challenger.gain_over_mix
        reasons.append(
            f"it does not beat a random mix of the same cost: {gain.estimate * 100:+.1f} points "
            f"({gain.low * 100:+.1f} to {gain.high * 100:+.1f})"
        )
    return reasons


def reasons_for_champion(challenger: Evaluation, champion: Evaluation) -> list[str]:
    """A reason if the champion keeps its target and the challenger is not better."""
    if champion.quality_kept < champion.target:
        return []
    if challenger.quality_kept >= champion.quality_kept and challenger.saving > champion.saving:
        return []
    if (
        challenger.gain_over_mix.estimate > champion.gain_over_mix.estimate
        and challenger.quality_kept >= challenger.target
    ):
        return []
    return [
        f"the champion is at least as good on the same questions: it keeps {champion.quality_kept:.1%} and saves "
        f"{champion.saving:.1%}, the challenger keeps {challenger.quality_kept:.1%} and saves {challenger.saving:.1%}"
    ]


def rollback() -> tuple[str, str | None]:
    """Move the champion alias back to the previous champion, or remove it if there is none.

    Returns:
        The replaced version and the restored version, which is None for the shipped policy.

    Raises:
        RegistryError: there is no champion.
    """
    import mlflow

    client = mlflow.MlflowClient()
    replaced = registration.version_number(CHAMPION)
    if replaced is None:
        raise RegistryError("there is no earlier champion to go back to: the shipped policy serves")
    history = _read_history()
    restored = history[-1] if history else None
    if restored is None:
        client.delete_registered_model_alias(MODEL, CHAMPION)
    else:
        client.set_registered_model_alias(MODEL, CHAMPION, restored)
        client.set_registered_model_tag(MODEL, HISTORY, json.dumps(history[:-1]))
    client.set_model_version_tag(MODEL, replaced, "rolled_back_at", _now())
    client.set_model_version_tag(MODEL, replaced, "rolled_back_to", restored or SHIPPED)
    return replaced, restored


def _set_champion(number: str, serving: str | None, reason: str, force: str | None) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    if serving is not None:
        client.set_registered_model_tag(MODEL, HISTORY, json.dumps([*_read_history(), serving][-MAX_HISTORY:]))
    client.set_model_version_tag(MODEL, number, "promoted_at", _now())
    client.set_model_version_tag(MODEL, number, "promoted_because", reason)
    if force is not None:
        client.set_model_version_tag(MODEL, number, "forced_because", force)
    client.set_registered_model_alias(MODEL, CHAMPION, number)


def _read_history() -> list[str]:
    import mlflow

    tags = mlflow.MlflowClient().get_registered_model(MODEL).tags
    return [str(number) for number in json.loads(tags.get(HISTORY, "[]"))]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
