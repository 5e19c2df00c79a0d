"""Which upstream a request belongs to: by its conversation, and by the stored objects that it refers to."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from router.wire import bodies
from router.wire.text import DECODE_ERRORS

_MESSAGES = ("messages", "input")  # fields of chat completions and of responses
_list = msgspec.json.Decoder(list[msgspec.Raw])


class _Message(msgspec.Struct):
    role: str = ""


_message = msgspec.json.Decoder(_Message)


class _Conversation(msgspec.Struct):
    id: str = ""


_conversation = msgspec.json.Decoder(_Conversation | str | None)


def affinity_key(fields: bodies.Fields, session: str) -> bytes:
    """A key that is equal for all requests of a conversation, so that the same upstream has its prompt in the cache.

    It is `prompt_cache_key`, else the session, else the hash of everything up to the first user message.
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
        for raw in _first_messages(fields.get(name)):
            digest.update(memoryview(raw))
    return digest.digest()


def _first_messages(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    if raw is None:
        return []
    try:
        messages = _list.decode(raw)
    except DECODE_ERRORS:
        return [raw]  # the input of a response may be a string
    for at, message in enumerate(messages):
        try:
            if _message.decode(message).role == "user":
                return messages[: at + 1]
        except DECODE_ERRORS:
            continue
    return messages


def conversation_id(fields: bodies.Fields) -> str:
    """The id of the conversation (Responses API) that a request continues; "" if none.

    >>> conversation_id({"conversation": msgspec.Raw(b'{"id": "conv_1"}')}), conversation_id({})
    ('conv_1', '')
    """
    try:
        conversation = _conversation.decode(fields.get("conversation", b"null"))
    except DECODE_ERRORS:
        return ""
    return conversation.id if isinstance(conversation, _Conversation) else conversation or ""


def names_files(body: bytes) -> bool:
    """Whether a request refers to files or vector stores, which belong to the account of one upstream."""
    return b'"file_id"' in body or b'"file_ids"' in body or b'"vector_store_ids"' in body


def names_state(fields: bodies.Fields, body: bytes) -> bool:
    """Whether a request refers to an object that only one upstream stores."""
    return "previous_response_id" in fields or bool(conversation_id(fields)) or names_files(body)
