"""Which policy serves: a challenger becomes champion where its replay is better, and a rollback undoes that."""

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

HISTORY = "champions"  # tag of the registered model: those that served before, the newest last
LONGEST_HISTORY = 50
SHIPPED = "the shipped policy"  # what serves where no version is champion


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy on questions that the challenger was not fitted on, at its own default target."""

    target: float
    routes: bool  # some target is kept by more than the strong model alone
    quality_kept: float  # share of the strong model's
    saving: float  # share of the strong model's dollars
    gain_over_mix: Interval


@dataclass(frozen=True, slots=True)
class Promotion:
    """Whether the challenger became champion, and why."""

    promoted: bool
    version: str
    reasons: Sequence[str]
    challenger: Trial
    champion: Trial | None


def promote(force: str | None = None) -> Promotion:
    """Make the challenger champion if it beats a random mix and the champion, or if `force` gives a reason to anyway.

    Raises:
        RegistryError: there is no challenger, or it cannot be read.
    """
    number = registration.number_of(CHALLENGER)
    if number is None:
        raise RegistryError("there is no challenger; `python -m calibration run` makes one")
    serving = registration.number_of(CHAMPION)
    if serving == number:
        raise RegistryError(f"version {number} is the champion already")
    challenger = registration.load(number)
    replay, groups = _held_out(challenger)
    mine = trial(challenger.policy, replay, groups, challenger.seed)
    theirs = None if serving is None else _champion(serving, challenger, replay, groups)
    reasons = [*against_mix(mine), *(against_champion(mine, theirs) if theirs else [])]
    promoted = not reasons or force is not None
    if promoted:
        _set_champion(number, serving, "; ".join(reasons) or "better on held-out questions", force)
    return Promotion(promoted, number, reasons, mine, theirs)


def _held_out(version: Version) -> tuple[Replay, np.ndarray]:
    """The questions of the challenger, each predicted by what is learnt without it."""
    models = version.policy.rules.models
    background = prior_of_run(version.policy.about, [model.name for model in models])
    return cross_fit_replay(version.outcomes, models, version.seed, background)


def _champion(number: str, challenger: Version, replay: Replay, groups: np.ndarray) -> Trial | None:
    """The champion on the same questions; None where it chooses among other models or cannot be read."""
    try:
        champion = registration.load(number).policy
    except RegistryError:
        return None  # a champion that nobody can load is no reason to keep it
    names = [model.name for model in champion.rules.models]
    if names != [model.name for model in challenger.policy.rules.models]:
        return None
    its = replay_outcomes(replay.outcomes, champion.predictor, champion.rules.models)
    return trial(champion, its, groups, challenger.seed)


def trial(policy: Policy, replay: Replay, groups: np.ndarray, seed: int) -> Trial:
    """Replay a policy at its default target, or at the strictest that was certified."""
    rule = best_rule(policy)
    target = rule.target if rule else policy.default_target
    chosen = replay.choose(policy.rules, target)
    kept = pick_columns(replay.scores, chosen).sum() / max(replay.scores[:, -1].sum(), 1e-12)
    spent = pick_columns(replay.costs_usd, chosen).sum() / max(replay.costs_usd[:, -1].sum(), 1e-12)
    gain = bootstrap(lambda i: gain_over_mix(replay, chosen, i), groups, BOOTSTRAP_ROUNDS, seed)
    return Trial(target, rule is not None, float(kept), 1 - float(spent), gain)


def against_mix(mine: Trial) -> list[str]:
    """What speaks against the challenger by itself."""
    reasons = []
    if not mine.routes:
        reasons.append(f"nothing was shown to keep {mine.target:.0%}: it would send all to the strong model")
    elif mine.gain_over_mix.low <= 0 and mine.saving < 1 - 1e-9:
        gain = mine.gain_over_mix
        reasons.append(
            f"it does not beat a random mix of the same cost: {gain.estimate * 100:+.1f} points "
            f"({gain.low * 100:+.1f} to {gain.high * 100:+.1f})"
        )
    return reasons


def against_champion(mine: Trial, theirs: Trial) -> list[str]:
    """What speaks for the champion: it keeps what it promised, and saves as much or more."""
    if theirs.quality_kept < theirs.target:
        return []
    if mine.quality_kept >= theirs.quality_kept and mine.saving > theirs.saving:
        return []
    if mine.gain_over_mix.estimate > theirs.gain_over_mix.estimate and mine.quality_kept >= mine.target:
        return []
    return [
        f"the champion is as good or better on the same questions: it keeps {theirs.quality_kept:.1%} and saves "
        f"{theirs.saving:.1%}, the challenger keeps {mine.quality_kept:.1%} and saves {mine.saving:.1%}"
    ]


def rollback() -> tuple[str, str | None]:
    """Give the alias back to the champion before this one; the first champion gives way to the shipped policy.

    Returns:
        The version left and the version reached, which is None for the shipped policy.

    Raises:
        RegistryError: there is no champion.
    """
    import mlflow

    client = mlflow.MlflowClient()
    serving = registration.number_of(CHAMPION)
    if serving is None:
        raise RegistryError("there is no earlier champion to go back to: the shipped policy serves")
    before = _history()
    reached = before[-1] if before else None
    if reached is None:
        client.delete_registered_model_alias(MODEL, CHAMPION)
    else:
        client.set_registered_model_alias(MODEL, CHAMPION, reached)
        client.set_registered_model_tag(MODEL, HISTORY, json.dumps(before[:-1]))
    client.set_model_version_tag(MODEL, serving, "rolled_back_at", _now())
    client.set_model_version_tag(MODEL, serving, "rolled_back_to", reached or SHIPPED)
    return serving, reached


def _set_champion(number: str, serving: str | None, reason: str, force: str | None) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    if serving is not None:
        client.set_registered_model_tag(MODEL, HISTORY, json.dumps([*_history(), serving][-LONGEST_HISTORY:]))
    client.set_model_version_tag(MODEL, number, "promoted_at", _now())
    client.set_model_version_tag(MODEL, number, "promoted_because", reason)
    if force is not None:
        client.set_model_version_tag(MODEL, number, "forced_because", force)
    client.set_registered_model_alias(MODEL, CHAMPION, number)


def _history() -> list[str]:
    import mlflow

    tags = mlflow.MlflowClient().get_registered_model(MODEL).tags
    return [str(number) for number in json.loads(tags.get(HISTORY, "[]"))]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
