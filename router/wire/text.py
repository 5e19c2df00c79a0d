"""JSON that others wrote: what is broken in its text is mended, so that it can be read, and read again. No I/O."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what reading it may raise
NULL = msgspec.Raw(b"null")  # a field's default; also for null itself, since `Raw | None` reads nothing but null
MENDED_BYTES = 128 * 1024  # a text of nothing but escapes takes 20 ms then
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<alone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\[^u]"
)


def mended(text: bytes) -> bytes:
    r"""A text of the same length with `\ufffd` for each half of a surrogate pair that stands alone.

    JSON allows them, and clients that cut a text in the middle of an emoji send them; decoders of text do not take
    them. What is decided on and recorded is mended, what is sent is not. A text over MENDED_BYTES stays as it is.

    >>> mended(rb'["\ud83d\ude00 \ud83d \\ud83d"]')
    b'["\\ud83d\\ude00 \\ufffd \\\\ud83d"]'
    """
    if len(text) > MENDED_BYTES or not has_halves(text):
        return text
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found["alone"] else found[0], text)


def readable(text: bytes) -> bytes:
    r"""A text that is mended, and has U+FFFD in the place of bytes that are no UTF-8.

    >>> readable(b'["\xff", "caf\xc3\xa9"]') == '["\ufffd", "café"]'.encode()
    True
    """
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            text = text.decode(errors="replace").encode()
    return mended(text)


def has_halves(text: bytes) -> bool:
    """Whether there may be halves of surrogate pairs; also true of whole ones."""
    return b"\\ud" in text or b"\\uD" in text


def read(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """Decode a text, made readable where it is not.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is not what the decoder takes (see `UNREADABLE`).
    """
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        again = readable(text)
        if again == text:
            raise
        return decoder.decode(again)
