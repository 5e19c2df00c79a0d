"""JSON bodies: read some fields, and change others in place. No I/O.

A body is never decoded and encoded again as a whole. An edit replaces a span of the original bytes, so the order of
keys, whitespace, numbers and escapes stay as the client sent them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from router.errors import BadRequestError
from router.wire.text import DECODE_ERRORS, decode, repair_text

Fields = Mapping[str, msgspec.Raw]
Pieces = tuple[bytes | memoryview, ...]

MAX_FIELDS = 1000  # at the top level of a request body
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)
_items = msgspec.json.Decoder(list[msgspec.Raw])
_KEY = re.compile(rb'\s*[,{]\s*"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*:\s*', re.DOTALL)
_END = re.compile(rb"\s*}")
_SEPARATOR = re.compile(rb"\s*[\[,]\s*")  # before an item of a list


class Edit(NamedTuple):
    """Replace the bytes from `start` to `stop` with `text`."""

    start: int
    stop: int
    text: bytes


def read_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level fields of a JSON object, undecoded.

    Raises:
        BadRequestError: the body is not a JSON object, or has more than MAX_FIELDS fields.
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


def locate_fields(body: bytes, fields: Fields) -> dict[str, tuple[int, int]]:
    """Start and stop of each field's value in the body from which `fields` was read.

    The fields are in the order of the body and their lengths are known, so only the keys are parsed.

    Raises:
        BadRequestError: a key occurs twice, so the router and the upstream could read different values.
    """
    located: dict[str, tuple[int, int]] = {}
    at = body.index(b"{")
    key_at = _KEY.match
    for name, raw in fields.items():
        key = key_at(body, at)
        if key is None:
            raise _duplicate_key(name)
        start, value = key.end(), memoryview(raw)
        at = start + len(value)
        if not body.startswith(bytes(value[:64]), start):
            raise _duplicate_key(name)
        located[name] = (start, at)
    if fields and _END.match(body, at) is None:
        extra = _KEY.match(body, at)
        raise _duplicate_key(_string.decode(extra[0].strip(b" \t\r\n,{:")) if extra else "")
    return located


def locate_items(text: bytes) -> list[tuple[int, int]]:
    """Start and stop of each item of a JSON list.

    Raises:
        msgspec.DecodeError, RecursionError: the text is no JSON list.

    >>> locate_items(b'[ {"a":1} ,[2]]')
    [(2, 9), (11, 14)]
    """
    spans, at = [], 0
    for item in _items.decode(text):
        separator = _SEPARATOR.match(text, at)
        assert separator is not None
        start = separator.end()
        at = start + len(memoryview(item))
        spans.append((start, at))
    return spans


def _duplicate_key(name: str) -> BadRequestError:
    return BadRequestError(f"Duplicate key {name!r} in the JSON body of the request.", name)


def apply_edits(pieces: Iterable[bytes], edits: Iterable[Edit]) -> Pieces:
    """A body with `edits` applied. The pieces are not copied."""
    out: list[bytes | memoryview] = []
    pending = sorted(edits, reverse=True)
    skip_to = begin = 0
    for piece in pieces:
        view, end, at = memoryview(piece), begin + len(piece), max(skip_to, begin)
        while pending and pending[-1].start <= end:
            start, stop, text = pending.pop()
            out += (view[at - begin : start - begin], text)
            skip_to = at = stop
        if at < end:
            out.append(view[at - begin :])
        begin = end
    return tuple(out)


def read_string(fields: Fields, name: str) -> str | None:
    """A field that must be a string; None if it is missing.

    Raises:
        BadRequestError: the field is not a string.
    """
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _string.decode(raw)
    except msgspec.DecodeError:
        message = f"Invalid type for '{name}': expected a string, but got {_json_type(raw)} instead."
        raise BadRequestError(message, name, "invalid_type") from None


def is_true(fields: Fields, name: str) -> bool:
    """Whether a field is `true`."""
    raw = fields.get(name)
    return raw is not None and bytes(memoryview(raw)[:5]) == b"true"


def _json_type(raw: msgspec.Raw) -> str:
    types = {b"{": "an object", b"[": "an array", b"t": "a boolean", b"f": "a boolean", b"n": "null"}
    return types.get(bytes(memoryview(raw)[:1]), "a number")


def encode_json(value: Any) -> bytes:
    """A value as JSON."""
    return msgspec.json.encode(value)


def model_edit(spans: Mapping[str, tuple[int, int]], body: bytes, model: str) -> Edit:
    """The edit that sets the model of a body whose fields are located at `spans`.

    >>> model_edit({"model": (9, 15)}, b'{"model":"auto"}', "gpt-4o"), model_edit({}, b"{}", "gpt-4o")
    (Edit(start=9, stop=15, text=b'"gpt-4o"'), Edit(start=1, stop=1, text=b'"model":"gpt-4o"'))
    """
    span = spans.get("model")
    if span is not None:
        return Edit(*span, encode_json(model))
    after = body.index(b"{") + 1
    return Edit(after, after, b'"model":' + encode_json(model) + (b"," if spans else b""))


def usage_edit(fields: Fields, spans: Mapping[str, tuple[int, int]]) -> Edit | None:
    """The edit that sets `stream_options.include_usage`; None if the client set it, or if it cannot be set."""
    span = spans.get("stream_options")
    if span is None:
        at = spans["model"][1]
        return Edit(at, at, b',"stream_options":{"include_usage":true}')
    raw = bytes(fields["stream_options"])
    if raw == b"null":
        return Edit(*span, b'{"include_usage":true}')
    try:
        options = _fields.decode(raw)
    except msgspec.DecodeError:
        return None  # the upstream reports the error
    include_usage = options.get("include_usage")
    if include_usage is None:
        after = span[0] + raw.index(b"{") + 1
        return Edit(after, after, b'"include_usage":true' + (b"," if options else b""))
    start, stop = locate_fields(raw, options)["include_usage"]
    return None if bytes(include_usage) == b"true" else Edit(span[0] + start, span[0] + stop, b"true")


class AnswerMetadata(msgspec.Struct, gc=False):
    """The fields that are read from an answer. All others are forwarded without being decoded."""

    model: str | None = None
    usage: dict[str, Any] | None = None
    id: str | None = None
    service_tier: str | None = None


_answer = msgspec.json.Decoder(AnswerMetadata)


def read_metadata(body: bytes) -> AnswerMetadata:
    """The metadata of an answer; empty if the body has another format."""
    try:
        return decode(_answer, body)
    except DECODE_ERRORS:
        return AnswerMetadata()


def replace_model(body: bytes, name: bytes, within: str | None = None) -> bytes:
    """The answer with `name`, encoded as JSON, as its model.

    `within` is the top-level field that contains the model; None for the top level itself.

    >>> replace_model(b'{"model":"a"}', b'"b"'), replace_model(b'{"response":{"model":"a"}}', b'"b"', "response")
    (b'{"model":"b"}', b'{"response":{"model":"b"}}')
    """
    try:
        text, at = repair_text(body), 0  # the repaired text has the same length
        fields = _fields.decode(text)
        if within is not None:
            at = locate_fields(text, fields)[within][0]
            text = bytes(fields[within])
            fields = _fields.decode(text)
        start, stop = locate_fields(text, fields)["model"]
    except (*DECODE_ERRORS, BadRequestError, KeyError):
        return body
    return body[: at + start] + name + body[at + stop :]
