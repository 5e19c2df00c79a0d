"""Reads why an upstream refused a request: an unsupported parameter, too long an input, or an unknown model.

The messages are those of OpenAI's API; `data/models.json` names public reports of them. The start of a message and its
quoted words identify it. Other messages are not interpreted.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any

import msgspec

from router.policy.naming import EFFORTS
from router.policy.parameters import CHAT, ENDPOINTS, MESSAGE_FIELDS, ParameterRule, ParameterSupport, with_output_limit
from router.policy.roles import INSTRUCTIONS, roles_after_refusal

MAX_ERROR_BYTES = 64 * 1024  # longer bodies are not errors
STATUSES = frozenset({400, 403, 404, 410, 422})
# parameters that may be removed from a request or renamed; none of them is part of the question
ADAPTABLE_PARAMETERS = frozenset(
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
_ROLE_IS = (
    "does not support ",
    "unknown variant ",
    "invalid value: ",
    "invalid role ",
    "received ",
)  # words before a role
_TEMPLATES = {  # messages of models' chat templates, with the role that they refuse
    "Unexpected message role": "developer",  # names no role; templates know all other roles
    "System role not supported": "system",
}
_FILTERED = frozenset({"content_filter", "content_policy_violation", "invalid_prompt", "cyber_policy"})


class RefusalKind(StrEnum):
    """What a model refuses."""

    PARAMETER = "parameter"
    TOOLS = "tools"  # function tools, unless the reasoning effort is none
    EFFORT = "reasoning_effort"  # a reasoning effort
    ROLE = "role"  # the role of a message
    CONTEXT = "context_length_exceeded"
    CONTENT = "content_filter"
    MODEL_NOT_FOUND = "model_not_found"


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A refusal, as far as it is understood."""

    kind: RefusalKind
    rule: ParameterRule | None = None  # how the model supports the parameter
    efforts: tuple[str, ...] = ()  # the supported reasoning efforts
    role: str = ""  # the refused role


def read_refusal(status: int, body: bytes) -> Refusal | None:
    """What an upstream's error response refuses; None if it is not a refusal, or not understood.

    >>> error = b'{"error":{"message":"Unsupported parameter: \\'max_tokens\\' is not supported with this model. Use '
    >>> error += b'\\'max_completion_tokens\\' instead.","param":"max_tokens","code":"unsupported_parameter"}}'
    >>> read_refusal(400, error).rule.called
    'max_completion_tokens'
    """
    if status not in STATUSES or len(body) > MAX_ERROR_BYTES:
        return None
    error = _error_object(body)
    message, code, param = (_text(error.get(name)) for name in ("message", "code", "param"))
    if status in (404, 410):
        return Refusal(RefusalKind.MODEL_NOT_FOUND) if status == 410 or code == "model_not_found" else None
    role = _refused_role(message[:500], param)
    if role or status == 422:  # some upstreams refuse a role with 422; other such errors do not depend on the model
        return Refusal(RefusalKind.ROLE, role=role) if role else None
    if code == "context_length_exceeded" or message.startswith(_TOO_LONG):
        return Refusal(RefusalKind.CONTEXT)
    if code in _FILTERED:
        return Refusal(RefusalKind.CONTENT)
    if message.startswith("Function tools with reasoning_effort"):
        return Refusal(RefusalKind.TOOLS)
    if message.startswith("You are not allowed to request logprobs"):
        return Refusal(RefusalKind.PARAMETER, ParameterRule("logprobs", values=(False,), needed=True))
    if param == "include" and message.startswith("logprobs are not supported"):
        return Refusal(RefusalKind.PARAMETER, ParameterRule("include", without=INCLUDED_LOGPROBS, needed=True))
    rule = _parse_rule(message, code, param)
    if rule is None:
        return None
    if rule.name in ("reasoning_effort", "reasoning.effort"):
        return Refusal(RefusalKind.EFFORT, efforts=_efforts_in(message))
    return Refusal(RefusalKind.PARAMETER, rule)


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(decoded, dict):
        return {}
    error = decoded if decoded.get("object") == "error" else decoded.get("error")  # older versions of vLLM nest nothing
    return error if isinstance(error, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _parse_rule(message: str, code: str, param: str) -> ParameterRule | None:
    start, quoted = message[:40], message[:500].split("'")
    if start.startswith("Unrecognized request argument supplied: "):
        name = message[40:120].strip(" .")
    else:
        name = param or (quoted[1] if len(quoted) > 1 else "")
    if (
        name not in ADAPTABLE_PARAMETERS or "has moved to" in message[:500]
    ):  # the parameter belongs to another endpoint for all models
        return None
    if " is too large: " in message[:60] and (most := _number_after(message, "at most ")) is not None:
        return ParameterRule(name, most=most)
    if code not in _UNSUPPORTED and not start.startswith(_BEGINNINGS):
        return None
    _, _, use = message[:500].partition("Use '")
    new_name, closed, _ = use.partition("' instead")
    if closed and new_name in ADAPTABLE_PARAMETERS:
        return ParameterRule(name, called=new_name)
    return ParameterRule(name, needed=name in _NEEDED)


def _refused_role(message: str, param: str) -> str:
    """The role of instructions that an error message refuses; "" if none.

    >>> _refused_role("messages[0].role: unknown variant `developer`, expected one of `system`, `user`", "")
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
    """The known reasoning efforts that an error message lists as supported, ascending.

    >>> _efforts_in("Unsupported value: 'minimal' is not supported. Supported values are: 'none', 'low', and 'high'.")
    ('none', 'low', 'high')
    """
    listed = message[:500].partition("Supported values are: ")[2]
    supported = listed.split("'")[1::2]
    return tuple(effort for effort in EFFORTS if effort in supported)


def support_after_refusal(known: ParameterSupport, refusal: Refusal, endpoint: str) -> ParameterSupport:
    """A model's parameter support after a refusal on an endpoint; equal to `known` if the refusal is not new."""
    everything = dict.fromkeys(ENDPOINTS, EFFORTS)
    if refusal.kind is RefusalKind.EFFORT:
        return replace(known, efforts={**(known.efforts or everything), endpoint: refusal.efforts})
    if refusal.kind is RefusalKind.TOOLS and endpoint == CHAT:
        return replace(
            known,
            efforts=known.efforts or everything,
            default_effort=known.default_effort or "medium",
            tools_need_no_effort=True,
        )
    if refusal.kind is RefusalKind.ROLE and endpoint in MESSAGE_FIELDS:
        return _refuse_role(known, MESSAGE_FIELDS[endpoint], refusal.role)
    if refusal.rule is None:
        return known
    if refusal.rule.most is not None:
        return replace(known, rules=tuple(with_output_limit(known.rules, refusal.rule.most)))
    rule = replace(refusal.rule, on=endpoint)
    others = known.rules
    if rule.called:  # a known limit holds under the new name
        limits = [other for other in others if other.name == rule.name and other.most is not None]
        others = tuple(other for other in others if other not in limits)
        rule = replace(rule, most=limits[0].most if limits else None)
    return known if rule in known.rules else replace(known, rules=(*others, rule))


def _refuse_role(known: ParameterSupport, name: str, role: str) -> ParameterSupport:
    before = next((rule for rule in known.rules if rule.name == name and rule.roles), None)
    roles = roles_after_refusal({} if before is None else before.roles, role)
    others = tuple(rule for rule in known.rules if rule is not before)
    return replace(known, rules=(*others, ParameterRule(name, roles=roles)))
