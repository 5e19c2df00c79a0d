"""An upstream's reply, and whether and when to retry after it. This module neither sends nor waits."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from router.policy.reasons import Reason
from router.upstream.calls import Answer, Headers
from router.upstream.endpoints import Endpoint

RETRYABLE_STATUSES = frozenset({408, 409, 429})  # in addition to those from 500 on
FIRST_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 8.0


@dataclass(slots=True)
class Reply:
    """The outcome of a request to the models: the head of an answer and the start of its body."""

    model: str  # its name in the policy
    endpoint: Endpoint  # the upstream that answered
    status: int
    headers: Headers
    body: bytes  # the whole body if `answer` is None, otherwise its start
    answer: Answer | None
    attempts: int = 1
    failed_models: list[str] = field(default_factory=list)  # models that were tried before
    override_reason: Reason | None = None  # why another model than the one decided on answered
    adapted: str = ""  # description of the parameters that were changed for the model
    verification_headers: tuple[tuple[bytes, bytes], ...] = ()  # response headers that describe the verification

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


def is_retryable(reply: Reply) -> bool:
    """Whether the same request may succeed later or at another upstream."""
    return reply.status in RETRYABLE_STATUSES or reply.status >= 500


def forbids_retry(reply: Reply) -> bool:
    """Whether the upstream asks the client not to retry."""
    return reply.header(b"x-should-retry") == b"false"


def lacks_stored_item(reply: Reply) -> bool:
    """Whether the upstream does not store the response or conversation that the request refers to."""
    return reply.status == 404 or (reply.status == 400 and b"previous_response_not_found" in reply.body)


def retry_delay_seconds(reply: Reply | None, attempt: int) -> float:
    """Seconds until the next attempt: what the upstream requests, otherwise exponential backoff with jitter."""
    requested = None if reply is None else requested_delay_seconds(reply)
    if requested is not None:
        return requested
    longest: float = min(FIRST_DELAY_SECONDS * 2.0 ** (attempt - 1), MAX_DELAY_SECONDS)
    return longest * (0.5 + random.random() / 2)  # noqa: S311  spreads load, keeps no secret


def requested_delay_seconds(reply: Reply) -> float | None:
    """The delay that the upstream requests, in seconds; None if it requests none."""
    return parse_retry_after(reply.header(b"retry-after-ms"), reply.header(b"retry-after"), time.time())


def parse_retry_after(milliseconds: bytes | None, after: bytes | None, now_unix: float) -> float | None:
    """The delay in seconds that `retry-after-ms` or `retry-after` (seconds or a date) requests; None if neither does.

    >>> parse_retry_after(b"1500", None, 0.0), parse_retry_after(None, b"3", 0.0)
    (1.5, 3.0)
    >>> parse_retry_after(None, b"soon", 0.0)
    """
    try:
        if milliseconds is not None:
            seconds = float(milliseconds) / 1000
        elif after is None:
            return None
        elif after.strip().replace(b".", b"", 1).isdigit():
            seconds = float(after)
        else:
            seconds = parsedate_to_datetime(after.decode("latin-1")).timestamp() - now_unix
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(seconds) else max(seconds, 0.0)
