"""The nesting depth of a JSON text. Decoders recurse once per level, so a deep text could exhaust their stack."""

from __future__ import annotations

import re

import numpy as np

MAX_LEVELS = 200
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)  # an unterminated string extends to the end
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


def exceeds_depth(text: bytes, levels: int = MAX_LEVELS) -> bool:
    """Whether arrays and objects in `text` are nested more than `levels` deep.

    >>> exceeds_depth(b'{"a": [["]"]]}', 2), exceeds_depth(b'{"a": [["]"]]}', 3)
    (True, False)
    """
    if len(text) <= 2 * levels or text.count(b"[") + text.count(b"{") <= levels:
        return False
    brackets = _STRING.sub(b"", text).translate(None, _OTHERS).translate(_STEPS)
    steps = np.frombuffer(brackets, np.int8)
    return bool(np.cumsum(steps, dtype=np.int32).max(initial=0) > levels)
