"""What a refusal says: that the model does not take a parameter, that a request is too long for it, or that it is gone.

The texts are those that OpenAI's API answers with, of which `data/models.json` names public reports. They are read by
their beginnings and by what stands between quotes; a text that is none of these says nothing.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any

import msgspec

from router.policy.naming import EFFORTS
from router.policy.parameters import CHAT, ENDPOINTS, MESSAGE_FIELDS, ParameterRule, Takes, limited
from router.policy.roles import INSTRUCTIONS, without_role

LOOKED_AT = 64 * 1024  # bytes; an error is never longer
STATUSES = frozenset({400, 403, 404, 410, 422})
# what may be taken out of a request, or get another name, so that the model takes it; never what is asked
MENDABLE = frozenset(
    (
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "top_p", "stop", "logit_bias"),
        *("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "parallel_tool_calls", "prediction"),
        *("reasoning_effort", "reasoning.effort", "verbosity", "seed", "user", "metadata", "store"),
        *("service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "truncation"),
    )
)
INCLUDED_LOGPROBS = "message.output_text.logprobs"
_NEEDED = frozenset({"logprobs", "top_logprobs"})
_TOO_LONG = ("This model's maximum context length", "Input tokens exceed", "Your input exceeds the context window")
_UNSUPPORTED = ("unsupported_parameter", "unsupported_value", "unknown_parameter")
_BEGINNINGS = ("Unsupported parameter", "Unsupported value", "Unknown parameter", "Unrecognized request argument")
_ROLE_IS = ("does not support ", "unknown variant ", "invalid value: ", "invalid role ", "received ")  # before a role
_TEMPLATES = {  # chat templates of models refuse a message in these words
    "Unexpected message role": "developer",  # they name no role; all others are known to every one of them
    "System role not supported": "system",
}
_FILTERED = frozenset({"content_filter", "content_policy_violation", "invalid_prompt", "cyber_policy"})


class Kind(StrEnum):
    """What a model refuses."""

    PARAMETER = "parameter"
    TOOLS = "tools"  # function tools, unless the reasoning effort is none
    EFFORT = "reasoning_effort"  # a reasoning effort
    ROLE = "role"  # the role of a message
    CONTEXT = "context_length_exceeded"
    CONTENT = "content_filter"
    GONE = "model_not_found"


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A refusal as far as it is understood."""

    kind: Kind
    rule: ParameterRule | None = None  # what the model takes of the parameter
    efforts: tuple[str, ...] = ()  # those that it takes
    role: str = ""  # the one that it does not take


def read_refusal(status: int, body: bytes) -> Refusal | None:
    """What the answer of an upstream refuses; None where it is no refusal, or one that nothing is known of.

    >>> error = b'{"error":{"message":"Unsupported parameter: \\'max_tokens\\' is not supported with this model. Use '
    >>> error += b'\\'max_completion_tokens\\' instead.","param":"max_tokens","code":"unsupported_parameter"}}'
    >>> read_refusal(400, error).rule.called
    'max_completion_tokens'
    """
    if status not in STATUSES or len(body) > LOOKED_AT:
        return None
    error = _error(body)
    message, code, param = (_text(error.get(name)) for name in ("message", "code", "param"))
    if status in (404, 410):
        return Refusal(Kind.GONE) if status == 410 or code == "model_not_found" else None
    role = _role(message[:500], param)
    if role or status == 422:  # with which some upstreams refuse a role; what else it says is of no model
        return Refusal(Kind.ROLE, role=role) if role else None
    if code == "context_length_exceeded" or message.startswith(_TOO_LONG):
        return Refusal(Kind.CONTEXT)
    if code in _FILTERED:
        return Refusal(Kind.CONTENT)
    if message.startswith("Function tools with reasoning_effort"):
        return Refusal(Kind.TOOLS)
    if message.startswith("You are not allowed to request logprobs"):
        return Refusal(Kind.PARAMETER, ParameterRule("logprobs", values=(False,), needed=True))
    if param == "include" and message.startswith("logprobs are not supported"):
        return Refusal(Kind.PARAMETER, ParameterRule("include", without=INCLUDED_LOGPROBS, needed=True))
    rule = _rule(message, code, param)
    if rule is None:
        return None
    if rule.name in ("reasoning_effort", "reasoning.effort"):
        return Refusal(Kind.EFFORT, efforts=_efforts_in(message))
    return Refusal(Kind.PARAMETER, rule)


def _error(body: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    error = said if said.get("object") == "error" else said.get("error")  # as vLLM said it first
    return error if isinstance(error, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _rule(message: str, code: str, param: str) -> ParameterRule | None:
    beginning, quoted = message[:40], message[:500].split("'")
    if beginning.startswith("Unrecognized request argument supplied: "):
        name = message[40:120].strip(" .")
    else:
        name = param or (quoted[1] if len(quoted) > 1 else "")
    if name not in MENDABLE or "has moved to" in message[:500]:  # it is of another endpoint, whatever the model
        return None
    if " is too large: " in message[:60] and (most := _number_after(message, "at most ")) is not None:
        return ParameterRule(name, most=most)
    if code not in _UNSUPPORTED and not beginning.startswith(_BEGINNINGS):
        return None
    _, _, use = message[:500].partition("Use '")
    instead, closed, _ = use.partition("' instead")
    if closed and instead in MENDABLE:
        return ParameterRule(name, called=instead)
    return ParameterRule(name, needed=name in _NEEDED)


def _role(message: str, param: str) -> str:
    """The role of instructions that a message refuses; "" where it refuses none.

    >>> _role("messages[0].role: unknown variant `developer`, expected one of `system`, `user`", "")
    'developer'
    """
    for words, role in _TEMPLATES.items():
        if words in message:
            return role
    if not param.endswith("role") and "role" not in message:
        return ""
    lower = message.lower()
    for role in INSTRUCTIONS:
        if f"{role} is not one of [" in lower:
            return role
        if any(f"{words}{quote}{role}{quote}" in lower for words in _ROLE_IS for quote in "'`"):
            return role
    return ""


def _number_after(text: str, words: str) -> int | None:
    digits = text[:300].partition(words)[2].split(" ", 1)[0]
    return int(digits) if digits.isdecimal() and len(digits) < 10 and int(digits) else None


def _efforts_in(message: str) -> tuple[str, ...]:
    """The values that a refusal of a reasoning effort says are taken, of those that we know, from little to much.

    >>> _efforts_in("Unsupported value: 'minimal' is not supported. Supported values are: 'none', 'low', and 'high'.")
    ('none', 'low', 'high')
    """
    listed = message[:500].partition("Supported values are: ")[2]
    taken = listed.split("'")[1::2]
    return tuple(effort for effort in EFFORTS if effort in taken)


def taught(known: Takes, refusal: Refusal, endpoint: str) -> Takes:
    """What is known of a model once it has refused a request on an endpoint; the same where that says nothing new."""
    everything = dict.fromkeys(ENDPOINTS, EFFORTS)
    if refusal.kind is Kind.EFFORT:
        return replace(known, efforts={**(known.efforts or everything), endpoint: refusal.efforts})
    if refusal.kind is Kind.TOOLS and endpoint == CHAT:
        return replace(
            known,
            efforts=known.efforts or everything,
            default_effort=known.default_effort or "medium",
            tools_need_no_effort=True,
        )
    if refusal.kind is Kind.ROLE and endpoint in MESSAGE_FIELDS:
        return _without_role(known, MESSAGE_FIELDS[endpoint], refusal.role)
    if refusal.rule is None:
        return known
    if refusal.rule.most is not None:
        return replace(known, rules=tuple(limited(known.rules, refusal.rule.most)))
    rule = replace(refusal.rule, on=endpoint)
    others = known.rules
    if rule.called:  # a limit that is known holds under the new name
        limits = [each for each in others if each.name == rule.name and each.most is not None]
        others = tuple(each for each in others if each not in limits)
        rule = replace(rule, most=limits[0].most if limits else None)
    return known if rule in known.rules else replace(known, rules=(*others, rule))


def _without_role(known: Takes, name: str, role: str) -> Takes:
    before = next((rule for rule in known.rules if rule.name == name and rule.roles), None)
    roles = without_role({} if before is None else before.roles, role)
    others = tuple(rule for rule in known.rules if rule is not before)
    return replace(known, rules=(*others, ParameterRule(name, roles=roles)))
