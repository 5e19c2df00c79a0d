"""Changes of a request's parameters, made in its bytes: nothing else of the body is written anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from router.errors import BadRequestError
from router.policy.parameters import Change
from router.wire.bodies import Edit, encoded, spans
from router.wire.text import UNREADABLE

_BETWEEN = re.compile(rb"\s*[\[,]\s*")  # two items of a list
MOST_FIELDS = 50_000  # of all messages whose role is changed; a hostile body has millions, which are left as they are
_items = msgspec.json.Decoder(list[msgspec.Raw])
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


def edits(body: bytes, spans: Mapping[str, tuple[int, int]], changes: Iterable[Change]) -> Iterator[Edit]:
    """The edits that make `changes` in a body whose top-level fields lie at `spans`, in the order of the body.

    >>> body = b'{"stop":"x", "model":"m","max_tokens":5}'
    >>> spans = {"stop": (8, 11), "model": (21, 24), "max_tokens": (38, 39)}
    >>> [tuple(edit) for edit in edits(body, spans, [Change("stop", dropped=True), Change("max_tokens", new_name="n")])]
    [(1, 12, b''), (25, 37, b'"n"')]
    """
    left = {change.name: change for change in changes}
    first = end = body.index(b"{") + 1
    leading = True  # so far all fields go
    for name, (start, stop) in spans.items():
        change = left.pop(name, None)
        if change is not None and change.dropped:
            if not leading:
                yield Edit(end, stop, b"")
        else:
            if leading and end > first:  # the comma after what goes goes with it
                yield Edit(first, body.index(b",", end) + 1, b"")
            leading = False
            if change is not None:
                yield from _changed(body, end, start, stop, change)
        end = stop
    if leading and end > first:
        yield Edit(first, end, b"")
    put = [encoded(change.name) + b":" + change.value for change in left.values() if change.value is not None]
    if put:
        yield Edit(first, first, b",".join(put) + (b"" if leading else b","))


def _changed(body: bytes, after: int, start: int, stop: int, change: Change) -> Iterator[Edit]:
    if change.new_name:
        key = body.index(b'"', after)
        yield Edit(key, body.rindex(b'"', key, start) + 1, encoded(change.new_name))
    if change.value is not None:
        yield Edit(start, stop, change.value)
    elif change.roles:
        yield from _role_edits(body[start:stop], start, change.roles)


def _role_edits(messages: bytes, begins: int, roles: Mapping[str, str]) -> Iterator[Edit]:
    """The edits that give messages other roles; `begins` is where their list lies in the body.

    >>> list(_role_edits(b'[ {"role": "developer"} ,{"role":"user"}]', 100, {"developer": "system"}))
    [Edit(start=111, stop=122, text=b'"system"')]
    """
    at, fields_left = 0, MOST_FIELDS
    for item in _items.decode(messages):
        message = bytes(item)
        between = _BETWEEN.match(messages, at)
        assert between is not None  # it is a list
        first = between.end()
        at = first + len(message)
        try:
            fields = _fields.decode(message)
            taken = roles.get(_string.decode(fields["role"]))
            fields_left -= len(fields) if taken is not None else 0
            if taken is None or fields_left < 0:
                continue
            start, stop = spans(message, fields)["role"]
        except (KeyError, BadRequestError, *UNREADABLE):  # no role, or two of them
            continue
        yield Edit(begins + first + start, begins + first + stop, encoded(taken))
