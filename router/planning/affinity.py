"""What of a request tells at which upstream it belongs: the conversation it goes on with, and what it refers to."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from router.wire import bodies
from router.wire.text import DECODE_ERRORS

_MESSAGES = ("messages", "input")  # of chat completions, and of responses
_list = msgspec.json.Decoder(list[msgspec.Raw])


class _Message(msgspec.Struct):
    role: str = ""


_message = msgspec.json.Decoder(_Message)


class _Conversation(msgspec.Struct):
    id: str = ""


_conversation = msgspec.json.Decoder(_Conversation | str | None)


def affinity_key(fields: bodies.Fields, session: str) -> bytes:
    """What is the same in all requests of a conversation, so that one upstream has its prompt in the cache.

    That is `prompt_cache_key`, else the session, else all up to the first message of the user.
    """
    cache_key = fields.get("prompt_cache_key")
    if cache_key is not None:
        return bytes(cache_key)
    if session:
        return session.encode(errors="replace")
    digest = blake2b(digest_size=16)
    for name in ("instructions", "prompt"):
        digest.update(memoryview(fields.get(name, msgspec.Raw())))
    for name in _MESSAGES:
        for raw in _beginning(fields.get(name)):
            digest.update(memoryview(raw))
    return digest.digest()


def _beginning(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    if raw is None:
        return []
    try:
        messages = _list.decode(raw)
    except DECODE_ERRORS:
        return [raw]  # the input of a response may be a text
    for at, each in enumerate(messages):
        try:
            if _message.decode(each).role == "user":
                return messages[: at + 1]
        except DECODE_ERRORS:
            continue
    return messages


def conversation_id(fields: bodies.Fields) -> str:
    """The conversation of the Responses API that a request names, as text or as an object; "" for none.

    >>> conversation_id({"conversation": msgspec.Raw(b'{"id": "conv_1"}')}), conversation_id({})
    ('conv_1', '')
    """
    try:
        found = _conversation.decode(fields.get("conversation", b"null"))
    except DECODE_ERRORS:
        return ""
    return found.id if isinstance(found, _Conversation) else found or ""


def names_files(body: bytes) -> bool:
    """Whether a request refers to files or vector stores of an upstream's account."""
    return b'"file_id"' in body or b'"file_ids"' in body or b'"vector_store_ids"' in body


def names_state(fields: bodies.Fields, body: bytes) -> bool:
    """Whether a request refers to anything that only one upstream may hold."""
    return "previous_response_id" in fields or bool(conversation_id(fields)) or names_files(body)
