"""What of questions and answers is kept: all, all but personal data, lengths only, or nothing. Keys are never kept.

Applied before the journal, so that what is not to be kept is never on disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from router.wire.text import UNREADABLE, read

# What providers and clouds give out as keys: each pattern with the literals that begin it. Looking for literals costs a
# hundredth of a search for the patterns, and nearly no text has any.
_PATTERNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("sk-", "k_live_", "k_test_"), r"(?:sk-|[srp]k_(?:live|test)_)[A-Za-z0-9_-]{16,}"),
    (("ghp_", "gho_", "ghs_", "ithub_pat_"), r"(?:gh[pousr]_|github_pat_)[A-Za-z0-9_-]{16,}"),
    (("glpat-", "hf_"), r"(?:glpat-|hf_)[A-Za-z0-9_-]{16,}"),
    (("xox",), r"xox[abprs]-[A-Za-z0-9_-]{16,}"),
    (("AKIA", "AIza"), r"(?:AKIA[A-Z0-9]{16}\b|AIza[A-Za-z0-9_-]{30,})"),
    (("eyJ",), r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    (("earer ",), r"(?i:bearer) +[A-Za-z0-9._~+/-]{16,}=*"),
    (("-----BEGIN ",), r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
)
_KEYS = re.compile("|".join(rf"(?<![A-Za-z0-9])(?:{pattern})" for _, pattern in _PATTERNS))
_SIGNS = tuple((sign.encode(), re.compile(pattern.encode())) for signs, pattern in _PATTERNS for sign in signs)
_BEFORE = 6  # the most characters of a pattern that stand before its literal
_any = msgspec.json.Decoder(Any)
_EMAILS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+")
_CARDS = re.compile(r"\d(?:[ -]?\d){12,18}(?![\d.]*\d)")


def without_keys(text: str) -> str:
    """A text without what looks like a key.

    >>> without_keys("use sk-proj-abcdefghijklmnop1234 please")
    'use [key] please'
    """
    return _KEYS.sub("[key]", text) if text and _has_key(text.encode("utf-8", "replace")) else text


def without_personal_data(text: str) -> str:
    """A text without keys, e-mail addresses and card numbers.

    >>> without_personal_data("ada@example.org paid with 4111 1111 1111 1111, order 1234567890123456")
    '[e-mail] paid with [card], order 1234567890123456'
    """
    text = without_keys(text)
    if "@" in text:
        text = _EMAILS.sub("[e-mail]", text)
    return _CARDS.sub(_card, text)


def kept(content: Any, mode: str) -> Any:
    """What is kept of a request or an answer, which is a value or its JSON as `msgspec.Raw`."""
    if content is None or mode == "none":
        return None
    if mode == "lengths":
        return {"characters": _characters(_decoded(content))}
    if mode == "redacted":
        return _mapped(_decoded(content), without_personal_data)
    if _has_key(bytes(content) if isinstance(content, msgspec.Raw) else msgspec.json.encode(content)):
        return _mapped(_decoded(content), without_keys)
    return content


def _has_key(text: bytes) -> bool:
    """Whether there may be one: from the first sign of it on, its pattern is looked for."""
    for sign, pattern in _SIGNS:
        at = text.find(sign)
        if at >= 0 and pattern.search(text, max(at - _BEFORE, 0)):
            return True
    return False


def _card(match: re.Match[str]) -> str:
    if match.string[match.start() - 1 : match.start()] == ".":
        return match.group()  # the decimals of a number
    digits = [int(digit) for digit in match.group() if digit.isdigit()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return "[card]" if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 else match.group()


def _decoded(content: Any) -> Any:
    if not isinstance(content, msgspec.Raw):
        return content
    try:
        return read(_any, bytes(content))
    except UNREADABLE:
        return None  # what cannot be read cannot be cleaned, and so is not kept


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): _mapped(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, change) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**12:  # a card number without quotes
        text = change(str(value))
        return value if text == str(value) else text
    return value


def _characters(value: Any) -> dict[str, int]:
    """Characters by role, over all messages; what has no role is `other`."""
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
