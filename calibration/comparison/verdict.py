"""What the measurements mean, in words: route or do not, why, what it saves, and what is still unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from calibration.comparison.tradeoffs import ALL, HeldOut, Pair, Row
from calibration.learning.certificate import USEFUL_SAVING
from calibration.learning.learning import DEFAULT_TARGET, LEAST_TARGET, MIN_QUESTIONS
from router.policy.decision import Rule
from router.policy.document import Policy

WORTH_SAVING = 0.02  # share of the strong model's dollars below which routing is not worth its trouble
COMPUTED_TYPES = 23  # that `calibration generate` writes questions of


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to route, and the sentences that say why."""

    route: bool
    headline: str
    reasons: Sequence[str]
    saving_per_1000_usd: float = 0.0


def best_rule(policy: Policy) -> Rule | None:
    """The rule to judge a policy by: its default target's, else the strictest that it routes by; None without one."""
    rule = policy.rules.rule(policy.default_target)
    if rule is not None:
        return rule
    routed = [
        r
        for r in policy.rules.targets
        if r.quality_per_usd is not None and LEAST_TARGET <= r.target < policy.default_target
    ]
    return max(routed, key=lambda r: r.target, default=None)


def verdict(
    policy: Policy | None,
    held: HeldOut | None,
    rows: Sequence[Row],
    pairs: Sequence[Pair],
    question_usd: float | None = None,
) -> Verdict:
    """Decide from what was certified and from its replay on held-out questions.

    Whatever is decided, the reasons end with what is certified and with what a stricter promise would take.
    `question_usd` is what asking and judging one question costs, where that is known.
    """
    if policy is None or held is None:
        n = rows[0].n
        few = f"{n} questions are too few to learn from and to test on; until there are more, only the table holds."
        reasons = [few]
        if n < MIN_QUESTIONS:
            reasons.append(f"At least {MIN_QUESTIONS} are needed: {_more(MIN_QUESTIONS - n, n, question_usd)}")
        return Verdict(False, "Do not route yet", reasons)
    found = _judged(policy, held, pairs)
    return replace(found, reasons=[*found.reasons, _certified(policy), *_stricter(policy, question_usd)])


def _judged(policy: Policy, held: HeldOut, pairs: Sequence[Pair]) -> Verdict:
    strong, rule = policy.rules.strong.name, best_rule(policy)
    reasons = [] if rule is not None and rule.target >= policy.default_target else [_uncertified(policy, strong)]
    if rule is None:
        return Verdict(False, "Do not route", reasons)
    point, always = held.points[f"{rule.target:g}"], held.points[f"always_{strong}"]
    saving = (always.cost_usd.estimate - point.cost_usd.estimate) * 1000
    share = saving / 1000 / always.cost_usd.estimate if always.cost_usd.estimate else 0.0
    if share < WORTH_SAVING:
        reasons.append(f"Routing would save ${saving:.2f} per 1,000 requests ({share:.0%} of what {strong} costs).")
        return Verdict(False, "Do not route", reasons)
    gain = held.gain_over_mix[rule.target]
    if gain.estimate < 0 < point.strong_share:
        reasons.append(f"A coin toss of the same cost would keep {-gain.estimate * 100:.1f} points of quality more.")
        return Verdict(False, "Do not route", reasons)
    return _route(policy, held, rule, pairs, reasons, saving, share)


def _route(
    policy: Policy,
    held: HeldOut,
    rule: Rule,
    pairs: Sequence[Pair],
    reasons: list[str],
    saving: float,
    share: float,
) -> Verdict:
    strong, point, gain = policy.rules.strong.name, held.points[f"{rule.target:g}"], held.gain_over_mix[rule.target]
    saves = f"It saves ${saving:.2f} per 1,000 requests, {share:.0%} of {strong}'s cost."
    cheap = [p for p in pairs if p.question_type == ALL and p.keeps_target]
    if point.strong_share == 0.0 and cheap:
        reasons.append(f"{cheap[0].model} alone keeps {rule.target:.0%} of {strong}'s quality on these questions.")
        return Verdict(True, f"Route: {cheap[0].model} is enough for all of it", [*reasons, saves], saving)
    if rule.falls_short is None:
        shown = (
            f"It was shown at {rule.confidence:.0%} confidence to keep {rule.target:.0%} of {strong}'s quality, "
            f"on {rule.n} questions, each predicted by what was learnt without it."
        )
    else:
        shown = (
            f"It is expected to keep {rule.target:.0%} of {strong}'s quality, and not certified: in resplits of the "
            f"{rule.n} questions it fell short in {rule.falls_short:.0%}."
        )
    reasons += [shown, f"{saves} {point.strong_share:.0%} of requests go to {strong}."]
    points = f"{gain.estimate * 100:+.1f} points of quality ({gain.low * 100:+.1f} to {gain.high * 100:+.1f})"
    if gain.low > 0:
        reasons.append(f"Against a coin toss of the same cost it is worth {points}.")
    else:
        reasons.append(f"That it beats a coin toss of the same cost is not shown yet: {points}.")
    at = "" if rule.target >= policy.default_target else f" at {rule.target:.0%}"
    if at:
        reasons.append(f"For that, ask for auto@{rule.target:g} or set ROUTER_DEFAULT_TARGET={rule.target:g}.")
    return Verdict(True, f"Route{at}", reasons, saving)


def _uncertified(policy: Policy, strong: str) -> str:
    return f"No threshold was shown to keep {percent(policy.default_target)} of {strong}'s quality."


def _certified(policy: Policy) -> str:
    """The highest target that is certified and saves something, and what it saves."""
    strong, n = policy.rules.strong.name, _questions(policy)
    useful = [r for r in policy.rules.targets if r.certified and r.expected_saving.estimate >= WORTH_SAVING]
    if not useful:
        return f"No target is certified on these {n:,} questions at which routing saves something."
    rule = max(useful, key=lambda r: r.target)
    low, saves, high = rule.expected_saving
    return (
        f"{percent(rule.target)} is the highest target that is certified on these {n:,} questions and saves something: "
        f"{saves:.0%} ({low:.0%} to {high:.0%}) of {strong}'s dollars."
    )


def _stricter(policy: Policy, question_usd: float | None) -> list[str]:
    """What the default target of 97 % would take, where it is not certified at a useful saving."""
    rule = next((r for r in policy.rules.targets if r.target >= DEFAULT_TARGET - 1e-9), None)
    if rule is None or (rule.certified and rule.expected_saving.estimate >= USEFUL_SAVING):
        return []
    target = percent(rule.target)
    if rule.more_questions_needed is not None:
        return [f"To certify {target} takes {_more(rule.more_questions_needed, _questions(policy), question_usd)}"]
    if rule.certified:
        return [f"{target} is certified as well, and saves {rule.expected_saving.estimate:.0%}."]
    return [f"More questions like these are not expected to certify {target} at a useful saving."]


def _questions(policy: Policy) -> int:
    return max(rule.n for rule in policy.rules.targets)


def _more(more: int, n: int, question_usd: float | None) -> str:
    """How many more questions that is, their dollars, and the commands that ask them; `n` are asked already."""
    dollars = "" if question_usd is None else f", about ${more * question_usd:.2f} at ${question_usd:.4f} each"
    return (
        f"about {more:,} more questions like these{dollars}. Yours are best; in a checkout, computed ones are "
        f"written by `python -m calibration generate --seed {n} --per-type {math.ceil(more / COMPUTED_TYPES)} --out "
        "more.jsonl`. Add the questions of this run to more.jsonl, whose answers are kept and cost nothing again, and "
        "run `python -m calibration run --questions more.jsonl`."
    )


def percent(share: float) -> str:
    """A target as people read it.

    >>> percent(0.97), percent(0.985)
    ('97 %', '98.5 %')
    """
    return f"{share * 100:.4g} %"


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
