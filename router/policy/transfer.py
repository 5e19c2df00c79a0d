"""A policy for a pair of models that was never calibrated, from one that was: a start, and never a certificate.

What is taken over is which kinds of question are hard: types, words, and by how much the cheaper model falls short on
each. That the new pair differs as the old one did is an assumption. So nothing is certified, the evidence says from
where it comes, and thresholds are put into the new pair's dollars, so that the same questions go to the cheap model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from router.policy.document import Policy
from router.policy.prices import Price
from router.policy.rules import Evidence, Interval, Model, Rule
from router.policy.usage import Usage

INPUT_TOKENS = 100  # of a question, in the mean of the questions in `data/questions.jsonl`
OUTPUT_TOKENS = 250  # of an answer, where the policy has measured none
T = TypeVar("T")


class TransferError(ValueError):
    """The policy cannot be transferred to these models."""


def transferred(policy: Policy, cheap: Model, strong: Model) -> Policy:
    """What `policy` (of two models) says, for the pair `cheap` and `strong`; every target is expected, none certified.

    Raises:
        TransferError: the policy is of more than two models, or one of the two pairs saves nothing.
    """
    rules = policy.rules
    if len(rules.models) != 2:
        raise TransferError(f"policy {policy.version} has {len(rules.models)} models; only a pair is transferred")
    old_cheap, old_strong = rules.models
    names = {old_cheap.name: cheap.name, old_strong.name: strong.name}
    written = _mean_length(rules.evidence, old_strong.name)
    old = _typical_usd(old_cheap.price, written), _typical_usd(old_strong.price, written)
    new = _typical_usd(cheap.price, written), _typical_usd(strong.price, written)
    if new[0] >= new[1]:
        raise TransferError(f"{cheap.name} is not cheaper than {strong.name}: name the cheap model first")
    if old[0] >= old[1]:
        raise TransferError(f"policy {policy.version} saves nothing by which a question's worth could be told")
    dearer = (new[1] - new[0]) / (old[1] - old[0])  # what a question saves now, for what it saved
    saved = (1 - new[0] / new[1]) / (1 - old[0] / old[1])
    source = f"transferred from {old_cheap.name} and {old_strong.name}, policy {policy.version}"
    return Policy(
        replace(
            rules,
            models=(cheap, strong),
            evidence={kind: _evidence(known, names, source) for kind, known in rules.evidence.items()},
            targets=tuple(_rule(rule, dearer, saved) for rule in rules.targets),
            least_saving_usd=rules.least_saving_usd * dearer,
        ),
        replace(policy.predictor, models=(cheap.name, strong.name)),
        policy.default_target,
        {
            "made_at": policy.about.get("made_at", ""),
            "transferred_from": {"policy": policy.version, "models": [old_cheap.name, old_strong.name]},
            "promise": "expected",
        },
    )


def _mean_length(evidence: Mapping[str, Evidence], model: str) -> float:
    measured = [known for known in evidence.values() if known.n and known.output_tokens.get(model)]
    total = sum(known.n for known in measured)
    return sum(known.n * known.output_tokens[model] for known in measured) / total if total else OUTPUT_TOKENS


def _typical_usd(price: Price, written: float) -> float:
    return price.cost_usd(Usage(INPUT_TOKENS, round(written)))


def _evidence(known: Evidence, names: Mapping[str, str], source: str) -> Evidence:
    """Whatever is known of a type was seen of other models, and is transferred."""
    return replace(
        known,
        kind="none" if known.kind == "none" else "transferred",
        quality=_renamed(known.quality, names),
        output_tokens=_renamed(known.output_tokens, names),
        source=f"{source}; {known.source}" if known.source else source,
    )


def _renamed(values: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    return {names[name]: value for name, value in values.items() if name in names}


def _rule(rule: Rule, dearer: float, saved: float) -> Rule:
    saving = rule.expected_saving
    return replace(
        rule,
        quality_per_usd=None if rule.quality_per_usd is None else rule.quality_per_usd / dearer,
        certified=False,
        n=0,
        expected_saving=Interval(*(each * saved for each in saving)),
        more_questions_needed=None,
        type_limits={kind: limit / dearer for kind, limit in rule.type_limits.items()},
        kept_by_type={},
        falls_short=None,
    )
