"""The names that clients ask for, and what is to be done with each: decide, obey, or pass on. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from router.errors import BadRequestError
from router.policy.decision import Decision, Evidence, Promise

TARGETS = {"auto-quality": 0.99, "auto-balanced": 0.97, "auto-cost": 0.95}
NAMES = ("auto", *TARGETS)
VERIFIED = "+verify"  # behind one of our names: the answer is verified
FORM, CONTENT = "form", "content"
VERIFICATIONS = (FORM, CONTENT)  # how answers may be verified, by content also by form; "" or "off" is not at all
_AT = re.compile(r"auto@(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants: a model by name, or the best for a target."""

    name: str
    target: float | None  # None: not routed
    forced: str | None  # by header
    verify: str = ""  # how the answer is verified; "": not at all


def asked(
    name: str,
    headers: Mapping[bytes, bytes],
    default_target: float,
    routed_models: Collection[str],
    default_verify: str = "",
) -> Asked:
    """Read the wish from the model's name and our headers.

    Raises:
        BadRequestError: a target that is none, or a way to verify that is none.
    """
    forced = headers.get(b"x-router-model")
    if forced:
        return Asked(name, None, forced.decode("latin-1"))
    verify = default_verify
    if VERIFIED in name:
        plain = without_verify(name)
        verify, name = (CONTENT, plain) if plain != name else (verify, name)
    target = _target(name, default_target, routed_models)
    if b"x-router-verify" in headers and target is not None:
        verify = verification(headers[b"x-router-verify"].decode("latin-1"))
    override = headers.get(b"x-router-target")
    if override is not None and target is not None:
        target = share(override.decode("latin-1"), "x-router-target")
    return Asked(name, target, None, verify) if verify else Asked(name, target, None)


def without_verify(name: str) -> str:
    """A name without the `+verify` behind it.

    >>> without_verify("auto@0.9+verify"), without_verify("auto")
    ('auto@0.9', 'auto')
    """
    return name.removesuffix(VERIFIED)


def verification(text: str) -> str:
    """How answers are verified, as the header `x-router-verify` says: "form", "content", or "" for "off".

    Raises:
        BadRequestError: it is none of them.
    """
    if text not in (*VERIFICATIONS, "off"):
        message = f"Invalid x-router-verify {text[:100]!r}: expected {', '.join(VERIFICATIONS)} or off."
        raise BadRequestError(message, "x-router-verify", "invalid_verify")
    return "" if text == "off" else text


def is_routing_name(name: str) -> bool:
    """Whether a name is one of ours, and not a model's.

    >>> is_routing_name("auto@0.9+verify"), is_routing_name("auto@2"), is_routing_name("gpt-4o")
    (True, False, False)
    """
    try:
        return _target(without_verify(name), 1.0, ()) is not None
    except BadRequestError:
        return False


def _target(name: str, default_target: float, routed_models: Collection[str]) -> float | None:
    if name == "auto" or name in routed_models:
        return default_target
    if name in TARGETS:
        return TARGETS[name]
    at = _AT.fullmatch(name)
    return share(at[1], "model") if at else None


def share(text: str, param: str) -> float:
    """A target: a share of the strong model's quality, or one of the routing names.

    >>> share("0.9", "model"), share("auto-cost", "x-router-target")
    (0.9, 0.95)
    """
    if text in TARGETS:
        return TARGETS[text]
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        message = f"Invalid target {text[:100]!r}: expected a share of the strong model's quality above 0 and up to 1."
        raise BadRequestError(message, param, "invalid_target")
    return share


def decision_headers(decision: Decision, *, promised: bool = True) -> list[tuple[bytes, bytes]]:
    """The answer headers that say what a decision rests on; not `promised` where a model answers that it is not on."""
    return [
        (b"x-router-type", header_value(decision.question_type)),
        (b"x-router-policy", decision.policy_version.encode()),
        (b"x-router-evidence", _evidence(decision.evidence)),
        (b"x-router-promise", _PROMISES[decision.promise if promised else None]),
    ]


_PROMISES = {Promise.CERTIFIED: b"certified", Promise.EXPECTED: b"expected", None: b"none"}
_EVIDENCE: dict[int, tuple[Evidence, bytes]] = {}


def _evidence(evidence: Evidence) -> bytes:
    """How many outcomes, and each model's quality with its interval; written once for each type of a policy."""
    known = _EVIDENCE.get(id(evidence))
    if known is not None and known[0] is evidence:
        return known[1]
    parts = [evidence.kind, f"n={evidence.n}"]
    parts += [f"{name}={q.estimate:.3f} [{q.low:.3f}, {q.high:.3f}]" for name, q in evidence.quality.items()]
    written = header_value("; ".join(parts))
    if len(_EVIDENCE) > 1000:
        _EVIDENCE.clear()
    _EVIDENCE[id(evidence)] = (evidence, written)
    return written


_CONTROLS = bytes(32 if byte < 32 or byte == 127 else byte for byte in range(256))


def header_value(text: str) -> bytes:
    """Text of whatever kind as the value of a header.

    >>> header_value("gpt\\r\\n\\x004o é")
    b'gpt   4o ?'
    """
    return text.encode("ascii", "replace").translate(_CONTROLS)
