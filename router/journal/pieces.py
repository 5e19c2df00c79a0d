"""Expressions over long texts, a piece at a time: Python lets no other thread run while one expression is matched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

PIECE = 32 * 2**10  # in which a match begins; at most 150 us a KiB, for digits that look like card numbers
KEY_REACH = 32 * 2**10  # beyond a piece, so that a key is found that begins in it; the longest tokens have some KiB
NAME_REACH = 2**10  # the same for e-mail addresses and card numbers


def replaced(expression: re.Pattern[str], put: str | Callable[[re.Match[str]], str], text: str, reach: int) -> str:
    """`text` with what `expression` finds replaced, as `expression.sub` does for what is no longer than `reach`."""
    if len(text) <= PIECE:
        return expression.sub(put, text)
    parts: list[str] = []
    at = 0
    for found in _found(expression, text, reach):
        parts += (text[at : found.start()], put if isinstance(put, str) else put(found))
        at = found.end()
    return "".join((*parts, text[at:])) if parts else text


def _found(expression: re.Pattern[str], text: str, reach: int) -> Iterator[re.Match[str]]:
    begin = 0
    while begin < len(text):
        end = begin + PIECE
        for found in expression.finditer(text, begin, end + reach):
            if found.start() >= end:
                break
            if found.end() == end + reach:  # it may go on
                found = expression.match(text, found.start()) or found
            yield found
            end = max(end, found.end())
            if found.end() > begin + PIECE:
                break
        begin = end


def occurs(expression: re.Pattern[bytes], text: bytes, reach: int) -> bool:
    """Whether `expression` finds anything in `text` that is no longer than `reach`."""
    return any(expression.search(text, begin, begin + PIECE + reach) for begin in range(0, max(len(text), 1), PIECE))
