"""Bytes like those that are well formed, and unlike them: cut, doubled, moved, nested, and with pieces of others."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

SPLICES = (
    *(b"", b"\0", b"\r\n", b"\n\n", b"\r", b" ", b'"', b"\\", b"\\u", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":"),
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 40, b"0.5", b'""', b"{}", b"[]", b"\xff\xfe", b"\xc3"),
    *("é😀".encode(), b"[" * 300, b'{"a":' * 300, b"A" * 5000, b'"usage":null,', b'"us\\u0061ge":{},', b'"model":"x",'),
    *(b"data: ", b"data: [DONE]\n\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"0\r\n\r\n"),
    *(b"ffffffff\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early\r\n\r\n", b"connection: close\r\n"),
    *(b"expect: 100-continue\r\n", b"x" * 9000 + b": y\r\n"),
)  # fmt: skip
VALUES = (
    *(
        b"null",
        b"true",
        b"false",
        b"0",
        b"-1",
        b"1e308",
        b"1e999",
        b"9" * 25,
        b"0.5",
        b"600",
        b"999",
        b"099",
        b"{}",
        b"[]",
    ),
    *(b'""', b'"x"', b'"\\ud800"', b"[null]", b"[[]]", b'{"a":{}}', b"[1,2]", b'[{"role":{}}]', b'"number"', b'["x"]'),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\{\}|\[\]')
Edit = Callable[[bytes], bytes]


def inputs(examples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Changed examples, and now and then any bytes."""
    changed = st.builds(_changed, st.sampled_from(examples), st.lists(_edits(examples), max_size=6))
    return st.one_of(changed, changed, changed, st.binary(max_size=400))


def _changed(example: bytes, edits: Sequence[Edit]) -> bytes:
    for edit in edits:
        example = edit(example)[: 2**17]
    return example


def _edits(examples: Sequence[bytes]) -> st.SearchStrategy[Edit]:
    place = st.floats(0, 1, allow_nan=False)
    length = st.integers(0, 60)
    splice = st.one_of(st.sampled_from(SPLICES), st.sampled_from(examples), st.binary(max_size=8))
    return st.one_of(
        st.builds(_insert, place, splice),
        st.builds(_replace, place, length, splice),
        st.builds(_double, place, length),
        st.builds(_flip, place, st.integers(0, 7)),
        st.builds(_cut, place),
        *[st.builds(_token, place, st.sampled_from(VALUES))] * 4,
    )


def _token(place: float, value: bytes) -> Edit:
    """Put another value in the place of a string, number or word: what is JSON stays JSON."""

    def edit(data: bytes) -> bytes:
        found = list(_TOKEN.finditer(data))
        if not found:
            return data
        one = found[int(place * (len(found) - 1))]
        return data[: one.start()] + value + data[one.end() :]

    return edit


def _insert(place: float, piece: bytes) -> Edit:
    return lambda data: data[: int(place * len(data))] + piece + data[int(place * len(data)) :]


def _replace(place: float, length: int, piece: bytes) -> Edit:
    return lambda data: data[: int(place * len(data))] + piece + data[int(place * len(data)) + length :]


def _double(place: float, length: int) -> Edit:
    def edit(data: bytes) -> bytes:
        at = int(place * len(data))
        return data[: at + length] + data[at:]

    return edit


def _flip(place: float, bit: int) -> Edit:
    def edit(data: bytes) -> bytes:
        at = int(place * max(len(data) - 1, 0))
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] if data else data

    return edit


def _cut(place: float) -> Edit:
    return lambda data: data[: int(place * len(data))]
