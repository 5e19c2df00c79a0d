"""What a request would have cost, had the strong model answered it.

The strong model would have read the same text and written an answer of another length: the measured ratio of both
models' answers to that type of question times what was written. The ratio comes from the policy's evidence. An image
is billed as other numbers of tokens by other models (33 times as many by gpt-4o-mini as by gpt-4o).
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
# (5,213 recorded pairs of answers, median 0.4). Evidence keeps means and counts, so the widest is taken for all.
RESIDUAL_SPREAD = 1.8


@dataclass(frozen=True, slots=True)
class Lengths:
    """How much longer the strong model's answers are than another model's, by type of question."""

    strong: str
    ratios: Mapping[str, Mapping[str, Interval]]  # model -> question type -> ratio
    pooled: Mapping[str, Interval]  # model -> over all types, from the smallest to the largest of them
    images: Mapping[str, float] = field(default_factory=dict)  # model -> tokens of an image on the strong model for one

    def ratio(self, model: str, question_type: str) -> Interval | None:
        """Tokens that the strong model writes for one of `model`; None where nothing was measured."""
        if model == self.strong:
            return Interval(1.0, 1.0, 1.0)
        return self.ratios.get(model, {}).get(question_type, self.pooled.get(model))


class _Document(msgspec.Struct):
    """What is read of `policy.json`: the exporter needs no weights."""

    models: list[Model]
    evidence: dict[str, Evidence]


def read_lengths(document: bytes) -> Lengths:
    """The ratios that a policy's evidence holds, from its `policy.json`.

    Raises:
        msgspec.DecodeError: it does not fit its form.
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
    """A ratio of means with a 95 % interval that is symmetric in its logarithm, so that it stays above 0.

    >>> evidence = Evidence("measured", 400, {}, Interval(0, 0, 0), {"mini": 300.0, "big": 240.0})
    >>> [round(end, 3) for end in _ratio(evidence, "mini", "big")]
    [0.671, 0.8, 0.954]
    """
    estimate = evidence.output_tokens[strong] / evidence.output_tokens[model]
    factor = math.exp(1.96 * RESIDUAL_SPREAD / math.sqrt(evidence.n))
    return Interval(estimate / factor, estimate, estimate * factor)


def _pooled(measured: Mapping[str, Evidence], ratios: Mapping[str, Interval], model: str, strong: str) -> Interval:
    written = {name: sum(e.n * e.output_tokens[name] for e in measured.values()) for name in (model, strong)}
    found = [ratio.estimate for ratio in ratios.values()]
    return Interval(min(found), written[strong] / written[model], max(found))


def always_strong_usd(lengths: Lengths, prices: PriceBook, record: Record, usage: Usage) -> Interval | None:
    """Dollars had the strong model answered; None where its price or the lengths are not known."""
    ratio = lengths.ratio(record.model, record.question_type)
    if ratio is None:
        return None
    read = usage.input_tokens
    if record.text_tokens is not None:  # the rest is of images
        images = max(read - record.text_tokens, 0)
        read += round(images * (lengths.images.get(record.model, 1.0) - 1.0))
    costs = []
    for times in ratio:
        written = Usage(
            input_tokens=read,
            output_tokens=round(usage.output_tokens * times),
            cached_input_tokens=round(usage.cached_input_tokens * read / usage.input_tokens) if read else 0,
            cache_write_tokens=round(usage.cache_write_tokens * read / usage.input_tokens) if read else 0,
            audio_input_tokens=usage.audio_input_tokens,
            audio_output_tokens=round(usage.audio_output_tokens * times),
        )
        cost = prices.cost_usd(lengths.strong, written, record.service_tier, record.started_unix_ns)
        if cost is None:
            return None
        costs.append(cost)
    return Interval(*costs)
