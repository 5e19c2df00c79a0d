"""Matches expressions over long texts in pieces, because no other thread runs during one match."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

PIECE = 32 * 2**10  # bytes in which a match begins; at most 150 us per KiB, for digits that look like card numbers
KEY_REACH = 32 * 2**10  # bytes after a piece in which a match may end; the longest tokens have a few KiB
NAME_REACH = 2**10  # for e-mail addresses and card numbers


def replaced(expression: re.Pattern[str], put: str | Callable[[re.Match[str]], str], text: str, reach: int) -> str:
    """`text` with matches replaced, as by `expression.sub` for matches no longer than `reach`."""
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
            if found.end() == end + reach:  # the match may continue
                found = expression.match(text, found.start()) or found
            yield found
            end = max(end, found.end())
            if found.end() > begin + PIECE:
                break
        begin = end


def occurs(expression: re.Pattern[bytes], text: bytes, reach: int) -> bool:
    """Whether `expression` has a match in `text` that is no longer than `reach`."""
    return any(expression.search(text, begin, begin + PIECE + reach) for begin in range(0, max(len(text), 1), PIECE))
