"""The roles of messages, and the roles that replace those which a model refuses. Pure.

OpenAI renamed `system` to `developer`. Many upstreams know the older name only, and some models accept no instructions
apart from user messages. Nothing but the role of a message changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

INSTRUCTIONS = ("developer", "system")  # the roles that may be replaced
MOST_MESSAGES = 10_000  # of a request whose roles may be replaced


class _Message(msgspec.Struct, gc=False):
    role: Any = None


_messages = msgspec.json.Decoder(list[_Message])


def find_roles(messages: bytes, roles: Iterable[str]) -> tuple[str, ...]:
    """The subset of `roles` that occurs in a JSON list of messages; empty if it is not a list, or too long.

    >>> find_roles(b'[{"role":"developer","content":"Be brief."},{"role":"user"}]', ["developer", "system"])
    ('developer',)
    """
    if b"\\u" not in messages:  # JSON may write a role with escapes
        roles = [role for role in roles if role.encode() in messages]
    if not roles or not messages.startswith(b"["):
        return ()
    try:
        listed = _messages.decode(messages)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    if len(listed) > MOST_MESSAGES:
        return ()
    found = {message.role for message in listed if isinstance(message.role, str)}
    return tuple(role for role in roles if role in found)


def replace_roles(messages: Any, roles: Mapping[str, str]) -> Any:
    """Copies of decoded messages with their roles replaced.

    >>> replace_roles([{"role": "developer", "content": "Be brief."}], {"developer": "system"})
    [{'role': 'system', 'content': 'Be brief.'}]
    """
    replaced = []
    for message in messages:
        role = message.get("role")
        replaced.append({**message, "role": roles[role]} if isinstance(role, str) and role in roles else message)
    return replaced


def roles_after_refusal(replacements: Mapping[str, str], role: str) -> dict[str, str]:
    """The replacements for refused roles once a model has refused `role` too: `system`, else `user`.

    >>> roles_after_refusal({}, "developer"), roles_after_refusal({"developer": "system"}, "system")
    ({'developer': 'system'}, {'developer': 'user', 'system': 'user'})
    """
    refused = {*replacements, role}
    replacement = "user" if "system" in refused else "system"
    return {name: replacement for name in INSTRUCTIONS if name in refused}
