"""Transfers a policy to another pair of models that was not calibrated, as a start without a certificate.

The new policy assumes that the two models differ as the old pair did: on the same question types and words, by the same
quality. Therefore it certifies nothing, and its evidence names its origin. Its thresholds are converted to the prices
of the new pair, so that the same questions go to the cheap model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from router.policy.document import Policy
from router.policy.prices import Price
from router.policy.rules import Evidence, Interval, Model, Rule
from router.policy.usage import Usage

INPUT_TOKENS = 100  # mean length of a question in `data/questions.jsonl`
OUTPUT_TOKENS = 250  # length of an answer if the policy has measured none
T = TypeVar("T")


class TransferError(ValueError):
    """The policy cannot be transferred to these models."""


def transfer_policy(policy: Policy, cheap: Model, strong: Model) -> Policy:
    """Transfer a policy of two models to the pair `cheap` and `strong`. Its targets are expected, not certified.

    Raises:
        TransferError: the policy has more than two models, or the cheap model of a pair is not cheaper.
    """
    rules = policy.rules
    if len(rules.models) != 2:
        raise TransferError(f"policy {policy.version} has {len(rules.models)} models; only a pair is transferred")
    old_cheap, old_strong = rules.models
    names = {old_cheap.name: cheap.name, old_strong.name: strong.name}
    output_tokens = _mean_length(rules.evidence, old_strong.name)
    old = _typical_usd(old_cheap.price, output_tokens), _typical_usd(old_strong.price, output_tokens)
    new = _typical_usd(cheap.price, output_tokens), _typical_usd(strong.price, output_tokens)
    if new[0] >= new[1]:
        raise TransferError(f"{cheap.name} is not cheaper than {strong.name}; name the cheap model first")
    if old[0] >= old[1]:
        raise TransferError(
            f"policy {policy.version} cannot be transferred: its cheap model is not cheaper than its strong model"
        )
    dollar_ratio = (new[1] - new[0]) / (old[1] - old[0])  # dollars saved per question, new over old
    saving_ratio = (1 - new[0] / new[1]) / (1 - old[0] / old[1])
    source = f"transferred from {old_cheap.name} and {old_strong.name}, policy {policy.version}"
    return Policy(
        replace(
            rules,
            models=(cheap, strong),
            evidence={kind: _transfer_evidence(evidence, names, source) for kind, evidence in rules.evidence.items()},
            targets=tuple(_transfer_rule(rule, dollar_ratio, saving_ratio) for rule in rules.targets),
            least_saving_usd=rules.least_saving_usd * dollar_ratio,
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
    measured = [one for one in evidence.values() if one.n and one.output_tokens.get(model)]
    total = sum(one.n for one in measured)
    return sum(one.n * one.output_tokens[model] for one in measured) / total if total else OUTPUT_TOKENS


def _typical_usd(price: Price, output_tokens: float) -> float:
    return price.cost_usd(Usage(INPUT_TOKENS, round(output_tokens)))


def _transfer_evidence(evidence: Evidence, names: Mapping[str, str], source: str) -> Evidence:
    """The evidence of a type under the names of the new pair, marked as transferred."""
    return replace(
        evidence,
        kind="none" if evidence.kind == "none" else "transferred",
        quality=_rename(evidence.quality, names),
        output_tokens=_rename(evidence.output_tokens, names),
        source=f"{source}; {evidence.source}" if evidence.source else source,
    )


def _rename(values: Mapping[str, T], names: Mapping[str, str]) -> dict[str, T]:
    return {names[name]: value for name, value in values.items() if name in names}


def _transfer_rule(rule: Rule, dollar_ratio: float, saving_ratio: float) -> Rule:
    saving = rule.expected_saving
    return replace(
        rule,
        quality_per_usd=None if rule.quality_per_usd is None else rule.quality_per_usd / dollar_ratio,
        certified=False,
        n=0,
        expected_saving=Interval(*(value * saving_ratio for value in saving)),
        more_questions_needed=None,
        type_limits={kind: limit / dollar_ratio for kind, limit in rule.type_limits.items()},
        kept_by_type={},
        falls_short=None,
    )
