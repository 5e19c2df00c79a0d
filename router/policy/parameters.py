"""The request parameters that a model supports, and the changes that adapt a request to it. Pure.

Models differ in the parameters they accept: some call `max_tokens` by another name, allow one `temperature`, or refuse
function tools with reasoning on chat completions. The client cannot know which model the policy chooses, so the router
adapts the request to that model, as far as the model's rules require, and reports every change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from router.policy.naming import EFFORTS
from router.policy.roles import find_roles, replace_roles

CHAT, RESPONSES = "chat/completions", "responses"
ENDPOINTS = (CHAT, RESPONSES)
EFFORT_FIELDS = {CHAT: "reasoning_effort", RESPONSES: "reasoning"}
MESSAGE_FIELDS = {CHAT: "messages", RESPONSES: "input"}
_LONGEST_VALUE = 4096  # bytes of a value that is compared; no rule lists a longer one
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")  # names of the limit on output tokens


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """How a model supports one parameter. A rule with a name alone means that the model refuses the parameter."""

    name: str
    called: str = ""  # the name under which the model accepts it
    values: tuple[Any, ...] = ()  # the only values that the model accepts
    most: int | None = None  # the largest number that the model accepts
    without: str = ""  # an item of a list that the model refuses
    roles: Mapping[str, str] = field(
        default_factory=dict
    )  # roles of messages that the model refuses, with the replacement
    on: str = ""  # the endpoint where the rule holds; "" means all
    unless_effort: str = ""  # the reasoning effort at which the rule does not hold
    needed: bool = False  # without the parameter the answer lacks what the client requested
    source: str = ""


@dataclass(frozen=True, slots=True)
class ParameterSupport:
    """The parameters that one model supports. Without rules, it supports all."""

    rules: tuple[ParameterRule, ...] = ()
    efforts: Mapping[str, Sequence[str]] | None = None  # by endpoint, ascending; None: unknown
    default_effort: str = ""  # the effort of a request that sets none
    tools_need_no_effort: bool = False  # chat completions refuse function tools unless the effort is "none"

    def affected_fields(self) -> frozenset[str]:
        """The fields of a request that may have to be changed, except limits, which few requests exceed."""
        names = {rule.name for rule in self.rules if rule.called or rule.most is None}
        if self.efforts is not None:
            names.update(EFFORT_FIELDS.values())
        return frozenset(names | ({"tools"} if self.tools_need_no_effort else set()))

    def lowest_limit(self) -> float:
        """The smallest limit of any rule; infinite if no rule has a limit."""
        return min((rule.most for rule in self.rules if rule.most is not None), default=math.inf)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one field of a request: a new name, a new value, its removal, or new roles of its messages."""

    name: str
    new_name: str = ""  # "" keeps the name
    value: bytes | None = None  # the new value as JSON; None keeps the value
    dropped: bool = False
    roles: Mapping[str, str] = field(default_factory=dict)  # old role to new role, of its messages
    description: str = ""  # for a response header and the record


@dataclass(frozen=True, slots=True)
class Adaptation:
    """The changes that adapt a request to one model."""

    changes: tuple[Change, ...] = ()
    unavailable: tuple[str, ...] = ()  # what the client requested and the model cannot give, such as logprobs
    effort: str = ""  # the reasoning effort that the policy's name for the model sets

    @property
    def description(self) -> str:
        """The changes in words; "" if there are none."""
        return "; ".join(change.description for change in self.changes if change.description)


UNCHANGED = Adaptation()


def compute_adaptation(
    support: ParameterSupport, fields: Mapping[str, msgspec.Raw], endpoint: str, effort: str = ""
) -> Adaptation:
    """The changes that adapt a request to a model; `effort` is the one that the policy's name for the model sets.

    `fields` are the undecoded top-level fields of the body. Only chat completions and responses are adapted.
    """
    if endpoint not in ENDPOINTS:
        return UNCHANGED
    changes: list[Change] = []
    unavailable: list[str] = []
    sent = None if support.efforts is None and not effort else _effort_sent(fields, endpoint)
    wanted = _wanted_effort(support, fields, endpoint, sent, effort, unavailable)
    if wanted != sent:
        changes += _effort_change(fields, endpoint, wanted)
    effective = wanted or support.default_effort
    changed = {change.name for change in changes}
    for rule in support.rules:
        raw = None if rule.name in changed else fields.get(rule.name)
        if raw is None or (rule.on and rule.on != endpoint) or (rule.unless_effort and rule.unless_effort == effective):
            continue
        found = _role_changes(rule, bytes(raw)) if rule.roles else _changes(rule, _start(raw), fields)
        changes += found
        changed.update(change.name for change in found)
        if found and rule.needed:
            unavailable.append(rule.name)
    return Adaptation(tuple(changes), tuple(unavailable), effort) if changes or unavailable else UNCHANGED


def _effort_sent(fields: Mapping[str, msgspec.Raw], endpoint: str) -> str | None:
    raw = fields.get(EFFORT_FIELDS[endpoint])
    if raw is None:
        return None
    value = _value(_start(raw))
    if endpoint == RESPONSES:
        value = value.get("effort") if isinstance(value, dict) else None
    elif bytes(memoryview(raw)[:5]) == b"null":  # some models refuse null, which sets nothing
        return ""
    return value if isinstance(value, str) else None


def _wanted_effort(
    support: ParameterSupport,
    fields: Mapping[str, msgspec.Raw],
    endpoint: str,
    sent: str | None,
    effort: str,
    unavailable: list[str],
) -> str | None:
    """The effort to request from the model; None to set none."""
    wanted = effort or sent
    if support.efforts is None:
        return wanted
    allowed = support.efforts.get(endpoint, ())
    tools = fields.get("tools") if support.tools_need_no_effort and endpoint == CHAT else None
    if tools is not None and _has_items(tools):
        reasons = (wanted or support.default_effort) != "none"
        if "none" not in allowed or (reasons and effort):
            unavailable.append("tools with reasoning")
        if "none" in allowed:
            return "none" if reasons else wanted
    if not wanted and "none" in allowed and _needs_no_reasoning(support, fields, endpoint):
        return "none"
    if wanted is None or wanted in allowed:
        return wanted
    return _nearest(wanted, allowed)


def _needs_no_reasoning(support: ParameterSupport, fields: Mapping[str, msgspec.Raw], endpoint: str) -> bool:
    """Whether the request asks for something that the model gives at the effort "none" alone, such as logprobs."""
    if support.default_effort == "none":
        return False
    for rule in support.rules:
        raw = fields.get(rule.name) if rule.needed and rule.unless_effort == "none" else None
        if raw is None or rule.on not in ("", endpoint):
            continue
        if _changes(rule, _start(raw), fields):
            return True
    return False


def _has_items(raw: msgspec.Raw) -> bool:
    start = bytes(memoryview(raw)[:64])
    return start.startswith(b"[") and not start[1:].lstrip().startswith(b"]")


def _nearest(wanted: str, allowed: Sequence[str]) -> str | None:
    """The lowest supported effort from `wanted` upwards, else the highest supported one; None if `allowed` is empty.

    >>> _nearest("minimal", ["none", "low", "high"]), _nearest("max", ["low", "high"]), _nearest("low", [])
    ('low', 'high', None)
    """
    if wanted not in EFFORTS or not allowed:
        return None
    above = [effort for effort in allowed if EFFORTS.index(effort) >= EFFORTS.index(wanted)]
    return above[0] if above else allowed[-1]


def _effort_change(fields: Mapping[str, msgspec.Raw], endpoint: str, wanted: str | None) -> list[Change]:
    name = EFFORT_FIELDS[endpoint]
    description = f"reasoning effort {wanted}" if wanted is not None else "reasoning effort dropped"
    if endpoint == CHAT:
        if wanted is None:
            return [Change(name, dropped=True, description=description)]
        return [Change(name, value=_json(wanted), description=description)]
    object_fields = _object_fields(fields.get(name))
    if wanted is None:
        object_fields.pop("effort", None)
    else:
        object_fields["effort"] = msgspec.Raw(_json(wanted))
    return [
        Change(name, value=_json(object_fields), description=description)
        if object_fields
        else Change(name, dropped=True, description=description)
    ]


def _object_fields(raw: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    """The undecoded fields of an object, which keep their bytes; empty if the value is not an object."""
    try:
        return {} if raw is None else msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _changes(rule: ParameterRule, raw: bytes, fields: Mapping[str, msgspec.Raw]) -> list[Change]:
    """The changes that a rule requires of a request with its parameter at the value `raw`."""
    if raw == b"null":
        return []
    value = _value(raw)
    exceeds_limit = rule.most is not None and isinstance(value, int | float) and value > rule.most
    if rule.called:
        return _rename_changes(rule, raw, exceeds_limit, fields.get(rule.called))
    if rule.most is not None:
        return (
            [Change(rule.name, value=_json(rule.most), description=f"{rule.name} {rule.most}")] if exceeds_limit else []
        )
    if rule.without:
        if not isinstance(value, list) or rule.without not in value:
            return []
        rest = [item for item in msgspec.json.decode(raw, type=list[msgspec.Raw]) if _value(item) != rule.without]
        return [Change(rule.name, value=_json(rest), description=f"{rule.name} without {rule.without}")]
    if any(value == allowed and isinstance(value, bool) == isinstance(allowed, bool) for allowed in rule.values):
        return []
    return [Change(rule.name, dropped=True, description=f"{rule.name} dropped")]


def _role_changes(rule: ParameterRule, raw: bytes) -> list[Change]:
    roles = {role: rule.roles[role] for role in find_roles(raw, rule.roles)}
    description = ", ".join(f"{role} messages as {new}" for role, new in roles.items())
    return [Change(rule.name, roles=roles, description=description)] if roles else []


def _rename_changes(rule: ParameterRule, raw: bytes, exceeds_limit: bool, other: msgspec.Raw | None) -> list[Change]:
    """The changes that give a parameter its new name; `other` is the value that the request has under that name."""
    description = f"{rule.name} as {rule.called}" + (f" {rule.most}" if exceeds_limit else "")
    value = _json(rule.most) if exceeds_limit else None
    if other is None:
        return [Change(rule.name, new_name=rule.called, value=value, description=description)]
    if bytes(memoryview(other)[:5]) != b"null":
        return [Change(rule.name, dropped=True, description=f"{rule.name} dropped")]
    return [Change(rule.name, dropped=True, description=description), Change(rule.called, value=value or raw)]


def _start(raw: msgspec.Raw) -> bytes:
    return bytes(memoryview(raw)[:_LONGEST_VALUE])


def _value(raw: bytes | msgspec.Raw) -> Any:
    """A decoded value of a request; None if it is not JSON, or too long to be decoded."""
    try:
        return json.loads(bytes(raw))
    except (ValueError, RecursionError):
        return None


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def apply_changes(body: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """A copy of a decoded body with the changes applied.

    >>> apply_changes({"max_tokens": 5, "stop": "x"}, [Change("max_tokens", new_name="max_completion_tokens"),
    ...     Change("stop", dropped=True)])
    {'max_completion_tokens': 5}
    """
    changed = dict(body)
    for change in changes:
        value = changed.pop(change.name, None) if change.new_name or change.dropped else changed.get(change.name)
        if change.roles:
            changed[change.name] = replace_roles(value, change.roles)
        elif not change.dropped:
            changed[change.new_name or change.name] = value if change.value is None else json.loads(change.value)
    return changed


def with_output_limit(rules: Iterable[ParameterRule], most: int) -> list[ParameterRule]:
    """The rules, with a limit on output tokens under each of its names."""
    others = [rule for rule in rules if rule.name not in LIMITS or rule.most is None or rule.called]
    limited = [replace(rule, most=most) if rule.name in LIMITS and rule.called else rule for rule in others]
    renamed = {rule.name for rule in limited}
    return limited + [ParameterRule(name, most=most) for name in LIMITS if name not in renamed]
