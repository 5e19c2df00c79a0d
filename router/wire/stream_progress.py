"""The progress of a stream that is held back for verification. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class StreamProgress(NamedTuple):
    """What a stream that has not ended contains so far."""

    choices: int  # number of choices that have started
    characters: int  # length of the shortest text among these choices
    is_special: bool  # whether the stream contains a refusal or a tool call
