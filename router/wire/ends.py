"""An answer that is too large to be read: its two ends are kept, where OpenAI's API tells what was billed. No I/O."""

from __future__ import annotations

import json
import re

from router.wire.bodies import AnswerSeen

END_BYTES = 64 * 1024
MOST_TRIED = 8  # places where the usage may stand
# within a text a quote is written \", so that none of these can be part of what was said
_TEXT = re.compile(rb'"(id|model|service_tier)"\s{0,8}:\s{0,8}"([^"\\]{1,200})"')
_USAGE = re.compile(rb'"usage"\s{0,8}:\s{0,8}(?=\{)')


class Ends:
    """The beginning and the end of an answer whose middle passes."""

    def __init__(self) -> None:
        self._first = b""
        self._last = b""

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""
        if len(self._first) < END_BYTES:
            self._first += piece[: END_BYTES - len(self._first)]
        self._last = (self._last + piece[-END_BYTES:])[-END_BYTES:]

    def told(self) -> AnswerSeen:
        """What the ends tell.

        >>> ends = Ends()
        >>> ends.feed(b'{"id":"a","model":"m","choices":[' + b"0," * 99_999 + b'0],"usage":{"prompt_tokens":1}}')
        >>> ends.told()
        AnswerSeen(model='m', usage={'prompt_tokens': 1}, id='a', service_tier=None)
        """
        texts: dict[str, str] = {}
        for end in (self._first, self._last):
            for found in _TEXT.finditer(end):
                texts.setdefault(found[1].decode(), found[2].decode(errors="replace"))
        usage = None
        for found in reversed([*_USAGE.finditer(self._last)][-MOST_TRIED:]):  # the last is the answer's own
            try:
                usage, _ = json.JSONDecoder().raw_decode(self._last[found.end() :].decode(errors="replace"))
                break
            except (ValueError, RecursionError):
                continue
        return AnswerSeen(usage=usage, **texts)
