"""The endpoints of OpenAI's that are routed, and how the request of each is read: as the chat it amounts to."""

from __future__ import annotations

import msgspec

from router.errors import BadRequestError
from router.planning.plan import Surface
from router.policy.features import Features, RequestError, read_chat
from router.wire.bodies import Fields
from router.wire.chat_stream import ChatStream
from router.wire.responses_stream import ResponsesStream
from router.wire.text import NULL

_items = msgspec.json.Decoder(list[msgspec.Raw])
_texts = msgspec.json.Decoder(list[str])


def read_completion(fields: Fields) -> Features:
    """Read the body of a legacy completion: a prompt is what a user says. Prompts of tokens are not read.

    Raises:
        RequestError: `prompt` is missing.
    """
    prompt = fields.get("prompt")
    if prompt is None:
        raise RequestError("Missing required parameter: 'prompt'.", "prompt")
    raw = bytes(prompt)
    if raw[:1] == b"[":
        try:
            raw = msgspec.json.encode("\n\n".join(_texts.decode(raw)))
        except msgspec.DecodeError:
            raw = b'""'
    return _read(fields, [_message(b"user", raw)], "prompt", fields.get("max_tokens"))


def read_response(fields: Fields) -> Features:
    """Read the body of a response: `input` is a text or a list of items, most of which are messages.

    Raises:
        RequestError: `input` is neither, or missing where no prompt of the upstream's stands for it.
    """
    given, instructions = fields.get("input"), fields.get("instructions")
    messages: list[bytes] = []
    if instructions is not None and bytes(memoryview(instructions)[:1]) == b'"':
        messages.append(_message(b"system", bytes(instructions)))
    if given is None:
        if "prompt" not in fields and "conversation" not in fields and "previous_response_id" not in fields:
            raise RequestError("Missing required parameter: 'input'.", "input")
        messages.append(_message(b"user", b'""'))
    elif bytes(memoryview(given)[:1]) == b'"':
        messages.append(_message(b"user", bytes(given)))
    else:
        try:
            messages += [bytes(item) for item in _items.decode(given)]
        except (msgspec.DecodeError, RecursionError):
            raise RequestError("Invalid type for 'input': expected a string or an array.", "input") from None
    return _read(fields, messages, "input", fields.get("max_output_tokens"))


def _message(role: bytes, content: bytes) -> bytes:
    return b'{"role":"' + role + b'","content":' + content + b"}"


def _read(fields: Fields, messages: list[bytes], param: str, limit: msgspec.Raw | None) -> Features:
    chat = {"messages": msgspec.Raw(b"[" + b",".join(messages) + b"]"), "max_tokens": limit or NULL}
    if "tools" in fields:
        chat["tools"] = fields["tools"]
    try:
        return read_chat(chat)
    except RequestError as error:
        message = str(error).replace("'messages", f"'{param}")
        raise RequestError(message, param if error.param is None else error.param.replace("messages", param)) from error


CHAT = Surface(b"/chat/completions", read_chat, True, lambda strip, echo: ChatStream(strip_usage=strip, echo=echo))
COMPLETIONS = Surface(
    b"/completions", read_completion, True, lambda strip, echo: ChatStream(strip_usage=strip, echo=echo)
)
RESPONSES = Surface(b"/responses", read_response, False, lambda _, echo: ResponsesStream(echo=echo), needs_model=False)


def surface_of(fields: Fields) -> Surface:
    """The surface that a body is of, told by its fields.

    Raises:
        BadRequestError: it is of none.
    """
    for field, surface in (("messages", CHAT), ("input", RESPONSES), ("prompt", COMPLETIONS)):
        if field in fields:
            return surface
    raise BadRequestError("Missing required parameter: 'messages'.", "messages")
