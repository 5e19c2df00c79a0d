"""Changes to the parameters of a request, applied to its bytes. The rest of the body stays unchanged. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from router.errors import BadRequestError
from router.policy.parameters import Change
from router.wire.bodies import Edit, encode_json, locate_fields, locate_items
from router.wire.text import DECODE_ERRORS

MAX_FIELDS = 50_000  # in all messages whose role changes, so that a hostile body cannot block the event loop
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


def parameter_edits(body: bytes, spans: Mapping[str, tuple[int, int]], changes: Iterable[Change]) -> Iterator[Edit]:
    """The edits that apply `changes` to a body whose top-level fields are located at `spans`, in order of position.

    >>> body = b'{"stop":"x", "model":"m","max_tokens":5}'
    >>> spans = {"stop": (8, 11), "model": (21, 24), "max_tokens": (38, 39)}
    >>> changes = [Change("stop", dropped=True), Change("max_tokens", new_name="n")]
    >>> [tuple(edit) for edit in parameter_edits(body, spans, changes)]
    [(1, 12, b''), (25, 37, b'"n"')]
    """
    pending = {change.name: change for change in changes}
    first = end = body.index(b"{") + 1
    leading = True  # whether all fields so far are dropped
    for name, (start, stop) in spans.items():
        change = pending.pop(name, None)
        if change is not None and change.dropped:
            if not leading:
                yield Edit(end, stop, b"")
        else:
            if leading and end > first:  # drop the comma after the dropped fields as well
                yield Edit(first, body.index(b",", end) + 1, b"")
            leading = False
            if change is not None:
                yield from _field_edits(body, end, start, stop, change)
        end = stop
    if leading and end > first:
        yield Edit(first, end, b"")
    added = [encode_json(change.name) + b":" + change.value for change in pending.values() if change.value is not None]
    if added:
        yield Edit(first, first, b",".join(added) + (b"" if leading else b","))


def _field_edits(body: bytes, after: int, start: int, stop: int, change: Change) -> Iterator[Edit]:
    if change.new_name:
        key = body.index(b'"', after)
        yield Edit(key, body.rindex(b'"', key, start) + 1, encode_json(change.new_name))
    if change.value is not None:
        yield Edit(start, stop, change.value)
    elif change.roles:
        yield from _role_edits(body[start:stop], start, change.roles)


def _role_edits(messages: bytes, offset: int, roles: Mapping[str, str]) -> Iterator[Edit]:
    """The edits that replace the roles of messages; `offset` is the position of `messages` in the body.

    >>> list(_role_edits(b'[ {"role": "developer"} ,{"role":"user"}]', 100, {"developer": "system"}))
    [Edit(start=111, stop=122, text=b'"system"')]
    """
    fields_left = MAX_FIELDS
    for first, last in locate_items(messages):
        message = messages[first:last]
        try:
            fields = _fields.decode(message)
            role = roles.get(_string.decode(fields["role"]))
            fields_left -= len(fields) if role is not None else 0
            if role is None or fields_left < 0:
                continue
            start, stop = locate_fields(message, fields)["role"]
        except (KeyError, BadRequestError, *DECODE_ERRORS):  # no role, or more than one
            continue
        yield Edit(offset + first + start, offset + first + stop, encode_json(role))
