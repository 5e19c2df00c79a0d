"""How deeply a JSON text nests. Decoders call themselves at each level, so that depth takes their stack."""

from __future__ import annotations

import re

import numpy as np

MOST_LEVELS = 200
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)  # one without an end goes to the text's
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def nests_deeper(text: bytes, levels: int = MOST_LEVELS) -> bool:
    """Whether `text` opens more than `levels` arrays and objects within each other.

    >>> nests_deeper(b'{"a": [["]"]]}', 2), nests_deeper(b'{"a": [["]"]]}', 3)
    (True, False)
    """
    if len(text) <= 2 * levels or text.count(b"[") + text.count(b"{") <= levels:
        return False
    brackets = _STRING.sub(b"", text).translate(None, _OTHERS).translate(_STEPS)
    steps = np.frombuffer(brackets, np.int8)
    return bool(np.cumsum(steps, dtype=np.int32).max(initial=0) > levels)
