"""Changes of a request's parameters, made in its bytes: nothing else of the body is written anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from router.policy.parameters import Change
from router.wire.bodies import Edit, encoded


def edits(body: bytes, spans: Mapping[str, tuple[int, int]], changes: Iterable[Change]) -> Iterator[Edit]:
    """The edits that make `changes` in a body whose top-level fields lie at `spans`, in the order of the body.

    >>> body = b'{"stop":"x", "model":"m","max_tokens":5}'
    >>> spans = {"stop": (8, 11), "model": (21, 24), "max_tokens": (38, 39)}
    >>> [tuple(edit) for edit in edits(body, spans, [Change("stop", dropped=True), Change("max_tokens", called="n")])]
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
    if change.called:
        key = body.index(b'"', after)
        yield Edit(key, body.rindex(b'"', key, start) + 1, encoded(change.called))
    if change.value is not None:
        yield Edit(start, stop, change.value)
