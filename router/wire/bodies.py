"""Bytes <-> values of JSON bodies. What is not decided on is never decoded, and never written anew: an edit replaces a
span of the original bytes, so that key order, blanks, numbers and escapes arrive as they were sent. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from router.errors import BadRequestError
from router.wire.text import UNREADABLE, mended, read

Fields = Mapping[str, msgspec.Raw]
Pieces = tuple[bytes | memoryview, ...]

MAX_FIELDS = 1000  # at the top of a request's body
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)
_KEY = re.compile(rb'\s*[,{]\s*"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*:\s*', re.DOTALL)
_END = re.compile(rb"\s*}")


class Edit(NamedTuple):
    """Put `text` in the place of the bytes from `start` to `stop`."""

    start: int
    stop: int
    text: bytes


def read_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level fields of a JSON object, undecoded.

    Raises:
        BadRequestError: the body is not a JSON object.
    """
    try:
        fields = _fields.decode(body)
    except msgspec.ValidationError:
        raise BadRequestError("The request body must be a JSON object.") from None
    except RecursionError:
        raise BadRequestError("The JSON body of the request is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise BadRequestError(f"We could not parse the JSON body of your request: {error}.") from None
    if len(fields) > MAX_FIELDS:
        raise BadRequestError(f"The JSON body of the request has more than {MAX_FIELDS} fields.")
    return fields


def spans(body: bytes, fields: Fields) -> dict[str, tuple[int, int]]:
    """Where each field's value lies in the body that `fields` were read from.

    The fields are in the order of the body and their lengths are known, so that only keys are looked at.

    Raises:
        BadRequestError: a key occurs twice, so that we and the upstream might read different values.
    """
    found: dict[str, tuple[int, int]] = {}
    at = body.index(b"{")
    key_at = _KEY.match
    for name, raw in fields.items():
        key = key_at(body, at)
        if key is None:
            raise _twice(name)
        start, value = key.end(), memoryview(raw)
        at = start + len(value)
        if not body.startswith(bytes(value[:64]), start):
            raise _twice(name)
        found[name] = (start, at)
    if fields and _END.match(body, at) is None:
        again = _KEY.match(body, at)
        raise _twice(_string.decode(again[0].strip(b" \t\r\n,{:")) if again else "")
    return found


def _twice(name: str) -> BadRequestError:
    return BadRequestError(f"Duplicate key {name!r} in the JSON body of the request.", name)


def edited(pieces: Iterable[bytes], edits: Iterable[Edit]) -> Pieces:
    """A body with its edits made. None of its pieces is copied."""
    out: list[bytes | memoryview] = []
    waiting = sorted(edits, reverse=True)
    skip_to = begin = 0
    for piece in pieces:
        view, end, at = memoryview(piece), begin + len(piece), max(skip_to, begin)
        while waiting and waiting[-1].start <= end:
            start, stop, text = waiting.pop()
            out += (view[at - begin : start - begin], text)
            skip_to = at = stop
        if at < end:
            out.append(view[at - begin :])
        begin = end
    return tuple(out)


def text(fields: Fields, name: str) -> str | None:
    """A field that is a string.

    Raises:
        BadRequestError: it is something else.
    """
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _string.decode(raw)
    except msgspec.DecodeError:
        message = f"Invalid type for '{name}': expected a string, but got {_kind(raw)} instead."
        raise BadRequestError(message, name, "invalid_type") from None


def is_true(fields: Fields, name: str) -> bool:
    """Whether a field is `true`."""
    raw = fields.get(name)
    return raw is not None and bytes(memoryview(raw)[:5]) == b"true"


def _kind(raw: msgspec.Raw) -> str:
    kinds = {b"{": "an object", b"[": "an array", b"t": "a boolean", b"f": "a boolean", b"n": "null"}
    return kinds.get(bytes(memoryview(raw)[:1]), "a number")


def encoded(value: Any) -> bytes:
    """A value as JSON."""
    return msgspec.json.encode(value)


def naming(where: Mapping[str, tuple[int, int]], body: bytes, model: str) -> Edit:
    """The edit that makes a body ask for `model`.

    >>> naming({"model": (9, 15)}, b'{"model":"auto"}', "gpt-4o"), naming({}, b"{}", "gpt-4o")
    (Edit(start=9, stop=15, text=b'"gpt-4o"'), Edit(start=1, stop=1, text=b'"model":"gpt-4o"'))
    """
    span = where.get("model")
    if span is not None:
        return Edit(*span, encoded(model))
    after = body.index(b"{") + 1
    return Edit(after, after, b'"model":' + encoded(model) + (b"," if where else b""))


def asking_for_usage(fields: Fields, where: Mapping[str, tuple[int, int]]) -> Edit | None:
    """The edit that makes a stream end with its usage; None where the client asks for that itself."""
    span = where.get("stream_options")
    if span is None:
        at = where["model"][1]
        return Edit(at, at, b',"stream_options":{"include_usage":true}')
    raw = bytes(fields["stream_options"])
    if raw == b"null":
        return Edit(*span, b'{"include_usage":true}')
    try:
        options = _fields.decode(raw)
    except msgspec.DecodeError:
        return None  # the upstream says what is wrong with it
    asked = options.get("include_usage")
    if asked is None:
        after = span[0] + raw.index(b"{") + 1
        return Edit(after, after, b'"include_usage":true' + (b"," if options else b""))
    start, stop = spans(raw, options)["include_usage"]
    return None if bytes(asked) == b"true" else Edit(span[0] + start, span[0] + stop, b"true")


class AnswerSeen(msgspec.Struct, gc=False):
    """What is read of an answer that is not streamed; the rest passes unread."""

    model: str | None = None
    usage: dict[str, Any] | None = None
    id: str | None = None
    service_tier: str | None = None


_answer = msgspec.json.Decoder(AnswerSeen)


def read_answer(body: bytes) -> AnswerSeen:
    """Model and usage of an answer; empty where it is not what we know."""
    try:
        return read(_answer, body)
    except UNREADABLE:
        return AnswerSeen()


def renamed(body: bytes, name: bytes, within: str | None = None) -> bytes:
    """An answer with `name`, as JSON, in the place of its model's; `within` is the field that holds it, if not the top.

    >>> renamed(b'{"model":"a"}', b'"b"'), renamed(b'{"response":{"model":"a"}}', b'"b"', "response")
    (b'{"model":"b"}', b'{"response":{"model":"b"}}')
    """
    try:
        text, at = mended(body), 0  # whose places are the same
        fields = _fields.decode(text)
        if within is not None:
            at = spans(text, fields)[within][0]
            text = bytes(fields[within])
            fields = _fields.decode(text)
        start, stop = spans(text, fields)["model"]
    except (*UNREADABLE, BadRequestError, KeyError):
        return body
    return body[: at + start] + name + body[at + stop :]
