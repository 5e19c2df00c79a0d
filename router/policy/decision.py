"""A prediction and a policy become a decision, with its reason and its evidence.

`decide` is the one line that calibration replays and the proxy serves, so that what was certified is what runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from router.policy.features import Features
from router.policy.prediction import Prediction
from router.policy.prices import Price, Usage


class Reason(StrEnum):
    """Why a model was chosen; the same word in header, trace, log and report."""

    CHEAP_IS_ENOUGH = "cheap_is_enough"
    STRONG_IS_BETTER = "strong_is_better"
    NO_EVIDENCE = "no_evidence"  # nothing is known of this type of question
    UNCERTAIN_TYPE = "uncertain_type"  # of no type for sure, or maybe of one that nothing is known of
    NOVEL = "novel"  # unlike anything the calibration saw
    NOT_CERTIFIED = "not_certified"  # no threshold was shown to keep this target
    CONTEXT_WINDOW = "context_window"  # only the chosen model can hold the request
    MODALITY = "modality"  # only the chosen model can read what is attached
    TOOLS = "tools"  # only the chosen model can call the tools that are offered
    FORCED = "forced"  # the client named the model
    CONTINUED = "continued"  # it goes on with what another answer of that model began
    PASSED_THROUGH = "passed_through"  # not a name that is routed
    FALLBACK = "fallback"  # the model decided on could not answer


class Interval(NamedTuple):
    """A 95 % interval around an estimate."""

    low: float
    estimate: float
    high: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one type of question: how many outcomes, and what each model is worth there."""

    kind: Literal["measured", "published", "none"]
    n: int
    quality: Mapping[str, Interval]
    quality_difference: Interval  # cheap minus strong, paired; below 0 the cheap model is worse
    output_tokens: Mapping[str, float]  # mean length of each model's answers
    source: str = ""


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


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy decides by, beside its predictor."""

    models: tuple[Model, ...]  # cheap to strong
    evidence: Mapping[str, Evidence]  # by question type
    targets: Sequence[Rule]  # ascending
    least_gap: float = 0.0  # a difference in quality that two runs of one model have as well
    least_type_probability: float = 0.0  # a request that is less surely of its type goes to the strong model
    no_evidence_limit: float = 1.0  # and one that is more probably of a type without evidence
    novelty_limit: float = 0.95  # requests more unusual than this share of the calibration go to the strong model
    version: str = ""

    @property
    def strong(self) -> Model:
        return self.models[-1]

    def evidence_of(self, question_type: str) -> Evidence:
        return self.evidence.get(question_type, NO_EVIDENCE)

    def rule(self, target: float) -> Rule | None:
        """The least strict rule that was shown to keep at least `target`; None where only the strong model does."""
        return next((r for r in self.targets if r.target >= target - 1e-9 and r.quality_per_usd is not None), None)


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
    text_tokens: int | None = None  # estimated of the text, where images are billed beside it


def decide(rules: Rules, features: Features, prediction: Prediction, target: float) -> Decision:
    """Choose the model with the best `quality - quality_per_usd * dollars`, or a cheaper one that keeps the target.

    A cheaper model keeps it by itself where its quality is `target` times that of the best, but for `least_gap`.

    The guards, in order: what a model cannot hold or read; a type without evidence; an uncertain type; a request unlike
    the calibration; a target without a certificate. Each of the last four sends the request to the strong model. A type
    of which only published results are known is cheap only where these keep the target by themselves.
    """
    costs = {model.name: expected_cost_usd(model, features, prediction) for model in rules.models}
    model, reason = _choose(rules, features, prediction, target, costs)
    cheap, strong = rules.models[0].name, rules.strong.name
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
        evidence=rules.evidence_of(prediction.question_type),
        policy_version=rules.version,
        text_tokens=features.input_tokens if features.images else None,
    )


def _choose(
    rules: Rules, features: Features, prediction: Prediction, target: float, costs: Mapping[str, float]
) -> tuple[str, Reason]:
    able, guard = _able(rules, features)
    strong = able[-1].name
    evidence = rules.evidence_of(prediction.question_type)
    if len(able) == 1 and guard is not None:
        return strong, guard
    if evidence.kind == "none":
        return strong, Reason.NO_EVIDENCE
    if _is_uncertain(rules, prediction):
        return strong, Reason.UNCERTAIN_TYPE
    if prediction.novelty > rules.novelty_limit:
        return strong, Reason.NOVEL
    rule = rules.rule(target)
    if rule is None or rule.quality_per_usd is None:
        return strong, Reason.NOT_CERTIFIED
    per_usd = rule.quality_per_usd
    worth = {m.name: prediction.quality[m.name] - per_usd * costs[m.name] for m in able}
    best = max(reversed(able), key=lambda m: worth[m.name]).name
    least = rule.target * prediction.quality[best] - rules.least_gap
    chosen = next(m.name for m in able if m.name == best or prediction.quality[m.name] >= least)
    if evidence.kind == "published" and not _keeps(evidence, chosen, strong, rule.target, rules.least_gap):
        chosen = strong
    return chosen, Reason.STRONG_IS_BETTER if chosen == strong else Reason.CHEAP_IS_ENOUGH


def _is_uncertain(rules: Rules, prediction: Prediction) -> bool:
    """Whether the evidence of the type may not be evidence of this request.

    What is measured speaks of questions that are recognised. Published results speak of no questions in particular, so
    there it is enough to be surely of some such type.
    """
    evidence, taken_for = rules.evidence, prediction.question_type
    sure = {"measured": 0.0, "published": 0.0, "none": 0.0}
    for name, probability in prediction.type_probabilities.items():  # every request comes by: no call for each type
        sure[evidence[name].kind if name in evidence else "none"] += probability
    is_measured = evidence[taken_for].kind == "measured"
    recognised = prediction.type_probabilities[taken_for] if is_measured else sure["published"]
    return recognised < rules.least_type_probability or sure["none"] > rules.no_evidence_limit


def likely_types(decision: Decision, least: float = 0.02) -> dict[str, float]:
    """What a request may be, the likeliest first: types of at least this probability."""
    ranked = sorted(decision.type_probabilities.items(), key=lambda item: -item[1])
    return {name: probability for name, probability in ranked if probability >= least}


def _keeps(evidence: Evidence, model: str, strong: str, target: float, least_gap: float) -> bool:
    """Whether a type keeps the target on `model`; what is not certified is not traded against other types."""
    return evidence.quality[model].estimate >= target * evidence.quality[strong].estimate - least_gap


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
    if (features.images and not model.images) or (features.audio_parts and not model.audio):
        return Reason.MODALITY
    if features.tool_characters and not model.tools:
        return Reason.TOOLS
    needed = input_tokens(model, features) + (features.max_output_tokens or 0)
    return Reason.CONTEXT_WINDOW if needed > model.context_tokens else None


def input_tokens(model: Model, features: Features) -> int:
    """Expected input tokens of the request on `model`; images as that model bills them."""
    return features.input_tokens + sum(_image_tokens(model, detail) for detail in features.images)


_TILES_WHEN_UNKNOWN = 4  # an image of 1024 x 1024, which is what `auto` and `high` make of most photographs


def _image_tokens(model: Model, detail: str) -> int:
    base, tile = model.image_tokens
    return base if detail == "low" else base + tile * _TILES_WHEN_UNKNOWN


def expected_cost_usd(model: Model, features: Features, prediction: Prediction) -> float:
    """Expected dollars for the request on `model`, with the answer's length as predicted."""
    written = prediction.output_tokens[model.name]
    if features.max_output_tokens is not None:
        written = min(written, features.max_output_tokens)
    tokens = input_tokens(model, features)
    return model.price.cost_usd(Usage(input_tokens=tokens, output_tokens=max(round(written), 1)))
