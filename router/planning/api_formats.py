"""The endpoints of OpenAI's API that are routed. The requests of each are read as chat completions."""

from __future__ import annotations

import msgspec

from router.errors import BadRequestError
from router.planning.plan import ApiFormat
from router.policy.features import Features, RequestError, read_chat
from router.wire.bodies import Fields
from router.wire.chat_stream import ChatStream
from router.wire.responses_stream import ResponsesStream
from router.wire.text import NULL

_items = msgspec.json.Decoder(list[msgspec.Raw])
_texts = msgspec.json.Decoder(list[str])


def read_completion(fields: Fields) -> Features:
    """Read the body of a legacy completion: its prompt becomes a user message. Prompts of token ids are ignored.

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
    """Read the body of a response: `input` is a text or a list of items such as messages.

    Raises:
        RequestError: `input` is invalid, or missing without a stored prompt, conversation or previous response.
    """
    content, instructions = fields.get("input"), fields.get("instructions")
    messages: list[bytes] = []
    if instructions is not None and bytes(memoryview(instructions)[:1]) == b'"':
        messages.append(_message(b"system", bytes(instructions)))
    if content is None:
        if "prompt" not in fields and "conversation" not in fields and "previous_response_id" not in fields:
            raise RequestError("Missing required parameter: 'input'.", "input")
        messages.append(_message(b"user", b'""'))
    elif bytes(memoryview(content)[:1]) == b'"':
        messages.append(_message(b"user", bytes(content)))
    else:
        try:
            messages += [bytes(item) for item in _items.decode(content)]
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


CHAT = ApiFormat(b"/chat/completions", read_chat, True, lambda strip, echo: ChatStream(strip_usage=strip, echo=echo))
COMPLETIONS = ApiFormat(
    b"/completions", read_completion, True, lambda strip, echo: ChatStream(strip_usage=strip, echo=echo)
)
RESPONSES = ApiFormat(
    b"/responses", read_response, False, lambda _, echo: ResponsesStream(echo=echo), needs_model=False
)


def detect_api_format(fields: Fields) -> ApiFormat:
    """The format of a body, by its fields.

    Raises:
        BadRequestError: the body has the fields of no format.
    """
    for field, api_format in (("messages", CHAT), ("input", RESPONSES), ("prompt", COMPLETIONS)):
        if field in fields:
            return api_format
    raise BadRequestError("Missing required parameter: 'messages'.", "messages")
