"""The roles of messages: which a model does not take, and those by which it gets their messages. Pure.

`developer` is OpenAI's name for what was `system` before. Many upstreams know the older name alone, and some models
take messages of users only. Nothing but the role of a message is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

INSTRUCTIONS = ("developer", "system")  # the roles of instructions, which may be given another one
MOST_MESSAGES = 10_000  # of a request whose roles are changed


class _Message(msgspec.Struct, gc=False):
    role: Any = None


_messages = msgspec.json.Decoder(list[_Message])


def roles_in(messages: bytes, roles: Iterable[str]) -> tuple[str, ...]:
    """Those of `roles` that some message of a list has; none where `messages` is no such list, or too long a one.

    >>> roles_in(b'[{"role":"developer","content":"Be brief."},{"role":"user"}]', ["developer", "system"])
    ('developer',)
    """
    if b"\\u" not in messages:  # a role may be written with escapes
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


def with_roles(messages: Any, roles: Mapping[str, str]) -> Any:
    """Decoded messages with other roles.

    >>> with_roles([{"role": "developer", "content": "Be brief."}], {"developer": "system"})
    [{'role': 'system', 'content': 'Be brief.'}]
    """
    made = []
    for message in messages:
        role = message.get("role")
        made.append({**message, "role": roles[role]} if isinstance(role, str) and role in roles else message)
    return made


def without_role(known: Mapping[str, str], role: str) -> dict[str, str]:
    """The roles that a model gets in the place of others, once it refused `role` as well: the next that it may take.

    >>> without_role({}, "developer"), without_role({"developer": "system"}, "system")
    ({'developer': 'system'}, {'developer': 'user', 'system': 'user'})
    """
    refused = {*known, role}
    taken = "user" if "system" in refused else "system"
    return {each: taken for each in INSTRUCTIONS if each in refused}
