"""Who asks, and in which conversation: as a header says, or the fields that OpenAI's API has for it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from router.wire.bodies import Fields

MAX_CHARACTERS = 200
MAX_METADATA_BYTES = 16 * 1024  # OpenAI allows 16 pairs of 64 and 512 characters
_string = msgspec.json.Decoder(str)
_pairs = msgspec.json.Decoder(dict[str, str | int])

# In the order they are asked. A key of the prompt cache is shared by what belongs together, such as a conversation.
_USER = ("user", "safety_identifier")
_USER_PAIRS = ("user_id", "user")
_SESSION = ("conversation", "prompt_cache_key")
_SESSION_PAIRS = ("session_id", "session", "conversation_id", "thread_id")
_ANY = frozenset((*_USER, *_SESSION, "metadata"))


def caller(fields: Fields, headers: Mapping[bytes, bytes]) -> tuple[str, str]:
    """User and session, each "" where nothing names it.

    >>> raw = {"safety_identifier": msgspec.Raw(b'"ada"'), "metadata": msgspec.Raw(b'{"session_id":"s1"}')}
    >>> caller(raw, {}), caller(raw, {b"x-user-id": b"bob"})
    (('ada', 's1'), ('bob', 's1'))
    """
    user, session = (headers.get(name, b"").decode("latin-1") for name in (b"x-user-id", b"x-session-id"))
    if not _ANY.isdisjoint(fields):
        pairs = _metadata(fields.get("metadata"))
        user = user or _named(fields, _USER) or _paired(pairs, _USER_PAIRS)
        session = session or _paired(pairs, _SESSION_PAIRS) or _named(fields, _SESSION)
    return user[:MAX_CHARACTERS], session[:MAX_CHARACTERS]


def _named(fields: Fields, names: tuple[str, ...]) -> str:
    for name in names:
        raw = fields.get(name)
        if raw is not None:
            try:
                return _string.decode(raw)
            except msgspec.DecodeError:
                pass  # the upstream says what is wrong with it
    return ""


def _paired(pairs: Mapping[str, str | int], names: tuple[str, ...]) -> str:
    return next((str(pairs[name]) for name in names if name in pairs), "")


def _metadata(raw: msgspec.Raw | None) -> Mapping[str, str | int]:
    if raw is None or len(memoryview(raw)) > MAX_METADATA_BYTES:
        return {}
    try:
        return _pairs.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {}
