"""What a promise is worth where types of question come in other shares than in the calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping

from router.policy.decision import Evidence, Interval, Rule, Rules, keeps, stands_alone

SURE = Interval(1.0, 1.0, 1.0)  # the strong model keeps its own quality


def kept_of_mix(rules: Rules, target: float, requests: Mapping[str, int]) -> Interval | None:
    """The share of the strong model's quality that `target` keeps, with a 95 % interval, for requests by type.

    Each type keeps what the calibration saw it keep; errors of types are independent. A measured type without such a
    figure, of which few questions were asked, is taken to be cheap altogether. None where nothing was asked, or no
    model but the strong one answers.
    """
    rule = rules.rule(target)
    if rule is None:
        return None
    parts = []
    for name, count in requests.items():
        evidence = rules.evidence_of(name)
        strong = evidence.quality.get(rules.strong.name)
        parts.append((count * (strong.estimate if strong else 1.0), _kept(rules, rule, name, evidence)))
    total = math.fsum(weight for weight, _ in parts)
    if not total:
        return None
    estimate = math.fsum(weight * kept.estimate for weight, kept in parts) / total
    below = math.hypot(*(weight * (kept.estimate - kept.low) for weight, kept in parts)) / total
    above = math.hypot(*(weight * (kept.high - kept.estimate) for weight, kept in parts)) / total
    return Interval(estimate - below, estimate, estimate + above)


def _kept(rules: Rules, rule: Rule, name: str, evidence: Evidence) -> Interval:
    cheap, strong = rules.models[0].name, rules.strong.name
    if name in rules.drifted:
        return SURE
    if evidence.kind == "none" or (stands_alone(evidence) and not keeps(rules, evidence, cheap, strong, rule.target)):
        return SURE
    if evidence.kind == "measured" and name in rule.kept_by_type:
        return rule.kept_by_type[name]
    quality = evidence.quality[strong].estimate
    return Interval(*(1.0 + difference / quality for difference in evidence.quality_difference)) if quality else SURE


def holds(kept: Interval, target: float) -> str:
    """Whether a target is kept: `shown` by the whole interval, `expected` by its estimate, or `no`."""
    if kept.low >= target - 1e-9:
        return "shown"
    return "expected" if kept.estimate >= target - 1e-9 else "no"
