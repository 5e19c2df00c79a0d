"""What a model takes of a request's parameters, and what is changed so that it takes the request. Pure.

Models refuse parameters that others take: `max_tokens` has another name, `temperature` one value, and function tools
are refused with reasoning on chat completions. Where a policy chooses the model, the client cannot know that. So a
request is adapted to the model that answers it, no further than that model's rules say, and what was changed is told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from router.policy.naming import EFFORTS
from router.policy.roles import roles_in, with_roles

CHAT, RESPONSES = "chat/completions", "responses"
ENDPOINTS = (CHAT, RESPONSES)
EFFORT_FIELDS = {CHAT: "reasoning_effort", RESPONSES: "reasoning"}
MESSAGE_FIELDS = {CHAT: "messages", RESPONSES: "input"}
_LONGEST_VALUE = 4096  # bytes of a value that is compared; a longer one is none that a rule lists
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")  # names of an answer's longest length


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """What a model takes of one parameter. A rule that says no more than its name refuses the parameter."""

    name: str
    called: str = ""  # the name by which the model takes it
    values: tuple[Any, ...] = ()  # the only values that it takes
    most: int | None = None  # the largest number that it takes
    without: str = ""  # what it does not take among the items of a list
    roles: Mapping[str, str] = field(default_factory=dict)  # of messages: what it does not take, and what instead
    on: str = ""  # the endpoint where this holds; "" is all
    unless_effort: str = ""  # the reasoning effort at which this does not hold
    needed: bool = False  # without it the answer lacks what was asked for
    source: str = ""


@dataclass(frozen=True, slots=True)
class Takes:
    """What one model takes. Without rules, everything."""

    rules: tuple[ParameterRule, ...] = ()
    efforts: Mapping[str, Sequence[str]] | None = None  # by endpoint, from little to much; None: not known
    default_effort: str = ""  # what counts where a request names none
    tools_need_no_effort: bool = False  # function tools on chat completions are refused unless the effort is "none"

    def watched(self) -> frozenset[str]:
        """The fields of a request that may have to be changed, but for limits that are seldom reached."""
        names = {rule.name for rule in self.rules if rule.called or rule.most is None}
        if self.efforts is not None:
            names.update(EFFORT_FIELDS.values())
        return frozenset(names | ({"tools"} if self.tools_need_no_effort else set()))

    def least_limit(self) -> float:
        """The smallest number that a rule of a limit allows; infinite without such a rule."""
        return min((rule.most for rule in self.rules if rule.most is not None), default=math.inf)


@dataclass(frozen=True, slots=True)
class Change:
    """A field of a request gets another name, another value, or goes; or its messages get other roles."""

    name: str
    called: str = ""  # its new name; "" where it keeps its own
    value: bytes | None = None  # its new value as JSON; None where it keeps its own
    dropped: bool = False
    roles: Mapping[str, str] = field(default_factory=dict)  # of its messages: what each is in the place of
    told: str = ""  # in words, for a header and the record


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What is changed in a request for one model."""

    changes: tuple[Change, ...] = ()
    lost: tuple[str, ...] = ()  # what the client asked for and does not get, such as logprobs
    effort: str = ""  # the reasoning effort that the policy's name for the model asks for, and that is set

    @property
    def told(self) -> str:
        """What is changed, in words; "" where nothing is."""
        return "; ".join(change.told for change in self.changes if change.told)


UNCHANGED = Adaptation()


def adapted(takes: Takes, fields: Mapping[str, msgspec.Raw], endpoint: str, effort: str = "") -> Adaptation:
    """What is changed in a request for a model that `takes` describes; `effort` is the one that its policy asks for.

    `fields` are the top-level fields of the body, undecoded. Only chat completions and responses are adapted.
    """
    if endpoint not in ENDPOINTS:
        return UNCHANGED
    changes: list[Change] = []
    lost: list[str] = []
    sent = None if takes.efforts is None and not effort else _effort_sent(fields, endpoint)
    wanted = _wanted_effort(takes, fields, endpoint, sent, effort, lost)
    if wanted != sent:
        changes += _effort_change(fields, endpoint, wanted)
    effective = wanted or takes.default_effort
    changed = {change.name for change in changes}
    for rule in takes.rules:
        raw = None if rule.name in changed else fields.get(rule.name)
        if raw is None or (rule.on and rule.on != endpoint) or (rule.unless_effort and rule.unless_effort == effective):
            continue
        made = _role_changes(rule, bytes(raw)) if rule.roles else _changes(rule, _beginning(raw), fields)
        changes += made
        changed.update(change.name for change in made)
        if made and rule.needed:
            lost.append(rule.name)
    return Adaptation(tuple(changes), tuple(lost), effort) if changes or lost else UNCHANGED


def _effort_sent(fields: Mapping[str, msgspec.Raw], endpoint: str) -> str | None:
    raw = fields.get(EFFORT_FIELDS[endpoint])
    if raw is None:
        return None
    value = _value(_beginning(raw))
    if endpoint == RESPONSES:
        value = value.get("effort") if isinstance(value, dict) else None
    elif bytes(memoryview(raw)[:5]) == b"null":  # some models refuse it, and it asks for nothing
        return ""
    return value if isinstance(value, str) else None


def _wanted_effort(
    takes: Takes,
    fields: Mapping[str, msgspec.Raw],
    endpoint: str,
    sent: str | None,
    effort: str,
    lost: list[str],
) -> str | None:
    """The effort that the model is to be asked for; None where it is to be asked for none in particular."""
    wanted = effort or sent
    if takes.efforts is None:
        return wanted
    allowed = takes.efforts.get(endpoint, ())
    tools = fields.get("tools") if takes.tools_need_no_effort and endpoint == CHAT else None
    if tools is not None and _has_items(tools):
        reasons = (wanted or takes.default_effort) != "none"
        if "none" not in allowed or (reasons and effort):
            lost.append("tools with reasoning")
        if "none" in allowed:
            return "none" if reasons else wanted
    if not wanted and "none" in allowed and _gives_only_without_reasoning(takes, fields, endpoint):
        return "none"
    if wanted is None or wanted in allowed:
        return wanted
    return _nearest(wanted, allowed)


def _gives_only_without_reasoning(takes: Takes, fields: Mapping[str, msgspec.Raw], endpoint: str) -> bool:
    """Whether the request asks for what the model gives at the effort "none" alone, such as logprobs."""
    if takes.default_effort == "none":
        return False
    for rule in takes.rules:
        raw = fields.get(rule.name) if rule.needed and rule.unless_effort == "none" else None
        if raw is None or rule.on not in ("", endpoint):
            continue
        if _changes(rule, _beginning(raw), fields):
            return True
    return False


def _has_items(raw: msgspec.Raw) -> bool:
    beginning = bytes(memoryview(raw)[:64])
    return beginning.startswith(b"[") and not beginning[1:].lstrip().startswith(b"]")


def _nearest(wanted: str, allowed: Sequence[str]) -> str | None:
    """The least effort from `wanted` upwards that the model takes, else the most it takes.

    >>> _nearest("minimal", ["none", "low", "high"]), _nearest("max", ["low", "high"]), _nearest("low", [])
    ('low', 'high', None)
    """
    if wanted not in EFFORTS or not allowed:
        return None
    above = [effort for effort in allowed if EFFORTS.index(effort) >= EFFORTS.index(wanted)]
    return above[0] if above else allowed[-1]


def _effort_change(fields: Mapping[str, msgspec.Raw], endpoint: str, wanted: str | None) -> list[Change]:
    name = EFFORT_FIELDS[endpoint]
    told = f"reasoning effort {wanted}" if wanted is not None else "reasoning effort dropped"
    if endpoint == CHAT:
        if wanted is None:
            return [Change(name, dropped=True, told=told)]
        return [Change(name, value=_json(wanted), told=told)]
    given = _given(fields.get(name))
    if wanted is None:
        given.pop("effort", None)
    else:
        given["effort"] = msgspec.Raw(_json(wanted))
    return [Change(name, value=_json(given), told=told) if given else Change(name, dropped=True, told=told)]


def _given(raw: msgspec.Raw | None) -> dict[str, msgspec.Raw]:
    """The fields of a value, undecoded, so that they are written again as they came; none where it is no object."""
    try:
        return {} if raw is None else msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _changes(rule: ParameterRule, raw: bytes, fields: Mapping[str, msgspec.Raw]) -> list[Change]:
    """What a rule changes of a request that has its parameter, with the value `raw`."""
    if raw == b"null":
        return []
    value = _value(raw)
    too_much = rule.most is not None and isinstance(value, int | float) and value > rule.most
    if rule.called:
        return _renamed(rule, raw, too_much, fields.get(rule.called))
    if rule.most is not None:
        return [Change(rule.name, value=_json(rule.most), told=f"{rule.name} {rule.most}")] if too_much else []
    if rule.without:
        if not isinstance(value, list) or rule.without not in value:
            return []
        rest = [item for item in msgspec.json.decode(raw, type=list[msgspec.Raw]) if _value(item) != rule.without]
        return [Change(rule.name, value=_json(rest), told=f"{rule.name} without {rule.without}")]
    if any(value == taken and isinstance(value, bool) == isinstance(taken, bool) for taken in rule.values):
        return []
    return [Change(rule.name, dropped=True, told=f"{rule.name} dropped")]


def _role_changes(rule: ParameterRule, raw: bytes) -> list[Change]:
    roles = {role: rule.roles[role] for role in roles_in(raw, rule.roles)}
    told = ", ".join(f"{role} messages as {taken}" for role, taken in roles.items())
    return [Change(rule.name, roles=roles, told=told)] if roles else []


def _renamed(rule: ParameterRule, raw: bytes, too_much: bool, other: msgspec.Raw | None) -> list[Change]:
    """The changes where a parameter has another name; `other` is what the request says under that name already."""
    told = f"{rule.name} as {rule.called}" + (f" {rule.most}" if too_much else "")
    value = _json(rule.most) if too_much else None
    if other is None:
        return [Change(rule.name, called=rule.called, value=value, told=told)]
    if bytes(memoryview(other)[:5]) != b"null":
        return [Change(rule.name, dropped=True, told=f"{rule.name} dropped")]
    return [Change(rule.name, dropped=True, told=told), Change(rule.called, value=value or raw)]


def _beginning(raw: msgspec.Raw) -> bytes:
    return bytes(memoryview(raw)[:_LONGEST_VALUE])


def _value(raw: bytes | msgspec.Raw) -> Any:
    """A value of a request; None where it is none, or longer than what rules speak of."""
    try:
        return json.loads(bytes(raw))
    except (ValueError, RecursionError):
        return None


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def apply(body: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """A decoded body with its changes made.

    >>> apply({"max_tokens": 5, "stop": "x"}, [Change("max_tokens", called="max_completion_tokens"),
    ...     Change("stop", dropped=True)])
    {'max_completion_tokens': 5}
    """
    made = dict(body)
    for change in changes:
        value = made.pop(change.name, None) if change.called or change.dropped else made.get(change.name)
        if change.roles:
            made[change.name] = with_roles(value, change.roles)
        elif not change.dropped:
            made[change.called or change.name] = value if change.value is None else json.loads(change.value)
    return made


def limited(rules: Iterable[ParameterRule], most: int) -> list[ParameterRule]:
    """The rules, with the longest answer that the model may be asked for, under whatever name."""
    others = [rule for rule in rules if rule.name not in LIMITS or rule.most is None or rule.called]
    made = [replace(rule, most=most) if rule.name in LIMITS and rule.called else rule for rule in others]
    renamed = {rule.name for rule in made}
    return made + [ParameterRule(name, most=most) for name in LIMITS if name not in renamed]
