"""How much request and response content is recorded: all, without personal data, lengths only, or none.

API keys are never recorded. Redaction happens before the journal, so that removed text never reaches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from router.journal.credentials import matching_shapes
from router.journal.pieces import KEY_REACH, NAME_REACH, occurs, replaced
from router.wire.text import DECODE_ERRORS, decode

_ESCAPE = re.compile(rb"\\(?:u00([2-7][0-9a-fA-F])|/)")  # escapes that JSON allows for plain ASCII
MAX_ERROR_CHARACTERS = 2000
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_any = msgspec.json.Decoder(Any)
_EMAILS = re.compile(r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]++@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}+)++")
_LOGIN = re.compile(r"//[^/\s@]+@")
_CARDS = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d|\.\d)")


def without_keys(text: str) -> str:
    """A text with everything that looks like a key replaced.

    >>> without_keys("use sk-proj-abcdefghijklmnop1234 please")
    'use [key] please'
    """
    for shape in matching_shapes(text.encode("utf-8", "surrogatepass")):
        text = replaced(shape.expression, shape.put, text, KEY_REACH)
    return text


def without_passwords(text: str) -> str:
    """A message without keys, and without the user and password of addresses.

    >>> without_passwords("no answer from https://ada:secret@mlflow.example.org/v1")
    'no answer from https://[login]@mlflow.example.org/v1'
    """
    return without_keys(_LOGIN.sub("//[login]@", text))


def without_personal_data(text: str) -> str:
    """A text without keys, e-mail addresses and card numbers.

    >>> without_personal_data("ada@example.org paid with 4111 1111 1111 1111, order 1234567890123456")
    '[e-mail] paid with [card], order 1234567890123456'
    """
    text = without_keys(text)
    if "@" in text:
        text = replaced(_EMAILS, "[e-mail]", text, NAME_REACH)
    return replaced(_CARDS, _card, text, NAME_REACH)


def recorded_content(content: Any, mode: str) -> Any:
    """The content to record of a request or an answer, given as a value or as `msgspec.Raw` JSON."""
    if content is None or mode == "none":
        return None
    if mode == "lengths":
        return {"characters": _characters(_decoded(content))}
    if mode == "redacted":
        return _mapped(_decoded(content), without_personal_data)
    if _may_hold_key(bytes(content) if isinstance(content, msgspec.Raw) else msgspec.json.encode(content)):
        return _mapped(_decoded(content), without_keys)
    return content


def recorded_error(error: str, mode: str) -> str:
    """The text to record of an error, which may quote content: only its type and code if no content is recorded.

    >>> recorded_error('{"error":{"message":"no: ada","type":"bad_request","code":"filtered"}}', "none")
    '{"type":"bad_request","code":"filtered"}'
    """
    if mode == "whole":
        return without_keys(error)[:MAX_ERROR_CHARACTERS]
    if mode == "redacted":
        return without_personal_data(error)[:MAX_ERROR_CHARACTERS]
    if _CODE.fullmatch(error):
        return error
    said = _decoded(msgspec.Raw(error.encode("utf-8", "replace")))
    said = said.get("error", said) if isinstance(said, dict) else None
    if not isinstance(said, dict):
        return ""
    codes = {name: str(said[name]) for name in ("type", "code") if isinstance(said.get(name), (str, int))}
    return msgspec.json.encode({name: code for name, code in codes.items() if _CODE.fullmatch(code)}).decode()


def _may_hold_key(text: bytes) -> bool:
    """Whether undecoded JSON may contain a key."""
    if b"\\u00" in text or b"\\/" in text:
        text = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"/", text)
    shapes = matching_shapes(text)
    return bool(shapes) and any(occurs(shape.hint, text, KEY_REACH) for shape in shapes)


def _card(match: re.Match[str]) -> str:
    digits = [int(digit) for digit in match.group() if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return "[card]" if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 else match.group()


def _decoded(content: Any) -> Any:
    if not isinstance(content, msgspec.Raw):
        return content
    try:
        return decode(_any, bytes(content))
    except DECODE_ERRORS:
        return None  # unreadable content cannot be redacted, so it is not recorded


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _mapped(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, change) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**12:  # a card number written as a number
        text = change(str(value))
        return value if text == str(value) else text
    return value


def _characters(value: Any) -> dict[str, int]:
    """Characters by role over all messages; text without a role counts as `other`."""
    counts: dict[str, int] = {}

    def add(inner: Any, role: str) -> None:
        if isinstance(inner, str):
            counts[role] = counts.get(role, 0) + len(inner)
        elif isinstance(inner, dict):
            named = inner.get("role")
            for name, deeper in inner.items():
                if name != "role":
                    add(deeper, named if isinstance(named, str) and len(named) < 20 else role)
        elif isinstance(inner, list):
            for deeper in inner:
                add(deeper, role)

    add(value, "other")
    return counts
