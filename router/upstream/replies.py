"""What an upstream replied, and what that says of asking again. Nothing here sends or waits."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from router.policy.reasons import Reason
from router.upstream.calls import Answer, Headers
from router.upstream.endpoints import Endpoint

RETRIED = frozenset({408, 409, 429})  # and all from 500 on
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 8.0


@dataclass(slots=True)
class Reply:
    """What came of it: an answer's head and the beginning of its body."""

    model: str  # as the policy calls it
    endpoint: Endpoint  # that answered
    status: int
    headers: Headers
    body: bytes  # all of it, unless `answer` is there to read on from
    answer: Answer | None
    attempts: int = 1
    failed_models: list[str] = field(default_factory=list)  # those that were given up before
    because: Reason | None = None  # why another model than the one decided on answered
    adapted: str = ""  # what was changed in the request for the model, in words
    told: tuple[tuple[bytes, bytes], ...] = ()  # headers that say how the answer was verified

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


def is_retried(reply: Reply) -> bool:
    """Whether the same request may be answered at another time, or elsewhere."""
    return reply.status in RETRIED or reply.status >= 500


def is_forbidden(reply: Reply) -> bool:
    """Whether the upstream asks not to be asked again."""
    return reply.header(b"x-should-retry") == b"false"


def is_not_here(reply: Reply) -> bool:
    """Whether an upstream does not hold what the request names."""
    return reply.status == 404 or (reply.status == 400 and b"previous_response_not_found" in reply.body)


def delay(reply: Reply | None, made: int) -> float:
    """Seconds until the next attempt: as the upstream says, else doubling, and never the same for two clients."""
    told = None if reply is None else told_wait(reply)
    if told is not None:
        return told
    longest: float = min(FIRST_DELAY_SECONDS * 2.0 ** (made - 1), LONGEST_DELAY_SECONDS)
    return longest * (0.5 + random.random() / 2)  # noqa: S311  spreads load, keeps no secret


def told_wait(reply: Reply) -> float | None:
    """Seconds to wait, where the upstream says."""
    return retry_after(reply.header(b"retry-after-ms"), reply.header(b"retry-after"), time.time())


def retry_after(milliseconds: bytes | None, after: bytes | None, now_unix: float) -> float | None:
    """Seconds to wait by `retry-after-ms`, or `retry-after` in seconds or as a date; None where neither says.

    >>> retry_after(b"1500", None, 0.0), retry_after(None, b"3", 0.0), retry_after(None, b"soon", 0.0)
    (1.5, 3.0, None)
    """
    try:
        if milliseconds is not None:
            told = float(milliseconds) / 1000
        elif after is None:
            return None
        elif after.strip().replace(b".", b"", 1).isdigit():
            told = float(after)
        else:
            told = parsedate_to_datetime(after.decode("latin-1")).timestamp() - now_unix
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(told) else max(told, 0.0)
