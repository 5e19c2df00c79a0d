"""Estimate what a request would have cost if the strong model had answered it.

The strong model reads the same text, but writes an answer of different length. The estimate multiplies the output
tokens by the ratio of both models' mean answer lengths for the question type, from the policy's evidence. Models also
bill different numbers of tokens for an image (gpt-4o-mini bills 33 times as many as gpt-4o).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from router.journal.writer import Record
from router.policy.prices import PriceBook
from router.policy.rules import Evidence, Interval, Model
from router.policy.usage import Usage

# The spread of the residuals of a ratio of mean lengths, relative to the mean, was 0.1 to 1.8 over 26 types of question
# (5,213 recorded pairs of answers, median 0.4). Evidence has only means and counts, so all types use the widest.
RESIDUAL_SPREAD = 1.8


@dataclass(frozen=True, slots=True)
class Lengths:
    """Ratios of the strong model's answer length to the answer length of other models, by question type."""

    strong: str
    ratios: Mapping[str, Mapping[str, Interval]]  # model -> question type -> ratio
    pooled: Mapping[
        str, Interval
    ]  # model -> ratio over all types; the ends are the smallest and largest ratio of a type
    images: Mapping[str, float] = field(
        default_factory=dict
    )  # model -> image tokens of the strong model for one image token of this model

    def ratio(self, model: str, question_type: str) -> Interval | None:
        """Output tokens of the strong model per output token of `model`; None if not measured."""
        if model == self.strong:
            return Interval(1.0, 1.0, 1.0)
        return self.ratios.get(model, {}).get(question_type, self.pooled.get(model))


class _Document(msgspec.Struct):
    """The parts of `policy.json` that the exporter needs; it does not read the weights."""

    models: list[Model]
    evidence: dict[str, Evidence]


def read_lengths(document: bytes) -> Lengths:
    """Read the length ratios from the evidence in a `policy.json`.

    Raises:
        msgspec.DecodeError: the document is invalid.
    """
    rules = msgspec.json.decode(document, type=_Document)
    strong = rules.models[-1].name
    ratios: dict[str, dict[str, Interval]] = {}
    pooled: dict[str, Interval] = {}
    for model in rules.models[:-1]:
        measured = {
            kind: evidence
            for kind, evidence in rules.evidence.items()
            if evidence.n and evidence.output_tokens.get(model.name) and evidence.output_tokens.get(strong)
        }
        if measured:
            ratios[model.name] = {kind: _ratio(evidence, model.name, strong) for kind, evidence in measured.items()}
            pooled[model.name] = _pooled(measured, ratios[model.name], model.name, strong)
    tile = {model.name: model.image_tokens[1] for model in rules.models}
    images = {name: tile[strong] / tokens for name, tokens in tile.items() if tokens}
    return Lengths(strong, ratios, pooled, images)


def _ratio(evidence: Evidence, model: str, strong: str) -> Interval:
    """A ratio of means with a 95 % interval. The interval is symmetric on the log scale, so it stays above 0.

    >>> evidence = Evidence("measured", 400, {}, Interval(0, 0, 0), {"mini": 300.0, "big": 240.0})
    >>> [round(end, 3) for end in _ratio(evidence, "mini", "big")]
    [0.671, 0.8, 0.954]
    """
    estimate = evidence.output_tokens[strong] / evidence.output_tokens[model]
    factor = math.exp(1.96 * RESIDUAL_SPREAD / math.sqrt(evidence.n))
    return Interval(estimate / factor, estimate, estimate * factor)


def _pooled(measured: Mapping[str, Evidence], ratios: Mapping[str, Interval], model: str, strong: str) -> Interval:
    written = {name: sum(e.n * e.output_tokens[name] for e in measured.values()) for name in (model, strong)}
    estimates = [ratio.estimate for ratio in ratios.values()]
    return Interval(min(estimates), written[strong] / written[model], max(estimates))


def always_strong_usd(lengths: Lengths, prices: PriceBook, record: Record, usage: Usage) -> Interval | None:
    """Estimated cost in US dollars of the strong model's answer; None if its price or the length ratio is unknown."""
    ratio = lengths.ratio(record.model, record.question_type)
    if ratio is None:
        return None
    input_tokens = usage.input_tokens
    if record.text_tokens is not None:  # the other tokens are of images
        images = max(input_tokens - record.text_tokens, 0)
        input_tokens += round(images * (lengths.images.get(record.model, 1.0) - 1.0))
    costs = []
    for length_ratio in ratio:
        strong_usage = Usage(
            input_tokens=input_tokens,
            output_tokens=round(usage.output_tokens * length_ratio),
            cached_input_tokens=(
                round(usage.cached_input_tokens * input_tokens / usage.input_tokens) if input_tokens else 0
            ),
            cache_write_tokens=(
                round(usage.cache_write_tokens * input_tokens / usage.input_tokens) if input_tokens else 0
            ),
            audio_input_tokens=usage.audio_input_tokens,
            audio_output_tokens=round(usage.audio_output_tokens * length_ratio),
        )
        cost = prices.cost_usd(lengths.strong, strong_usage, record.service_tier, record.started_unix_ns)
        if cost is None:
            return None
        costs.append(cost)
    return Interval(*costs)
