"""The tokens and dollars that a request is expected to cost on each model, and what a cheaper model saves."""

from __future__ import annotations

from router.policy.conversation import CACHED_FROM_TOKENS
from router.policy.features import Features
from router.policy.prediction import Prediction
from router.policy.rules import Model, Rules
from router.policy.usage import Usage

CACHE_SHARE = 0.3  # the cache changes a question's saving by at most this share of it
_TILES_WHEN_UNKNOWN = 4  # an image of 1024 x 1024, the size that `auto` and `high` give most photographs


def input_tokens(model: Model, features: Features) -> int:
    """Expected input tokens of the request on `model`, with images as that model bills them."""
    return features.input_tokens + _images_tokens(model, features)


def expected_cost_usd(model: Model, features: Features, prediction: Prediction, cached: bool = False) -> float:
    """Expected dollars for a turn on `model`. `cached` says whether the model has the earlier turns in its cache."""
    turn = prediction.turn
    tokens = turn.tokens + _images_tokens(model, features)
    return _cost_usd(model, features, prediction, tokens, turn.cached_tokens if cached else 0)


def savings_usd(rules: Rules, features: Features, prediction: Prediction, cached: str | None) -> dict[str, float]:
    """Dollars by which each model is cheaper than the strong one for the question and its answer.

    `cached` is the model that has the earlier turns in its cache. Instructions, material, other tools and earlier turns
    count only by what the cache saves on them, up to `CACHE_SHARE` of the saving on question and answer: a long prompt
    makes no question easier, and so is no reason for the cheap model.

    A positive saving is at least `least_saving_usd`. Savings are discounted where less is known of what they cost in
    quality: in proportion to the type's probability below `usual_type_probability`, and linearly in the novelty above
    `familiar_until`.
    """
    tokens = prediction.question_tokens
    images = {m.name: _images_tokens(m, features) for m in rules.models}
    costs = {m.name: _cost_usd(m, features, prediction, tokens + images[m.name], 0) for m in rules.models}
    strong = rules.strong.name
    savings = {name: costs[strong] - cost for name, cost in costs.items()}
    if cached is not None and prediction.turn.is_cached:
        lost = {m.name: 0.0 if m.name == cached else _cache_value_usd(m, prediction) for m in rules.models}
        savings = {
            name: saving + min(max(lost[strong] - lost[name], -CACHE_SHARE * abs(saving)), CACHE_SHARE * abs(saving))
            for name, saving in savings.items()
        }
    probability = prediction.type_probabilities[prediction.question_type]
    discount = 1.0
    if probability < rules.usual_type_probability:
        discount = probability / rules.usual_type_probability
    if prediction.novelty > rules.familiar_until:
        discount *= (1.0 - prediction.novelty) / (1.0 - rules.familiar_until)
    least = rules.least_saving_usd
    return {name: discount * max(saving, least) if saving > 0 else saving for name, saving in savings.items()}


def _cost_usd(model: Model, features: Features, prediction: Prediction, tokens: int, cached: int) -> float:
    output_tokens = prediction.output_tokens[model.name]
    if features.max_output_tokens is not None:
        output_tokens = min(output_tokens, features.max_output_tokens)
    usage = Usage(
        input_tokens=tokens,
        output_tokens=max(round(output_tokens), 1),
        cached_input_tokens=cached,
        cache_write_tokens=0 if tokens < CACHED_FROM_TOKENS else _cache_write_tokens(model, tokens, cached),
    )
    return model.price.cost_usd(usage)


def _cache_value_usd(model: Model, prediction: Prediction) -> float:
    """Dollars that a model saves by reading the earlier turns from its cache instead of writing them there."""
    tokens, price = prediction.turn.cached_tokens, model.price
    written = Usage(input_tokens=tokens, cache_write_tokens=_cache_write_tokens(model, tokens, 0))
    read = Usage(input_tokens=tokens, cached_input_tokens=tokens)
    return price.cost_usd(written) - price.cost_usd(read)


def _cache_write_tokens(model: Model, tokens: int, cached: int) -> int:
    """Input tokens that are billed as written to the cache: the new part of a prompt long enough to be cached."""
    if model.price.usd_per_million_cache_write_tokens is None or tokens < CACHED_FROM_TOKENS:
        return 0
    return tokens - cached


def _images_tokens(model: Model, features: Features) -> int:
    return sum(_image_tokens(model, detail) for detail in features.images) if features.images else 0


def _image_tokens(model: Model, detail: str) -> int:
    base, tile = model.image_tokens
    return base if detail == "low" else base + tile * _TILES_WHEN_UNKNOWN
