"""What the measurements mean, in words: route or do not, why, what it saves, and what is still unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibration.tradeoffs import ALL, HeldOut, Pair, Row
from router.policy.decision import Rule
from router.policy.document import Policy

WORTH_SAVING = 0.02  # share of the strong model's dollars below which routing is not worth its trouble


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to route, and the sentences that say why."""

    route: bool
    headline: str
    reasons: Sequence[str]
    saving_per_1000_usd: float = 0.0


def verdict(policy: Policy | None, held: HeldOut | None, rows: Sequence[Row], pairs: Sequence[Pair]) -> Verdict:
    """Decide from the default target's certificate and its replay on held-out questions."""
    if policy is None or held is None:
        n = rows[0].n
        return Verdict(
            False,
            "Do not route yet",
            [f"{n} questions are too few to learn from and to test on; until there are more, only the table holds."],
        )
    strong = policy.rules.strong.name
    rule = policy.rules.rule(policy.default_target)
    if rule is None or not rule.certified:
        return Verdict(False, "Do not route", [_uncertified(policy, rule, strong), *_instead(policy, held, strong)])
    point, always = held.points[f"{rule.target:g}"], held.points[f"always_{strong}"]
    saving = (always.cost_usd.estimate - point.cost_usd.estimate) * 1000
    share = saving / 1000 / always.cost_usd.estimate if always.cost_usd.estimate else 0.0
    kept = f"It was shown at {rule.confidence:.0%} confidence to keep {rule.target:.0%} of {strong}'s quality"
    if share < WORTH_SAVING:
        reason = f"Routing would save only ${saving:.2f} per 1,000 requests ({share:.0%} of what {strong} costs)."
        return Verdict(False, "Do not route", [reason], saving)
    if point.strong_share == 0.0 and all(p.keeps_target for p in pairs if p.question_type == ALL):
        cheap = policy.rules.models[0].name
        reason = f"{cheap} alone keeps {rule.target:.0%} of {strong}'s quality on these questions."
        return Verdict(True, f"Route: {cheap} is enough for all of it", [reason, _saves(saving, share)], saving)
    gain = held.gain_over_mix[rule.target]
    reasons = [
        f"{kept}, on {rule.n} questions it was not fitted on.",
        _saves(saving, share) + f" {point.strong_share:.0%} of requests go to {strong}.",
    ]
    if gain.low <= 0:
        reasons.append(
            "That it beats a coin toss of the same cost is not shown yet: "
            f"{gain.estimate * 100:+.1f} points of quality ({gain.low * 100:+.1f} to {gain.high * 100:+.1f})."
        )
    else:
        reasons.append(f"It is {gain.estimate * 100:.1f} points of quality above a coin toss of the same cost.")
    return Verdict(True, "Route", reasons, saving)


def _saves(saving: float, share: float) -> str:
    return f"It saves ${saving:.2f} per 1,000 requests, {share:.0%} of the strong model's cost."


def _uncertified(policy: Policy, rule: Rule | None, strong: str) -> str:
    text = f"No threshold was shown to keep {policy.default_target:.0%} of {strong}'s quality, so {strong} answers all."
    more = rule.more_questions_needed if rule is not None else None
    return text + (f" About {more:,} more questions like these would show one." if more else "")


def _instead(policy: Policy, held: HeldOut, strong: str) -> list[str]:
    always = held.points[f"always_{strong}"].cost_usd.estimate
    lower = [rule for rule in policy.rules.targets if rule.certified]
    if not lower:
        return []
    best = lower[-1]
    saving = (always - held.points[f"{best.target:g}"].cost_usd.estimate) * 1000
    return [f"If {best.target:.0%} is enough, routing is certified and saves ${saving:.2f} per 1,000 requests."]


def of_types(pairs: Sequence[Pair]) -> Mapping[tuple[str, str], str]:
    """For each type and cheaper model: whether it is enough, or how many more questions would settle that."""
    said = {}
    for pair in pairs:
        if pair.settled:
            words = "is enough" if pair.keeps_target else "is not enough"
        elif pair.more_questions is None:
            words = "too close to call"
        else:
            words = f"ask {pair.more_questions:,} more"
        said[pair.question_type, pair.model] = words
    return said
