"""Bytes that resemble valid ones: examples that are cut, doubled, moved, nested or miscounted, and bytes of no form."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

MOST_BYTES = 64 * 1024
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_SIGN = re.compile(rb"[,:{}\[\]]|\r?\n")
_NUMBERS = (
    *(
        b"0",
        b"-1",
        b"1",
        b"2",
        b"1.5",
        b"-0.0",
        b"007",
        b"099",
        b"600",
        b"9999",
        b"0001",
        b"+1",
        b"1e5",
        b"1e999",
        b"-1e999",
        b"1e-999",
        b"0x10",
    ),
    *(b"NaN", b"Infinity", b"1_000", b"", b" ", b"9" * 19, b"9" * 20, b"9" * 400, b"1" * 5000, b"ffffffffffffffff"),
)
_NESTS = ((b"[", b"]"), (b'{"a":', b"}"), (b'"', b'"'), (b"{", b"}"), (b"(", b")"))
PIECES = (
    *(b"\0", b"\n", b"\r", b"\r\n", b"\r\n\r\n", b"\n\n", b"\t", b" ", b'"', b'\\"', b"\\", b"\\u", b"\\u0041"),
    *(b"\\ud83d", b"\\ud83d\\ude00", b"\xff", b"\xc3", b"\xed\xa0\xbd", b"\xef\xbb\xbf", "é\u2028".encode()),
    *(b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"false", b"{}", b"[]", b'""', b"A" * 3000, b"(" * 200),
)  # fmt: skip

Edit = Callable[[bytes, int, int, bytes], bytes]  # the bytes, a slice of them, and a piece


def _insert(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    return data[:start] + piece + data[start:]


def _replace(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    return data[:start] + piece + data[stop:]


def _delete(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    return data[:start] + data[stop:]


def _cut(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    return data[:start]


def _duplicate(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    return data[:stop] + data[start:]


def _swap(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    middle = (start + stop) // 2
    return data[:start] + data[middle:stop] + data[start:middle] + data[stop:]


def _flip(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    return data[:start] + bytes([data[start] ^ 1 << stop % 8]) + data[start + 1 :] if start < len(data) else data


def _number(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    numbers = list(_NUMBER.finditer(data))
    if not numbers:
        return data
    number = numbers[start % len(numbers)]
    return data[: number.start()] + _NUMBERS[stop % len(_NUMBERS)] + data[number.end() :]


def _nest(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    opening, closing = _NESTS[len(piece) % len(_NESTS)]
    depth = (1, 2, 30, 5000)[start % 4]
    return data[:start] + opening * depth + data[start:stop] + closing * depth + data[stop:]


_EDITS: Sequence[Edit] = (
    *(_insert, _replace, _delete, _cut, _swap, _flip, _nest),
    *(_duplicate, _duplicate, _number, _number),  # which harm the form least
)


def _edited(example: bytes, edits: Sequence[tuple[Edit, bool, int, int, bytes]]) -> bytes:
    for edit, position, offset, length, piece in edits:
        start = offset % (len(example) + 1)
        stop = min(start + length, len(example))
        if position:  # from one sign that parts tokens to another: a field, a line, an item
            start = _after_sign(example, start)
            stop = max(_after_sign(example, stop), start)
        example = edit(example, start, stop, piece)[:MOST_BYTES]
    return example


def _after_sign(data: bytes, start: int) -> int:
    match = _SIGN.search(data, start)
    return match.end() if match else len(data)


def _one_of(values: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of them, without hypothesis writing them all into the name of the strategy."""
    return st.integers(0, len(values) - 1).map(values.__getitem__)


def changed_examples(examples: Sequence[bytes], pieces: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Examples after up to eight edits, each of which may bring in a piece."""
    example = _one_of(examples)
    piece = st.one_of(_one_of((*pieces, *PIECES)), example, st.binary(max_size=6))
    edit = st.tuples(st.sampled_from(_EDITS), st.booleans(), st.integers(0, MOST_BYTES), st.integers(0, 80), piece)
    few_edits, many_edits = st.lists(edit, min_size=1, max_size=2), st.lists(edit, max_size=8)
    return st.builds(_edited, example, st.one_of(few_edits, few_edits, many_edits))


def inputs(examples: Sequence[bytes], pieces: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """Changed examples, and one time in eight bytes of no form."""
    near = changed_examples(examples, pieces)
    return st.integers(0, 7).flatmap(lambda turn: near if turn else st.binary(max_size=300))
