"""The findings of an inspection: the state of each question type, and the drift signals."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from calibration.sentinel.kept_quality import (
    Observation,
    estimate_kept_quality,
    log_evidence_threshold,
    truncate_at_drift,
)
from calibration.sentinel.ledgers import SentinelLedgers, today
from calibration.sentinel.plan import Plan
from calibration.sentinel.signals import compute_signals
from router.policy.sentinel import Checkpoint, Sentinel, TypeStatus

MAX_HISTORY = 60  # entries per type
MAX_TRUSTED = 2.0  # the largest value that the file's format accepts


def build_sentinel(plan: Plan, ledgers: SentinelLedgers, previous: Sentinel | None) -> Sentinel:
    """Compute the findings from all stored comparisons under the policy, continuing the history of `previous`."""
    version, rules = plan.policy.version, plan.policy.rules
    continues = previous is not None and previous.policy == version and previous.target == plan.target
    histories = {name: watched.history for name, watched in previous.types.items()} if previous and continues else {}
    return Sentinel(
        policy=version,
        target=plan.target,
        made_unix=time.time(),
        spent_usd=ledgers.spent_usd(today()),
        usd_a_day=plan.usd_a_day,
        types={
            question_type: _build_type(plan, question_type, observations, histories.get(question_type, []))
            for question_type, observations in sorted(ledgers.observations(version, plan.target).items())
        },
        signals=compute_signals(ledgers.request_rows(version), rules),
    )


def _build_type(
    plan: Plan, question_type: str, observations: Sequence[Observation], history: Sequence[Checkpoint]
) -> TypeStatus:
    floor = max(plan.target - plan.margin, 0.0)
    threshold = log_evidence_threshold(len(plan.policy.predictor.types))
    observations, drifted = truncate_at_drift(observations, floor, threshold)
    kept = estimate_kept_quality(observations, floor, threshold)
    trusted = _trusted_quality(plan, question_type)
    better = not drifted and kept.band.low > trusted
    pairs = sum(observation.by_cheap for observation in observations)
    latest = Checkpoint(pairs, *kept.band, max(kept.log_evidence / threshold, 0.0))
    return TypeStatus(
        state="drifted" if drifted else "better" if better else "ok",
        requests=len(observations),
        pairs=pairs,
        kept=(kept.band.low, kept.band.estimate, kept.band.high),
        floor=floor,
        trusted=min(trusted, MAX_TRUSTED),
        evidence=latest.evidence,
        since_request=kept.change_point,
        history=_extend_history(history, latest),
    )


def _trusted_quality(plan: Plan, question_type: str) -> float:
    """The kept quality that the calibration estimates for a type, at least the target."""
    rule = plan.policy.rules.rule_for(plan.target)
    calibrated = rule.kept_by_type.get(question_type) if rule is not None else None
    return plan.target if calibrated is None else max(plan.target, calibrated.estimate)


def _extend_history(history: Sequence[Checkpoint], latest: Checkpoint) -> list[Checkpoint]:
    """Append the latest entry, replace an entry with as many pairs, and drop every second entry of a long history."""
    earlier = [entry for entry in history if entry.pairs < latest.pairs]
    if len(earlier) >= MAX_HISTORY:
        earlier = earlier[::2]
    return [*earlier, latest]


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file atomically; create its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
