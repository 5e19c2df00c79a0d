"""Log probabilities of an answer's tokens: the numbers that the answer predictor reads, and the request for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from router.policy.answer_text import parse_answer, truncate_answer
from router.policy.parameters import CHAT, Change, ParameterSupport, compute_adaptation
from router.policy.refusals import INCLUDED_LOGPROBS

Token = tuple[str, float]  # text and natural logarithm of its probability
Logprobs = tuple[float, ...]  # the values of LOGPROB_NAMES

LOGPROB_NAMES = ("logprob_mean", "logprob_min", "logprob_final")
LEAST = -20.0  # upstreams report -9999 for very improbable tokens
_FIELDS = {CHAT: "logprobs", "responses": "include"}


def summarise_logprobs(answer: str, tokens: Sequence[Token]) -> Logprobs | None:
    """The mean and the minimum over all tokens, and the mean over the stated result; None without tokens.

    >>> summarise_logprobs("3 + 4 = 7\\\\nThe answer is 7", [("3 + 4 = 7\\\\nThe answer is", -0.5), (" 7", -2.5)])
    (-1.5, -2.5, -2.5)
    """
    values = [max(value, LEAST) for _, value in tokens]
    if not values or not all(map(math.isfinite, values)):
        return None
    mean = sum(values) / len(values)
    text, final = "".join(token for token, _ in tokens), parse_answer(truncate_answer(answer)).final
    first = text.rfind(final) if final else -1
    of_final, at = [], 0
    for (token, _), value in zip(tokens, values, strict=True):
        if first < at + len(token) and at < first + len(final):
            of_final.append(value)
        at += len(token)
    return mean, min(values), sum(of_final) / len(of_final) if first >= 0 and of_final else mean


def requests_logprobs(fields: Mapping[str, msgspec.Raw], endpoint: str) -> bool:
    """Whether the client requests log probabilities itself."""
    raw = bytes(fields.get(_FIELDS.get(endpoint, "logprobs"), b"null"))
    return INCLUDED_LOGPROBS.encode() in raw if endpoint == "responses" else raw not in (b"null", b"false")


def logprobs_change(
    support: ParameterSupport, fields: Mapping[str, msgspec.Raw], endpoint: str, effort: str = ""
) -> Change | None:
    """The change that requests log probabilities of a model; None if the request cannot have it.

    The model must accept it as it is: a model that gives log probabilities only without reasoning is not asked.
    """
    name = _FIELDS.get(endpoint)
    if name is None or "top_logprobs" in fields or requests_logprobs(fields, endpoint):
        return None
    try:
        included = msgspec.json.decode(fields["include"], type=list[str] | None) if "include" in fields else None
    except msgspec.DecodeError:
        return None
    value = b"true" if endpoint == CHAT else msgspec.json.encode([*(included or ()), INCLUDED_LOGPROBS])
    asking = {**fields, name: msgspec.Raw(value)}
    if compute_adaptation(support, asking, endpoint, effort) != compute_adaptation(support, fields, endpoint, effort):
        return None
    return Change(name, value=value)
