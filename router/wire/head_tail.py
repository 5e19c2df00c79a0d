"""A buffer for the first and last bytes of an answer that is too large to keep. No I/O."""

from __future__ import annotations

import json
import re

from router.wire.bodies import AnswerMetadata

BUFFER_BYTES = 64 * 1024  # kept at each end
MAX_USAGE_CANDIDATES = 8
# A quote inside a JSON string is escaped, so generated text cannot match these patterns.
_TEXT = re.compile(rb'"(id|model|service_tier)"\s{0,8}:\s{0,8}"([^"\\]{1,200})"')
_USAGE = re.compile(rb'"usage"\s{0,8}:\s{0,8}(?=\{)')


class HeadTailBuffer:
    """The first and last bytes of an answer, where OpenAI's API places the model and the usage."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""

    def feed(self, piece: bytes) -> None:
        """Add the next piece of the answer."""
        if len(self._head) < BUFFER_BYTES:
            self._head += piece[: BUFFER_BYTES - len(self._head)]
        self._tail = (self._tail + piece[-BUFFER_BYTES:])[-BUFFER_BYTES:]

    def read_metadata(self) -> AnswerMetadata:
        """The metadata found in both ends. A field that is not found is None.

        >>> buffer = HeadTailBuffer()
        >>> buffer.feed(b'{"id":"a","model":"m","choices":[' + b"0," * 99_999 + b'0],"usage":{"prompt_tokens":1}}')
        >>> buffer.read_metadata()
        AnswerMetadata(model='m', usage={'prompt_tokens': 1}, id='a', service_tier=None)
        """
        texts: dict[str, str] = {}
        for end in (self._head, self._tail):
            for match in _TEXT.finditer(end):
                texts.setdefault(match[1].decode(), match[2].decode(errors="replace"))
        usage = None
        candidates = [*_USAGE.finditer(self._tail)][-MAX_USAGE_CANDIDATES:]
        for match in reversed(candidates):  # the last one is at the top level
            try:
                usage, _ = json.JSONDecoder().raw_decode(self._tail[match.end() :].decode(errors="replace"))
                break
            except (ValueError, RecursionError):
                continue
        return AnswerMetadata(usage=usage, **texts)
