"""Log probabilities in answers: they are read, and removed where the client did not request them. No I/O.

Without a request for them, OpenAI sends `"logprobs": null` in chat completions and `"logprobs": []` in responses. So
the values are replaced, and all other bytes stay unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import astuple

from router.errors import BadRequestError
from router.policy.logprobs import Token
from router.wire.bodies import Edit, apply_edits, locate_fields, locate_items
from router.wire.sse import EventSplitter, event_data
from router.wire.text import DECODE_ERRORS, decode, repair_text

Path = tuple[str, ...]  # names of fields; "*" for every item of a list
Span = tuple[int, int]  # start and stop in bytes

RESPONSE_PATHS: tuple[Path, ...] = (  # of responses, and of the events of their streams
    ("logprobs",),
    ("part", "logprobs"),
    ("item", "content", "*", "logprobs"),
    ("output", "*", "content", "*", "logprobs"),
    ("response", "output", "*", "content", "*", "logprobs"),
)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Token(msgspec.Struct, gc=False):
    token: str = ""
    logprob: float = 0.0


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    logprobs: _Logprobs | None = None


_choice = msgspec.json.Decoder(_Choice)
_tokens = msgspec.json.Decoder(list[_Token])


class LogprobsReader:
    """Reads the log probabilities of one answer, whole or streamed."""

    def __init__(self, endpoint: str, *, removes: bool) -> None:
        """`removes` replaces them by what an answer without them contains."""
        self._is_response = endpoint == "responses"
        self._removes = removes
        self._splitter = EventSplitter()
        self._tokens: dict[int, list[Token]] = {}  # by choice

    def tokens(self, choice: int) -> Sequence[Token]:
        """The tokens of a choice, or of the last message of a response."""
        return self._tokens.get(choice, ())

    def read_whole(self, body: bytes) -> bytes:
        """Read an answer that is not streamed; return the body for the client."""
        text = repair_text(body)  # of the same length
        spans = list(self._read_response(text) if self._is_response else self._read_choices(text))
        if not spans or not self._removes:
            return body
        without = b"[]" if self._is_response else b"null"
        return b"".join(apply_edits([body], [Edit(start, stop, without) for start, stop in spans]))

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
        return event if at < 0 else event[:at] + self.read_whole(data) + event[at + len(data) :]

    def _read_choices(self, text: bytes) -> Iterator[Span]:
        """Add the tokens of a chat completion or of one of its events; where they are."""
        for start, stop in locate_values(text, ("choices", "*")):
            with suppress(*DECODE_ERRORS):
                choice = decode(_choice, text[start:stop])
                if choice.logprobs is not None:
                    self._tokens.setdefault(choice.index, []).extend(map(astuple, choice.logprobs.content or ()))
                    yield from locate_values(text[start:stop], ("logprobs",), start)

    def _read_response(self, text: bytes) -> Iterator[Span]:
        """Read the tokens of a response or of one of its events, the last of which repeats them all; where they are."""
        for path in RESPONSE_PATHS:
            for start, stop in locate_values(text, path):
                with suppress(*DECODE_ERRORS):
                    if tokens := decode(_tokens, text[start:stop]):
                        self._tokens[0] = list(map(astuple, tokens))
                        yield start, stop


def locate_values(text: bytes, path: Path, at: int = 0) -> Iterator[Span]:
    """Start and stop of each value under a path of a JSON value that begins at `at`; none if it has another format.

    >>> list(locate_values(b'{"a":[{"b":1}, {"b":2},{}]}', ("a", "*", "b")))
    [(11, 12), (20, 21)]
    """
    if not path:
        yield at, at + len(text)
        return
    name, *rest = path
    try:
        spans = locate_items(text) if name == "*" else [locate_fields(text, _fields.decode(text))[name]]
    except (KeyError, BadRequestError, *DECODE_ERRORS):
        return
    for start, stop in spans:
        yield from locate_values(text[start:stop], tuple(rest), at + start)
