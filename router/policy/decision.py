"""A prediction and a policy become a decision, with its reason and its evidence.

`decide` is the one line that calibration replays and the proxy serves, so that what was certified is what runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from router.policy.asking import Asked
from router.policy.conversation import CACHED_FROM_TOKENS
from router.policy.features import Features
from router.policy.prediction import Prediction
from router.policy.prices import Price
from router.policy.usage import Usage


class Reason(StrEnum):
    """Why a model was chosen; the same word in header, trace, log and report."""

    CHEAP_IS_ENOUGH = "cheap_is_enough"
    STRONG_IS_BETTER = "strong_is_better"
    NO_EVIDENCE = "no_evidence"  # nothing is known of this type of question
    UNCERTAIN_TYPE = "uncertain_type"  # of no type for sure, or maybe of one that nothing is known of
    NOVEL = "novel"  # unlike anything the calibration saw
    DRIFTED = "drifted"  # the type was shown to keep less than it was trusted with, since the calibration
    NOT_CERTIFIED = "not_certified"  # no threshold was shown to keep this target
    CONTEXT_WINDOW = "context_window"  # only the chosen model can hold the request
    MODALITY = "modality"  # only the chosen model can read what is attached
    TOOLS = "tools"  # only the chosen model can call the tools that are offered
    PARAMETERS = "parameters"  # only the chosen model takes the parameters of the request
    FORCED = "forced"  # the client named the model
    CONTINUED = "continued"  # it goes on with what another answer of that model began
    PASSED_THROUGH = "passed_through"  # not a name that is routed
    FALLBACK = "fallback"  # the model decided on could not answer
    BUDGET = "budget"  # the budget of the key is nearly spent, and a lower target takes this model
    SUCCESSOR = "successor"  # the model decided on is gone, and the one that follows it answered
    ESCALATED = "escalated"  # the answer of the model decided on did not hold, and a stronger one answered


class Promise(StrEnum):
    """What stands behind a target."""

    CERTIFIED = "certified"  # it was shown at the rule's confidence
    EXPECTED = "expected"  # it is the best estimate, and may fall short


class Interval(NamedTuple):
    """A 95 % interval around an estimate."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one type of question: how many outcomes, and what each model is worth there."""

    kind: Literal["measured", "published", "transferred", "none"]
    n: int
    quality: Mapping[str, Interval]
    quality_difference: Interval  # cheap minus strong, paired; below 0 the cheap model is worse
    output_tokens: Mapping[str, float]  # mean length of each model's answers; none where results are all that is known
    source: str = ""


CACHE_SHARE = 0.3  # of a question's own saving, by which a cache may move it: a model is not kept at any price
NOTHING_ASKED = Asked("")
_UNCERTIFIED = ("published", "transferred")  # kinds of evidence that no certificate stands behind
NO_EVIDENCE = Evidence("none", 0, {}, Interval(-1.0, 0.0, 1.0), {})


@dataclass(frozen=True, slots=True)
class Model:
    """A model the policy may choose, and what it can do. Models are listed from cheap to strong."""

    name: str
    price: Price
    context_tokens: int = 128_000
    images: bool = True
    audio: bool = False
    tools: bool = True
    image_tokens: tuple[int, int] = (85, 170)  # as billed: per image, and per tile of 512 x 512
    successor: str = ""  # the model that answers for this one when it is gone; "" is none


@dataclass(frozen=True, slots=True)
class Rule:
    """How much quality a dollar must buy for a target to be kept, and how sure that is."""

    target: float  # share of the strong model's quality to keep
    quality_per_usd: float | None  # a dollar more must buy so much quality; None: nothing but the strong model
    certified: bool
    n: int  # outcomes the certificate was tested on
    confidence: float
    expected_saving: Interval  # share of the strong model's dollars
    more_questions_needed: int | None = None
    type_limits: Mapping[str, float] = field(default_factory=dict)  # quality per dollar of types that would keep less
    kept_by_type: Mapping[str, Interval] = field(default_factory=dict)  # share of the strong model's quality
    falls_short: float | None = None  # share of resplits in which an expected promise was not kept

    @property
    def promise(self) -> Promise:
        return Promise.CERTIFIED if self.certified else Promise.EXPECTED


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy decides by, beside its predictor."""

    models: tuple[Model, ...]  # cheap to strong
    evidence: Mapping[str, Evidence]  # by question type
    targets: Sequence[Rule]  # ascending
    caution: float = 0.0  # quality that is added to the strong model's, since predictions err
    doubt_weight: float = 0.0  # by which the doubt about the type is added to it
    risk_weight: float = 0.0  # by which the chance that only one of the two models is right is added to it
    least_saving_usd: float = 0.0  # what a cheaper answer saves at least, so that short ones are not priceless
    published_tolerance: float = 0.0  # points of quality that published results may fall short of a target by
    least_type_probability: float = 0.0  # a request that is less surely of its type goes to the strong model
    no_evidence_limit: float = 1.0  # and one that is more probably of a type without evidence
    usual_type_probability: float = 1.0  # of the questions of the calibration; dollars count less below it
    familiar_until: float = 1.0  # novelty from which on dollars count less
    novelty_limit: float = 0.95  # requests more unusual than this share of the calibration go to the strong model
    version: str = ""
    drifted: frozenset[str] = frozenset()  # types that were shown to keep less since; not part of the policy

    @property
    def strong(self) -> Model:
        return self.models[-1]

    def evidence_of(self, question_type: str) -> Evidence:
        return self.evidence.get(question_type, NO_EVIDENCE)

    def rule(self, target: float) -> Rule | None:
        """The least strict rule that was shown to keep at least `target`; None where only the strong model does."""
        for rule in self.targets:  # every request comes by: a loop makes no call for each target
            if rule.target >= target - 1e-9 and rule.quality_per_usd is not None:
                return rule
        return None


@dataclass(frozen=True, slots=True)
class Decision:
    """Which model answers, and why."""

    model: str
    reason: Reason
    target: float
    question_type: str
    type_probabilities: Mapping[str, float]
    quality: Mapping[str, float]
    expected_cost_usd: Mapping[str, float]
    gap: float  # what the strong model is expected to add, in quality; requests are ranked for escalation by it
    novelty: float
    evidence: Evidence
    policy_version: str
    promise: Promise | None = None  # what stands behind the target; None where only the strong model keeps it
    text_tokens: int | None = None  # estimated of the text, where images are billed beside it
    asked: Asked = NOTHING_ASKED  # what was taken for the question, and what for its material
    tools_matching: int = 0  # of the tools that are offered, those that fit the question
    cached_model: str | None = None  # the model that is expected to have the earlier turns in its cache


def decide(rules: Rules, features: Features, prediction: Prediction, target: float) -> Decision:
    """Choose the model with the best `quality + quality_per_usd * dollars saved`.

    The strong model's quality counts `caution` more. Dollars are expected ones: what a model that answered the turn
    before has in its cache costs what the cache costs. Which model that was follows from the same request, since each
    turn is decided on as it was then.

    The guards, in order: what a model cannot hold or read; a type without evidence; a type that drifted since; an
    uncertain type; a request unlike the calibration; a target without a certificate. Each of the last five sends the
    request to the strong model. A type of which only published results are known is cheap only where these keep the
    target by themselves.
    """
    cached: str | None = None
    for turn in prediction.earlier:
        cached = _choose(rules, features, turn, target, cached)[0]
    costs = {m.name: expected_cost_usd(m, features, prediction, m.name == cached) for m in rules.models}
    model, reason = _choose(rules, features, prediction, target, cached)
    cheap, strong = rules.models[0].name, rules.strong.name
    rule, evidence = rules.rule(target), rules.evidence_of(prediction.question_type)
    return Decision(
        model=model,
        reason=reason,
        target=target,
        question_type=prediction.question_type,
        type_probabilities=prediction.type_probabilities,
        quality=prediction.quality,
        expected_cost_usd=costs,
        gap=prediction.quality[strong] - prediction.quality[cheap],
        novelty=prediction.novelty,
        evidence=evidence,
        policy_version=rules.version,
        promise=None if rule is None else Promise.EXPECTED if evidence.kind in _UNCERTIFIED else rule.promise,
        text_tokens=features.input_tokens if features.images else None,
        asked=prediction.turn.asked,
        tools_matching=prediction.tools_matching,
        cached_model=cached if prediction.turn.is_cached else None,
    )


def _choose(
    rules: Rules, features: Features, prediction: Prediction, target: float, cached: str | None
) -> tuple[str, Reason]:
    able, guard = _able(rules, features)
    strong = able[-1].name
    if len(able) == 1 and guard is not None:
        return strong, guard
    guard = _why_unknown(rules, features, prediction)
    if guard is not None:
        return strong, guard
    rule = rules.rule(target)
    if rule is None or rule.quality_per_usd is None:
        return strong, Reason.NOT_CERTIFIED
    evidence = rules.evidence_of(prediction.question_type)
    if stands_alone(evidence):
        chosen = next(m.name for m in able if m.name == strong or keeps(rules, evidence, m.name, strong, rule.target))
    else:
        per_usd = min(rule.quality_per_usd, rule.type_limits.get(prediction.question_type, rule.quality_per_usd))
        savings = savings_usd(rules, features, prediction, cached)
        chosen = max(reversed(able), key=lambda m: _worth(rules, prediction, savings, m.name, strong, per_usd)).name
    return chosen, Reason.STRONG_IS_BETTER if chosen == strong else Reason.CHEAP_IS_ENOUGH


def _worth(
    rules: Rules, prediction: Prediction, savings: Mapping[str, float], model: str, strong: str, per_usd: float
) -> float:
    """What a model is worth beside the strong one, whose worth is 0."""
    if model == strong:
        return 0.0
    return per_usd * savings[model] - cautious_gap(rules, prediction, model, strong)


def cautious_gap(rules: Rules, prediction: Prediction, model: str, strong: str) -> float:
    """What the strong model is taken to add in quality: what is expected, and more where that is in doubt."""
    own, best = prediction.quality[model], prediction.quality[strong]
    risk = own * (1 - best) + best * (1 - own)  # as if the two were independent
    return best - own + rules.caution + rules.doubt_weight * prediction.doubt[model] + rules.risk_weight * risk


def savings_usd(rules: Rules, features: Features, prediction: Prediction, cached: str | None) -> dict[str, float]:
    """Dollars by which each model is cheaper than the strong one for what is asked and answered.

    Instructions, material, other tools and earlier turns count where one model has them in its cache and another has
    not, up to `CACHE_SHARE` of what is asked and answered. By themselves they make no question easier, so that a long
    prompt is no reason for the cheap model.
    A model that saves anything saves at least `least_saving_usd`, so that short answers are not priceless. The less
    familiar a question is, and the less surely it is of its type, the less is known of what its dollars cost in
    quality: they count by the square of the probability of its type where that is less than is usual, and less from a
    novelty of `familiar_until` on.
    """
    asked = prediction.question_tokens
    images = {m.name: _images_tokens(m, features) for m in rules.models}
    own = {m.name: _dollars(m, features, prediction, asked + images[m.name], 0) for m in rules.models}
    strong = rules.strong.name
    saved = {name: own[strong] - cost for name, cost in own.items()}
    if cached is not None and prediction.turn.is_cached:
        again = {m.name: 0.0 if m.name == cached else _cache_value(m, prediction) for m in rules.models}
        saved = {
            name: value + min(max(again[strong] - again[name], -CACHE_SHARE * abs(value)), CACHE_SHARE * abs(value))
            for name, value in saved.items()
        }
    probability = prediction.type_probabilities[prediction.question_type]
    known = 1.0
    if probability < rules.usual_type_probability:
        known = (probability / rules.usual_type_probability) ** 2
    if prediction.novelty > rules.familiar_until:
        known *= (1.0 - prediction.novelty) / (1.0 - rules.familiar_until)
    return {name: known * max(value, rules.least_saving_usd) if value > 0 else value for name, value in saved.items()}


def _cache_value(model: Model, prediction: Prediction) -> float:
    """Dollars that a model is cheaper by if it has the earlier turns in its cache, which it else has to write there."""
    tokens, price = prediction.turn.cached_tokens, model.price
    return price.cost_usd(Usage(input_tokens=tokens, cache_write_tokens=_written(model, tokens, 0))) - price.cost_usd(
        Usage(input_tokens=tokens, cached_input_tokens=tokens)
    )


def _written(model: Model, tokens: int, cached: int) -> int:
    """Input tokens that are written to the cache, where a model bills that: what is new of a prompt that is cached."""
    if model.price.usd_per_million_cache_write_tokens is None or tokens < CACHED_FROM_TOKENS:
        return 0
    return tokens - cached


def quality_per_usd_needed(rules: Rules, features: Features, prediction: Prediction, target: float) -> float:
    """The price of quality from which on a cheaper model than the strong one is chosen, as `decide` does.

    Infinite where none ever is, and minus infinite where published results alone choose it.
    """
    slopes, offsets = lines_of_worth(rules, features, prediction, target)
    if -math.inf in offsets:
        return -math.inf
    return min((offset / slope for slope, offset in zip(slopes, offsets, strict=True) if slope > 0), default=math.inf)


def lines_of_worth(
    rules: Rules, features: Features, prediction: Prediction, target: float
) -> tuple[list[float], list[float]]:
    """Slope and offset of each model: at any price of quality `decide` takes the largest `slope * price - offset`.

    The strong model's are 0 and 0, those of a model that is never chosen 0 and infinite.
    """
    able, _ = _able(rules, features)
    column = {model.name: i for i, model in enumerate(rules.models)}
    strong = able[-1].name
    slopes, offsets = [0.0] * len(column), [math.inf] * len(column)
    offsets[column[strong]] = 0.0
    if len(able) == 1 or _why_unknown(rules, features, prediction) is not None:
        return slopes, offsets
    evidence = rules.evidence_of(prediction.question_type)
    savings, alone = savings_usd(rules, features, prediction, None), stands_alone(evidence)
    for model in able[:-1]:
        if not alone:
            slopes[column[model.name]] = savings[model.name]
            offsets[column[model.name]] = cautious_gap(rules, prediction, model.name, strong)
        elif keeps(rules, evidence, model.name, strong, target):
            offsets[column[model.name]] = -math.inf
            break
    return slopes, offsets


def _why_unknown(rules: Rules, features: Features, prediction: Prediction) -> Reason | None:
    """What makes the evidence say nothing of this request, or None."""
    if rules.evidence_of(prediction.question_type).kind == "none" or features.has_attachments:
        return Reason.NO_EVIDENCE
    if prediction.question_type in rules.drifted:
        return Reason.DRIFTED
    if _is_uncertain(rules, prediction):
        return Reason.UNCERTAIN_TYPE
    return Reason.NOVEL if prediction.novelty > rules.novelty_limit else None


def _is_uncertain(rules: Rules, prediction: Prediction) -> bool:
    """Whether the evidence of the type may not be evidence of this request."""
    evidence, probabilities = rules.evidence, prediction.type_probabilities
    if probabilities[prediction.question_type] < rules.least_type_probability:
        return True
    unknown = 0.0
    for name, probability in probabilities.items():  # every request comes by: no call for each type
        if name not in evidence or evidence[name].kind == "none":
            unknown += probability
    return unknown > rules.no_evidence_limit


def likely_types(decision: Decision, least: float = 0.02) -> dict[str, float]:
    """What a request may be, the likeliest first: types of at least this probability."""
    ranked = sorted(decision.type_probabilities.items(), key=lambda item: -item[1])
    return {name: probability for name, probability in ranked if probability >= least}


def stands_alone(evidence: Evidence) -> bool:
    """Whether results are all that is known of a type: published ones, or ones that were transferred as such.

    The predictor says nothing of such a type, so that its results keep a target by themselves or not at all.
    """
    return evidence.kind == "published" or (evidence.kind == "transferred" and not evidence.output_tokens)


def keeps(rules: Rules, evidence: Evidence, model: str, strong: str, target: float) -> bool:
    """Whether a type keeps the target on `model`; what is not certified is not traded against other types."""
    least = target * evidence.quality[strong].estimate - rules.published_tolerance
    return evidence.quality[model].estimate >= least


def _able(rules: Rules, features: Features) -> tuple[Sequence[Model], Reason | None]:
    """The models that can take the request, and what ruled out the others. The strong one stays if none can."""
    able: list[Model] = []
    guard: Reason | None = None
    for model in rules.models:
        why = why_unable(model, features)
        if why is None:
            able.append(model)
        else:
            guard = why
    return able or [rules.strong], guard


def why_unable(model: Model, features: Features) -> Reason | None:
    """What keeps `model` from answering a request, or None."""
    if features.unfit and model.name in features.unfit:
        return Reason(features.unfit[model.name])
    if (features.images and not model.images) or (features.audio_parts and not model.audio):
        return Reason.MODALITY
    if features.tool_characters and not model.tools:
        return Reason.TOOLS
    needed = input_tokens(model, features) + (features.max_output_tokens or 0)
    return Reason.CONTEXT_WINDOW if needed > model.context_tokens else None


def input_tokens(model: Model, features: Features) -> int:
    """Expected input tokens of the request on `model`; images as that model bills them."""
    return features.input_tokens + _images_tokens(model, features)


def _images_tokens(model: Model, features: Features) -> int:
    return sum(_image_tokens(model, detail) for detail in features.images) if features.images else 0


_TILES_WHEN_UNKNOWN = 4  # an image of 1024 x 1024, which is what `auto` and `high` make of most photographs


def _image_tokens(model: Model, detail: str) -> int:
    base, tile = model.image_tokens
    return base if detail == "low" else base + tile * _TILES_WHEN_UNKNOWN


def expected_cost_usd(model: Model, features: Features, prediction: Prediction, cached: bool = False) -> float:
    """Expected dollars for a turn on `model`, with the answer's length as predicted; `cached`: it answered before."""
    turn = prediction.turn
    tokens = turn.tokens + _images_tokens(model, features)
    return _dollars(model, features, prediction, tokens, turn.cached_tokens if cached else 0)


def _dollars(model: Model, features: Features, prediction: Prediction, tokens: int, cached: int) -> float:
    written = prediction.output_tokens[model.name]
    if features.max_output_tokens is not None:
        written = min(written, features.max_output_tokens)
    usage = Usage(
        input_tokens=tokens,
        output_tokens=max(round(written), 1),
        cached_input_tokens=cached,
        cache_write_tokens=0 if tokens < CACHED_FROM_TOKENS else _written(model, tokens, cached),
    )
    return model.price.cost_usd(usage)
