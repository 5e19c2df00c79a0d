"""What a stream has said so far, for those who hold it back. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class Heard(NamedTuple):
    """What there is of an answer whose stream has not ended."""

    choices: int  # that have begun
    characters: int  # of the shortest text of them
    is_special: bool  # there is a refusal or a tool call: not prose alone
