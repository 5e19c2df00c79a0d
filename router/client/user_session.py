"""The user and the session of a request, from the router's headers or from fields of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from router.wire.bodies import Fields

MAX_CHARACTERS = 200
MAX_METADATA_BYTES = 16 * 1024  # OpenAI allows 16 pairs of 64 and 512 characters
_string = msgspec.json.Decoder(str)
_pairs = msgspec.json.Decoder(dict[str, str | int])

# In order of precedence. Requests of one conversation share a prompt cache key.
_USER_FIELDS = ("user", "safety_identifier")
_USER_METADATA = ("user_id", "user")
_SESSION_FIELDS = ("conversation", "prompt_cache_key")
_SESSION_METADATA = ("session_id", "session", "conversation_id", "thread_id")
_ALL_FIELDS = frozenset((*_USER_FIELDS, *_SESSION_FIELDS, "metadata"))


def read_user_session(fields: Fields, headers: Mapping[bytes, bytes]) -> tuple[str, str]:
    """User and session; each is "" if the request does not name it.

    >>> raw = {"safety_identifier": msgspec.Raw(b'"ada"'), "metadata": msgspec.Raw(b'{"session_id":"s1"}')}
    >>> read_user_session(raw, {}), read_user_session(raw, {b"x-user-id": b"bob"})
    (('ada', 's1'), ('bob', 's1'))
    """
    user, session = (headers.get(name, b"").decode("latin-1") for name in (b"x-user-id", b"x-session-id"))
    if not _ALL_FIELDS.isdisjoint(fields):
        pairs = _metadata(fields.get("metadata"))
        user = user or _first_string(fields, _USER_FIELDS) or _first_value(pairs, _USER_METADATA)
        session = session or _first_value(pairs, _SESSION_METADATA) or _first_string(fields, _SESSION_FIELDS)
    return user[:MAX_CHARACTERS], session[:MAX_CHARACTERS]


def _first_string(fields: Fields, names: tuple[str, ...]) -> str:
    for name in names:
        raw = fields.get(name)
        if raw is not None:
            try:
                return _string.decode(raw)
            except msgspec.DecodeError:
                pass  # the upstream reports the error
    return ""


def _first_value(pairs: Mapping[str, str | int], names: tuple[str, ...]) -> str:
    return next((str(pairs[name]) for name in names if name in pairs), "")


def _metadata(raw: msgspec.Raw | None) -> Mapping[str, str | int]:
    if raw is None or len(memoryview(raw)) > MAX_METADATA_BYTES:
        return {}
    try:
        return _pairs.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return {}
