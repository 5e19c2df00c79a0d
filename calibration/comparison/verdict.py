"""The verdict on a calibration in words: whether to route, why, what it saves, and what is still unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from calibration.comparison.tradeoffs import ALL, HeldOutResults, ModelSummary, Tradeoff
from calibration.learning.certificate import USEFUL_SAVING
from calibration.learning.learning import DEFAULT_TARGET, MIN_QUESTIONS, MIN_USEFUL_TARGET
from router.policy.document import Policy
from router.policy.rules import Rule

MIN_WORTHWHILE_SAVING = 0.02  # share of the strong model's cost; the verdict on a smaller saving is not to route
COMPUTED_TYPES = 23  # of question that `calibration generate` writes


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to route, with the reasons in sentences."""

    route: bool
    headline: str
    reasons: Sequence[str]
    saving_per_1000_usd: float = 0.0


def best_rule(policy: Policy) -> Rule | None:
    """The rule that the verdict is about; None where the policy never routes.

    It is the rule of the default target, or else the strictest lower target that the policy routes by.
    """
    rule = policy.rules.rule_for(policy.default_target)
    if rule is not None:
        return rule
    routed = [
        r
        for r in policy.rules.targets
        if r.quality_per_usd is not None and MIN_USEFUL_TARGET <= r.target < policy.default_target
    ]
    return max(routed, key=lambda r: r.target, default=None)


def decide_verdict(
    policy: Policy | None,
    held_out: HeldOutResults | None,
    summaries: Sequence[ModelSummary],
    tradeoffs: Sequence[Tradeoff],
    question_usd: float | None = None,
) -> Verdict:
    """Decide whether to route from the certificate and from the replay on held-out questions.

    The reasons always end with what is certified and with what a stricter target needs. `question_usd` is the mean cost
    of a question with its judgements, or None where it is unknown.
    """
    if policy is None or held_out is None:
        return _verdict_on_too_few(summaries[0].n, question_usd)
    verdict = _judge_policy(policy, held_out, tradeoffs)
    further = [_describe_certified(policy), *_describe_stricter(policy, question_usd)]
    return replace(verdict, reasons=[*verdict.reasons, *further])


def _verdict_on_too_few(n: int, question_usd: float | None) -> Verdict:
    reasons = [f"{n} questions are too few to learn and test a policy. Only the comparison table is valid."]
    if n < MIN_QUESTIONS:
        more = _describe_more_questions(MIN_QUESTIONS - n, n, question_usd)
        reasons.append(f"At least {MIN_QUESTIONS} are needed: {more}")
    return Verdict(False, "Do not route yet", reasons)


def _judge_policy(policy: Policy, held_out: HeldOutResults, tradeoffs: Sequence[Tradeoff]) -> Verdict:
    strong, rule = policy.rules.strong.name, best_rule(policy)
    reasons = []
    if rule is None or rule.target < policy.default_target:
        target = format_percent(policy.default_target)
        reasons.append(f"No threshold was shown to keep {target} of {strong}'s quality.")
    if rule is None:
        return Verdict(False, "Do not route", reasons)
    point, always = held_out.points[f"{rule.target:g}"], held_out.points[f"always_{strong}"]
    saving = (always.cost_usd.estimate - point.cost_usd.estimate) * 1000
    share = saving / 1000 / always.cost_usd.estimate if always.cost_usd.estimate else 0.0
    if share < MIN_WORTHWHILE_SAVING:
        reasons.append(f"Routing would save ${saving:.2f} per 1,000 requests ({share:.0%} of {strong}'s cost).")
        return Verdict(False, "Do not route", reasons)
    gain = held_out.gain_over_mix[rule.target]
    if gain.estimate < 0 < point.strong_share:
        reasons.append(f"A random mix of the same cost would keep {-gain.estimate * 100:.1f} points of quality more.")
        return Verdict(False, "Do not route", reasons)
    saves = f"It saves ${saving:.2f} per 1,000 requests, {share:.0%} of {strong}'s cost."
    cheap = next((t.model for t in tradeoffs if t.question_type == ALL and t.keeps_target), None)
    if point.strong_share == 0.0 and cheap is not None:
        reasons.append(f"{cheap} alone keeps {rule.target:.0%} of {strong}'s quality on these questions.")
        return Verdict(True, f"Route: {cheap} is enough for all of it", [*reasons, saves], saving)
    to_strong = f"{saves} {point.strong_share:.0%} of requests go to {strong}."
    reasons += [_describe_promise(rule, strong), to_strong, *_describe_routing(policy, held_out, rule)]
    at = "" if rule.target >= policy.default_target else f" at {rule.target:.0%}"
    return Verdict(True, f"Route{at}", reasons, saving)


def _describe_promise(rule: Rule, strong: str) -> str:
    """Whether the promise of the rule is certified or only expected."""
    if rule.falls_short is None:
        return (
            f"Routing keeps {format_percent(rule.target)} of {strong}'s quality at {format_percent(rule.confidence)} "
            f"confidence, tested on {rule.n} questions that were each predicted by a model fitted without them."
        )
    return (
        f"Routing is expected to keep {format_percent(rule.target)} of {strong}'s quality, but not certified: in "
        f"random resplits of the {rule.n} questions it fell short in {rule.falls_short:.0%}."
    )


def _describe_routing(policy: Policy, held_out: HeldOutResults, rule: Rule) -> list[str]:
    """The gain over a random mix, and how to request a target that is not the default."""
    gain = held_out.gain_over_mix[rule.target]
    points = f"{gain.estimate * 100:+.1f} points of quality ({gain.low * 100:+.1f} to {gain.high * 100:+.1f})"
    if gain.low > 0:
        reasons = [f"Compared with a random mix of the same cost, it gains {points}."]
    else:
        reasons = [f"It is not shown yet to be better than a random mix of the same cost: {points}."]
    if rule.target < policy.default_target:
        reasons.append(f"To use it, request auto@{rule.target:g} or set ROUTER_DEFAULT_TARGET={rule.target:g}.")
    return reasons


def _describe_certified(policy: Policy) -> str:
    """The highest certified target with a saving, and the saving."""
    strong, n = policy.rules.strong.name, _question_count(policy)
    useful = [r for r in policy.rules.targets if r.certified and r.expected_saving.estimate >= MIN_WORTHWHILE_SAVING]
    if not useful:
        return f"No target with a saving is certified on these {n:,} questions."
    rule = max(useful, key=lambda r: r.target)
    low, saves, high = rule.expected_saving
    return (
        f"{format_percent(rule.target)} is the highest target with a saving that is certified on these {n:,} "
        f"questions: it saves {saves:.0%} ({low:.0%} to {high:.0%}) of {strong}'s cost."
    )


def _describe_stricter(policy: Policy, question_usd: float | None) -> list[str]:
    """What the default target of 97 % needs, where it is not certified at a useful saving."""
    rule = next((r for r in policy.rules.targets if r.target >= DEFAULT_TARGET - 1e-9), None)
    if rule is None or (rule.certified and rule.expected_saving.estimate >= USEFUL_SAVING):
        return []
    target = format_percent(rule.target)
    if rule.more_questions_needed is not None:
        more = _describe_more_questions(rule.more_questions_needed, _question_count(policy), question_usd)
        return [f"To certify {target} takes {more}"]
    if rule.certified:
        return [f"{target} is certified as well, and saves {rule.expected_saving.estimate:.0%}."]
    return [f"More questions like these are not expected to certify {target} at a useful saving."]


def _question_count(policy: Policy) -> int:
    return max(rule.n for rule in policy.rules.targets)


def _describe_more_questions(more: int, n: int, question_usd: float | None) -> str:
    """A number of further questions, their cost, and the commands that ask them; `n` were asked already."""
    cost = "" if question_usd is None else f", about ${more * question_usd:.2f} at ${question_usd:.4f} each"
    return (
        f"about {more:,} more questions like these{cost}. Your own questions are best. In a checkout, "
        f"`python -m calibration generate --seed {n} --per-type {math.ceil(more / COMPUTED_TYPES)} --out more.jsonl` "
        "writes computed ones. Add the questions of this run to more.jsonl (their stored answers cost nothing), and "
        "run `python -m calibration run --questions more.jsonl`."
    )


def format_percent(share: float) -> str:
    """A target in percent.

    >>> format_percent(0.97), format_percent(0.985)
    ('97%', '98.5%')
    """
    return f"{share * 100:.4g}%"


def describe_tradeoffs(tradeoffs: Sequence[Tradeoff]) -> Mapping[tuple[str, str], str]:
    """By type and cheaper model: whether the model is enough, or how many more questions would decide it."""
    descriptions = {}
    for tradeoff in tradeoffs:
        if tradeoff.is_conclusive:
            text = "is enough" if tradeoff.keeps_target else "is not enough"
        elif tradeoff.more_questions is None:
            text = "too close to call"
        else:
            text = f"ask {tradeoff.more_questions:,} more"
        descriptions[tradeoff.question_type, tradeoff.model] = text
    return descriptions
