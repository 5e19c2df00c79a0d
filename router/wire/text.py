"""JSON text from clients and upstreams. Invalid Unicode in it is repaired before it is decoded. No I/O."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # raised while JSON is decoded
NULL = msgspec.Raw(b"null")  # default of an optional field; `Raw | None` would decode only null
MAX_REPAIRED_BYTES = 128 * 1024  # repairing a text of this size takes at most 20 ms
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<alone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\[^u]"
)


def repair_text(text: bytes) -> bytes:
    r"""The text with each unpaired UTF-16 surrogate escape replaced by `\ufffd`, which has the same length.

    JSON allows unpaired surrogates, and clients that cut a text inside an emoji send them; decoders reject them.
    Only text that is decoded or recorded is repaired: the original bytes are forwarded. A text longer than
    MAX_REPAIRED_BYTES is returned unchanged.

    >>> repair_text(rb'["\ud83d\ude00 \ud83d \\ud83d"]')
    b'["\\ud83d\\ude00 \\ufffd \\\\ud83d"]'
    """
    if len(text) > MAX_REPAIRED_BYTES or not may_contain_surrogates(text):
        return text
    return _ESCAPE.sub(lambda match: rb"\ufffd" if match["alone"] else match[0], text)


def repair_utf8(text: bytes) -> bytes:
    r"""The text with invalid UTF-8 replaced by U+FFFD, and unpaired surrogates repaired.

    >>> repair_utf8(b'["\xff", "caf\xc3\xa9"]') == '["\ufffd", "café"]'.encode()
    True
    """
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            text = text.decode(errors="replace").encode()
    return repair_text(text)


def may_contain_surrogates(text: bytes) -> bool:
    """Whether the text may contain surrogate escapes, paired or not."""
    return b"\\ud" in text or b"\\uD" in text


def decode(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """Decode a text. If that fails, decode the repaired text.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: the text does not match the decoder's type.
    """
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        repaired = repair_utf8(text)
        if repaired == text:
            raise
        return decoder.decode(repaired)
