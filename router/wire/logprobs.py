"""Log probabilities in answers: they are read, and removed where the client did not request them. No I/O.

Without a request for them, OpenAI sends `"logprobs": null` in chat completions and `"logprobs": []` in responses. So
the values are replaced, and all other bytes stay unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from router.errors import BadRequestError
from router.policy.logprobs import Token
from router.wire.bodies import Edit, apply_edits, locate_fields
from router.wire.sse import EventSplitter, event_data
from router.wire.text import DECODE_ERRORS, decode, repair_text

Path = tuple[str, ...]  # names of fields; "*" for every item of a list

CHAT_PATHS: tuple[Path, ...] = (("choices", "*", "logprobs"),)
RESPONSE_PATHS: tuple[Path, ...] = (
    ("logprobs",),
    ("part", "logprobs"),
    ("item", "content", "*", "logprobs"),
    ("output", "*", "content", "*", "logprobs"),
    ("response", "output", "*", "content", "*", "logprobs"),
)
DELTA = "response.output_text.delta"  # the only event whose log probabilities are read; later ones repeat them
_SEPARATOR = re.compile(rb"\s*[\[,]\s*")  # before an item of a list
_items = msgspec.json.Decoder(list[msgspec.Raw])
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Token(msgspec.Struct, gc=False):
    token: str = ""
    logprob: float = 0.0


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    logprobs: _Logprobs | None = None


class _Part(msgspec.Struct, gc=False):
    logprobs: list[_Token] | None = None


class _Item(msgspec.Struct, gc=False):
    content: list[_Part] | None = None


class _Body(msgspec.Struct, gc=False):
    """A chat completion, a response, or an event of their streams."""

    type: str = ""
    choices: list[_Choice] | None = None
    output: list[_Item] | None = None
    output_index: int = 0
    logprobs: list[_Token] | None = None


_body = msgspec.json.Decoder(_Body)


class LogprobsReader:
    """Reads the log probabilities of one answer, whole or streamed."""

    def __init__(self, endpoint: str, *, removes: bool) -> None:
        """`removes` replaces them by what an answer without them contains."""
        self._paths = RESPONSE_PATHS if endpoint == "responses" else CHAT_PATHS
        self._without = b"[]" if endpoint == "responses" else b"null"
        self._is_response = endpoint == "responses"
        self._removes = removes
        self._splitter = EventSplitter()
        self._tokens: dict[int, list[Token]] = {}  # by the index of the choice, or of the response's item

    def tokens(self, choice: int) -> Sequence[Token]:
        """The tokens of a choice, or of the last message of a response."""
        at = max(self._tokens, default=0) if self._is_response else choice
        return self._tokens.get(at, ())

    def read_whole(self, body: bytes) -> bytes:
        """Read an answer that is not streamed; return the body for the client."""
        self._read(body)
        return self._remove(body)

    def feed(self, chunk: bytes) -> bytes:
        """Read the next bytes of a stream; return the bytes for the client."""
        return b"".join([self._read_event(event) for event in self._splitter.feed(chunk)])

    @property
    def incomplete_event(self) -> bytes:
        """The bytes after the last complete event."""
        return self._splitter.incomplete_event

    def _read_event(self, event: bytes) -> bytes:
        data = event_data(event)
        at = event.find(data) if b'"logprobs"' in data else -1
        if at < 0:
            return event
        self._read(data)
        return event[:at] + self._remove(data) + event[at + len(data) :]

    def _read(self, data: bytes) -> None:
        try:
            body = decode(_body, data)
        except DECODE_ERRORS:
            return
        for choice in body.choices or ():
            self._add(choice.index, None if choice.logprobs is None else choice.logprobs.content)
        for index, item in enumerate(body.output or ()):
            for part in item.content or ():
                self._add(index, part.logprobs)
        if body.type == DELTA:
            self._add(body.output_index, body.logprobs)

    def _add(self, index: int, tokens: Sequence[_Token] | None) -> None:
        if tokens:
            self._tokens.setdefault(index, []).extend([(token.token, token.logprob) for token in tokens])

    def _remove(self, data: bytes) -> bytes:
        if not self._removes:
            return data
        text = repair_text(data)  # of the same length
        spans = (span for path in self._paths for span in locate_values(text, path))
        edits = [Edit(start, stop, self._without) for start, stop in spans if text[start:stop] != b"null"]
        return b"".join(apply_edits([data], edits)) if edits else data


def locate_values(text: bytes, path: Path, at: int = 0) -> Iterator[tuple[int, int]]:
    """Start and stop of each value under a path of a JSON value that begins at `at`; none if it has another format.

    >>> list(locate_values(b'{"a":[{"b":1}, {"b":2},{}]}', ("a", "*", "b")))
    [(11, 12), (20, 21)]
    """
    if not path:
        yield at, at + len(text)
        return
    name, *rest = path
    try:
        spans = _locate_items(text) if name == "*" else [locate_fields(text, _fields.decode(text))[name]]
    except (KeyError, BadRequestError, *DECODE_ERRORS):
        return
    for start, stop in spans:
        yield from locate_values(text[start:stop], tuple(rest), at + start)


def _locate_items(text: bytes) -> list[tuple[int, int]]:
    spans, at = [], 0
    for item in _items.decode(text):
        separator = _SEPARATOR.match(text, at)
        assert separator is not None
        at = separator.end() + len(memoryview(item))
        spans.append((separator.end(), at))
    return spans
