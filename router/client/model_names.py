"""Model names in requests: routing names such as `auto`, and names of models. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from router.errors import BadRequestError
from router.policy.decision import Decision
from router.policy.rules import Evidence, Promise

TARGETS = {"auto-quality": 0.99, "auto-balanced": 0.97, "auto-cost": 0.95}
NAMES = ("auto", *TARGETS)
VERIFY_SUFFIX = "+verify"  # of a routing name: the answer is verified
FORM, CONTENT = "form", "content"
VERIFICATIONS = (FORM, CONTENT)  # how answers can be verified; "content" includes "form"
_AT = re.compile(r"auto@(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RoutingRequest:
    """What a client requests: a model by name, or the best model for a target."""

    name: str
    target: float | None  # None: the request is not routed
    forced: str | None  # the model that the header x-router-model names
    verify: str = ""  # how the answer is verified; "": not verified


def parse_model_name(
    name: str,
    headers: Mapping[bytes, bytes],
    default_target: float,
    routed_models: Collection[str],
    default_verify: str = "",
) -> RoutingRequest:
    """Parse the model name and the router's headers.

    Raises:
        BadRequestError: the target or the value of x-router-verify is invalid.
    """
    forced = headers.get(b"x-router-model")
    if forced:
        return RoutingRequest(name, None, forced.decode("latin-1"))
    verify = default_verify
    if VERIFY_SUFFIX in name:
        plain = strip_verify(name)
        verify, name = (CONTENT, plain) if plain != name else (verify, name)
    target = _target(name, default_target, routed_models)
    if b"x-router-verify" in headers and target is not None:
        verify = parse_verify(headers[b"x-router-verify"].decode("latin-1"))
    override = headers.get(b"x-router-target")
    if override is not None and target is not None:
        target = parse_target(override.decode("latin-1"), "x-router-target")
    return RoutingRequest(name, target, None, verify) if verify else RoutingRequest(name, target, None)


def strip_verify(name: str) -> str:
    """The name without the suffix `+verify`.

    >>> strip_verify("auto@0.9+verify"), strip_verify("auto")
    ('auto@0.9', 'auto')
    """
    return name.removesuffix(VERIFY_SUFFIX)


def parse_verify(text: str) -> str:
    """The value of the header `x-router-verify`: "form", "content", or "" for "off".

    Raises:
        BadRequestError: the value is another one.
    """
    if text not in (*VERIFICATIONS, "off"):
        message = f"Invalid x-router-verify {text[:100]!r}: expected {', '.join(VERIFICATIONS)} or off."
        raise BadRequestError(message, "x-router-verify", "invalid_verify")
    return "" if text == "off" else text


def is_routing_name(name: str) -> bool:
    """Whether a name is routed, and is not the name of a model.

    >>> is_routing_name("auto@0.9+verify"), is_routing_name("auto@2"), is_routing_name("gpt-4o")
    (True, False, False)
    """
    try:
        return _target(strip_verify(name), 1.0, ()) is not None
    except BadRequestError:
        return False


def _target(name: str, default_target: float, routed_models: Collection[str]) -> float | None:
    if name == "auto" or name in routed_models:
        return default_target
    if name in TARGETS:
        return TARGETS[name]
    at = _AT.fullmatch(name)
    return parse_target(at[1], "model") if at else None


def parse_target(text: str, param: str) -> float:
    """A target: a share of the strong model's quality, or one of the routing names.

    Raises:
        BadRequestError: the target is not a number between 0 and 1.

    >>> parse_target("0.9", "model"), parse_target("auto-cost", "x-router-target")
    (0.9, 0.95)
    """
    if text in TARGETS:
        return TARGETS[text]
    try:
        target = float(text)
    except ValueError:
        target = -1.0
    if not 0 < target <= 1:
        message = f"Invalid target {text[:100]!r}: expected a share of the strong model's quality above 0 and up to 1."
        raise BadRequestError(message, param, "invalid_target")
    return target


def evidence_headers(decision: Decision, *, promised: bool = True) -> list[tuple[bytes, bytes]]:
    """The response headers that describe a decision.

    `promised` is false if another model answers than the ones for which the policy was calibrated.
    """
    return [
        (b"x-router-type", header_value(decision.question_type)),
        (b"x-router-policy", decision.policy_version.encode()),
        (b"x-router-evidence", _evidence(decision.evidence)),
        (b"x-router-promise", _PROMISES[decision.promise if promised else None]),
    ]


_PROMISES = {Promise.CERTIFIED: b"certified", Promise.EXPECTED: b"expected", None: b"none"}
_EVIDENCE: dict[int, tuple[Evidence, bytes]] = {}


def _evidence(evidence: Evidence) -> bytes:
    """The number of outcomes, and each model's quality with its interval. Cached for each question type."""
    cached = _EVIDENCE.get(id(evidence))
    if cached is not None and cached[0] is evidence:
        return cached[1]
    parts = [evidence.kind, f"n={evidence.n}"]
    parts += [f"{name}={q.estimate:.3f} [{q.low:.3f}, {q.high:.3f}]" for name, q in evidence.quality.items()]
    value = header_value("; ".join(parts))
    if len(_EVIDENCE) > 1000:
        _EVIDENCE.clear()
    _EVIDENCE[id(evidence)] = (evidence, value)
    return value


_CONTROLS = bytes(32 if byte < 32 or byte == 127 else byte for byte in range(256))


def header_value(text: str) -> bytes:
    """The text as a header value: ASCII, without control characters.

    >>> header_value("gpt\\r\\n\\x004o é")
    b'gpt   4o ?'
    """
    return text.encode("ascii", "replace").translate(_CONTROLS)
