"""Upper bounds for the cost of a request before it is sent.

A token is at least one byte of text, so the size of a body bounds its input tokens: about four times the router's
estimate for English prose. With a lower estimate, concurrent requests could exceed a budget together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from router.adaptation.adapter import Adapter
from router.errors import BadRequestError, UnpricedModelError
from router.planning.plan import ApiFormat, Plan, extract_features
from router.policy.features import Features
from router.policy.parameters import LIMITS
from router.policy.prices import LongContext, Price, PriceBook
from router.policy.reasons import Reason
from router.policy.rules import Model
from router.policy.usage import Usage
from router.wire import bodies
from router.wire.skeleton import Skeleton

ANSWER_TOKENS = 4096  # assumed for an answer without a length limit, if the model allows as much
CONTEXT_TOKENS = 128_000  # assumed if the context window of a model is unknown
IMAGE_TOKENS = 2  # factor on the router's estimate of an image: a large image has twice the tiles
BYTES_PER_TOKEN = 4  # for the estimate that is checked against tokens per minute
MOST_CHOICES = 128  # maximum choices per request; OpenAI's limit
MOST_KNOWN = 1000  # cached combinations of models and tiers
NO_LONG_CONTEXT = (2**62, 1.0, 1.0)
_ELSEWHERE = (
    "previous_response_id",
    "conversation",
    "prompt",
)  # fields of a response request whose content is stored at the upstream
_NAMED = (Reason.PASSED_THROUGH, Reason.FORCED)  # reasons for which no other model may answer
_MANY = ("n", "best_of")


class Most(NamedTuple):
    """The amounts to hold while a request is in progress."""

    usd: float
    tokens: int  # expected input tokens plus the client's limit for the answer
    largest_tokens: int  # expected input tokens plus the longest possible answer


class _Rates(NamedTuple):
    """The highest price and size for each kind of token over the models that may answer."""

    usd_per_input_token: float
    usd_per_output_token: float
    context_tokens: int  # largest context window
    answer_tokens: int  # longest answer if the client sets no limit
    longest_tokens: int  # longest possible answer
    image_tokens: tuple[int, int]
    long_above: int  # input tokens above which the whole request costs more
    long_input_factor: float
    long_output_factor: float


class Bound:
    """Computes cost bounds, for one worker."""

    def __init__(self, prices: PriceBook, adapter: Adapter) -> None:
        self._prices = prices
        self._adapter = adapter
        self._known: dict[tuple[object, ...], _Rates] = {}
        self._models: Sequence[Model] = ()

    def most(
        self,
        plan: Plan,
        api_format: ApiFormat,
        body: Skeleton,
        models: Sequence[Model],
        now_unix_ns: int,
        *,
        priced: bool,
    ) -> Most:
        """The most that a request can cost; `models` are the models of the policy.

        Raises:
            UnpricedModelError: `priced` is true and a model that may answer has no price.
        """
        fields, features = plan.request.fields, plan.features
        if features is None:
            features = _features(api_format, fields)
        tier = fields.get("service_tier")
        named = "" if tier is None else _text(tier)
        rates = self._rates((*plan.models,), named, models, now_unix_ns, plan.reason not in _NAMED, priced)
        read = len(body.text)
        expected = read // BYTES_PER_TOKEN
        # hot path: avoids a function call for rare fields
        attached = features is None or features.images or features.audio_parts or features.file_parts or body.removed
        if attached or api_format.path == b"/responses":
            left_out = len(body.removed)
            read, expected = _read(features, fields, api_format, rates, read, expected, left_out)
        if read > rates.context_tokens:
            read = rates.context_tokens
        limit = _output_limit(fields) if features is None else features.max_output_tokens
        written = rates.answer_tokens if limit is None else limit
        if written > rates.longest_tokens:
            written = rates.longest_tokens
        choices = 1
        if "n" in fields or "best_of" in fields or api_format.path == b"/completions":
            choices = _choices(fields, api_format)
        reading, writing = read * rates.usd_per_input_token, written * choices * rates.usd_per_output_token
        if read > rates.long_above:
            reading, writing = reading * rates.long_input_factor, writing * rates.long_output_factor
        tokens = expected + (0 if limit is None else written * choices)
        if plan.verify:  # a second model may answer
            return Most(2 * (reading + writing), 2 * tokens, 2 * (expected + written * choices))
        return Most(reading + writing, tokens, expected + written * choices)

    def most_of_embedding(self, model: str, size: int, now_unix_ns: int, *, priced: bool) -> Most:
        """The most that an embedding of `size` bytes can cost.

        Raises:
            UnpricedModelError: as `most`.
        """
        rates = self._rates((model,), "", (), now_unix_ns, False, priced)
        return Most(size * rates.usd_per_input_token, size // BYTES_PER_TOKEN, size // BYTES_PER_TOKEN)

    def _rates(
        self, names: tuple[str, ...], tier: str, models: Sequence[Model], now_unix_ns: int, routed: bool, priced: bool
    ) -> _Rates:
        if models is not self._models and models:
            self._models = models
            self._known = {}
        key = (names, tier, now_unix_ns // 86_400_000_000_000, routed, priced)  # prices change by day
        rates = self._known.get(key)
        if rates is None:
            if len(self._known) >= MOST_KNOWN:
                self._known = {}
            rates = self._known[key] = self._dearest(names, tier, now_unix_ns, routed, priced)
        return rates

    def _dearest(self, names: tuple[str, ...], tier: str, now_unix_ns: int, routed: bool, priced: bool) -> _Rates:
        """The highest rates over these models and, if `routed`, the successors of retired ones."""
        by_name = {model.name: model for model in self._models}
        all_names = dict.fromkeys(names)
        for name in names if routed else ():
            following = self._adapter.successor(by_name.get(name), name)
            while following and following not in all_names:
                all_names[following] = None
                following = self._adapter.successor(by_name.get(following), following)
        read = written = 0.0
        context = answer = longest = 0
        images, long = (0, 0), NO_LONG_CONTEXT
        for name in all_names:
            prices = self._prices_of(name, tier, now_unix_ns)
            if not prices and priced:
                raise UnpricedModelError(
                    f"The model `{name[:100]}` has no price, so a key with a budget cannot use it.",
                    "model",
                )
            for price in prices:
                reading, writing = dearest_tokens(price)
                read, written = max(read, reading), max(written, writing)
                long = _longer(long, price.long_context)
            known = self._adapter.catalogue.facts(name).traits
            takes = [rule.most for rule in self._adapter.support_of(name).rules if rule.name in LIMITS and rule.most]
            most = int(min(takes, default=CONTEXT_TOKENS))
            context = max(context, int(known.get("context_tokens", CONTEXT_TOKENS)))
            answer, longest = max(answer, min(most, ANSWER_TOKENS)), max(longest, most)
            image = tuple(known.get("image_tokens", (85, 170)))
            images = (max(images[0], image[0]), max(images[1], image[1]))
        return _Rates(read, written, context, answer, longest, images, *long)

    def _prices_of(self, name: str, tier: str, now_unix_ns: int) -> list[Price]:
        """The model's prices on the standard and the requested tier; on all tiers if the requested one has no price."""
        found = [self._prices.price(name, known_tier, now_unix_ns) for known_tier in dict.fromkeys(("", tier))]
        if found[-1] is None:
            found += [self._prices.price(name, other, now_unix_ns) for other in ("flex", "batch", "priority")]
        return [price for price in found if price is not None]


def dearest_tokens(price: Price) -> tuple[float, float]:
    """The highest price in US dollars of an input token and of an output token of any kind, in a short request.

    >>> dearest_tokens(Price(2e6, 8e6, usd_per_million_cache_write_tokens=3e6))
    (3.0, 8.0)
    """
    price = replace(price, long_context=None)
    one_of_each = (
        Usage(input_tokens=1),
        Usage(input_tokens=1, cache_write_tokens=1),
        Usage(input_tokens=1, audio_input_tokens=1),
        Usage(input_tokens=1, image_input_tokens=1),
    )
    written = (
        Usage(output_tokens=1),
        Usage(output_tokens=1, reasoning_tokens=1),
        Usage(output_tokens=1, audio_output_tokens=1),
    )
    return max(map(price.cost_usd, one_of_each)), max(map(price.cost_usd, written))


def _longer(long: tuple[int, float, float], other: LongContext | None) -> tuple[int, float, float]:
    """Combine long-context rules: the lower threshold and the higher factors."""
    if other is None:
        return long
    return (
        min(long[0], other.above_input_tokens),
        max(long[1], other.input_factor),
        max(long[2], other.output_factor),
    )


def _features(api_format: ApiFormat, fields: bodies.Fields) -> Features | None:
    """The features of a request that is not routed; None if it is invalid, which the upstream reports."""
    try:
        return extract_features(api_format, fields)
    except BadRequestError:
        return None


def _read(
    features: Features | None,
    fields: bodies.Fields,
    api_format: ApiFormat,
    rates: _Rates,
    read: int,
    expected: int,
    left_out: int,
) -> tuple[int, int]:
    """Maximum and expected input tokens of a request with attachments or content stored at the upstream.

    Parts that were removed from the text count as images if they are; otherwise the maximum is the context window.
    """
    elsewhere = api_format.path == b"/responses" and any(name in fields for name in _ELSEWHERE)
    if features is None or features.audio_parts or features.file_parts or elsewhere or left_out > len(features.images):
        return rates.context_tokens, expected
    base, tile = rates.image_tokens
    images = sum(base if detail == "low" else base + 4 * tile for detail in features.images)
    return read + IMAGE_TOKENS * images, expected + images


def _output_limit(fields: bodies.Fields) -> int | None:
    """The largest output token limit that the client sets; None without one."""
    found = [raw for name in LIMITS if (raw := fields.get(name)) is not None]
    return max((number for raw in found if (number := _number(raw)) is not None), default=None)


def _choices(fields: Mapping[str, msgspec.Raw], api_format: ApiFormat) -> int:
    """The maximum number of answers that the request generates."""
    choices = 1
    for name in _MANY:
        raw = fields.get(name)
        if raw is not None:
            choices = max(choices, min(_number(raw) or 1, MOST_CHOICES))
    prompt = fields.get("prompt")
    if api_format.path == b"/completions" and prompt is not None and bytes(memoryview(prompt)[:1]) == b"[":
        prompts = msgspec.json.decode(prompt, type=list[msgspec.Raw])
        if prompts and bytes(memoryview(prompts[0])[:1]) in (b'"', b"["):  # a list of numbers is one prompt
            choices *= len(prompts)
    return choices


def _number(raw: msgspec.Raw) -> int | None:
    text = bytes(memoryview(raw)[:12])
    return int(text) if text.isdigit() else None


def _text(raw: msgspec.Raw) -> str:
    """Decode a JSON string without escapes, such as a service tier."""
    return bytes(memoryview(raw)[1:-1]).decode("latin-1")[:100]
