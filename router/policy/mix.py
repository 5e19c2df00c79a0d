"""The quality that a target keeps for a mix of question types that differs from the calibration's."""

from __future__ import annotations

import math
from collections.abc import Mapping

from router.policy.guards import meets_target
from router.policy.rules import Evidence, Interval, Rule, Rules

ALL_QUALITY = Interval(1.0, 1.0, 1.0)  # the strong model keeps its own quality


def quality_kept_by_mix(rules: Rules, target: float, requests: Mapping[str, int]) -> Interval | None:
    """The share of the strong model's quality that `target` keeps, with a 95 % interval.

    `requests` are numbers of requests by question type. Each type keeps the share that the calibration measured; errors
    of types are independent. A measured type with too few questions for such a figure is assumed to go to the cheap
    model altogether. None if there are no requests, or if only the strong model answers.
    """
    rule = rules.rule_for(target)
    if rule is None:
        return None
    parts = []
    for name, count in requests.items():
        evidence = rules.evidence_of(name)
        strong = evidence.quality.get(rules.strong.name)
        parts.append((count * (strong.estimate if strong else 1.0), _kept_by_type(rules, rule, name, evidence)))
    total = math.fsum(weight for weight, _ in parts)
    if not total:
        return None
    estimate = math.fsum(weight * kept.estimate for weight, kept in parts) / total
    below = math.hypot(*(weight * (kept.estimate - kept.low) for weight, kept in parts)) / total
    above = math.hypot(*(weight * (kept.high - kept.estimate) for weight, kept in parts)) / total
    return Interval(estimate - below, estimate, estimate + above)


def _kept_by_type(rules: Rules, rule: Rule, name: str, evidence: Evidence) -> Interval:
    cheap, strong = rules.models[0].name, rules.strong.name
    if name in rules.drifted or evidence.kind == "none":
        return ALL_QUALITY
    if evidence.is_results_only and not meets_target(rules, evidence, cheap, strong, rule.target):
        return ALL_QUALITY
    if evidence.kind == "measured" and name in rule.kept_by_type:
        return rule.kept_by_type[name]
    quality = evidence.quality[strong].estimate
    if not quality:
        return ALL_QUALITY
    return Interval(*(1.0 + difference / quality for difference in evidence.quality_difference))


def target_support(kept: Interval, target: float) -> str:
    """Whether a target is kept: `shown` by the whole interval, `expected` by its estimate, or `no`."""
    if kept.low >= target - 1e-9:
        return "shown"
    return "expected" if kept.estimate >= target - 1e-9 else "no"
