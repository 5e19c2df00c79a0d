"""The timeline of a request: its timestamps, its trace and its API key."""

from __future__ import annotations

import hashlib
import random
import time

from router.journal.writer import Record

MAX_SESSION_CHARACTERS = 200
_RETRY_COUNT, _SESSION = b"x-stainless-retry-count", b"x-session-id"
_random = random.Random()  # noqa: S311  seeded by the system in each process; ids must differ, not be secret


class RequestTimeline:
    """When a request arrived, was forwarded and was answered, by which key, and in which trace.

    `read_unix_ns` is when the client's body was complete, `sent_unix_ns` when the request went to the upstream, and
    `answered_unix_ns` when the upstream's answer arrived. Each is 0 until then.
    """

    __slots__ = (
        *("answered_unix_ns", "first_byte_unix_ns", "headers", "key_id", "parent_span_id", "read_unix_ns"),
        *("sent_unix_ns", "started_unix_ns", "team", "trace_id"),
    )

    now = staticmethod(time.time_ns)  # nanoseconds since 1970

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self.headers = headers
        self.started_unix_ns = time.time_ns()
        self.first_byte_unix_ns: int | None = None
        self.read_unix_ns = self.sent_unix_ns = self.answered_unix_ns = 0
        self.trace_id, self.parent_span_id = _parse_traceparent(headers.get(b"traceparent"))
        self.key_id = self.team = ""

    def set_key(self, key_id: str, team: str, *, alone: bool) -> None:
        """Set the API key of the request and its team. `alone` says that there is only one key.

        With several keys, a trace id from a client is replaced by one that is derived from it and the key. So no key
        can add spans to a trace of another one.
        """
        self.key_id, self.team = key_id, team
        if self.parent_span_id and not alone:
            self.trace_id = hashlib.sha256(f"{self.trace_id} {key_id}".encode()).hexdigest()[:32]

    def added_ns(self) -> int | None:
        """The latency that the router itself adds until the first byte, in nanoseconds; None if it is unknown."""
        if not self.answered_unix_ns or self.first_byte_unix_ns is None:
            return None
        after = self.first_byte_unix_ns - self.answered_unix_ns
        return max(self.sent_unix_ns - self.read_unix_ns + after, 0)

    def record(self, endpoint: str, status: int, outcome: str, error: str) -> Record:
        """A record of the request, which ends now."""
        headers = self.headers  # most requests have neither header, and save the calls that read them
        return Record(
            trace_id=self.trace_id,
            span_id=f"{_random.getrandbits(64):016x}",
            parent_span_id=self.parent_span_id,
            started_unix_ns=self.started_unix_ns,
            first_byte_unix_ns=self.first_byte_unix_ns,
            ended_unix_ns=time.time_ns(),
            added_ns=self.added_ns(),
            endpoint=endpoint,
            asked_model="",
            status=status,
            outcome=outcome,
            error=error,
            client_retries=_parse_count(headers[_RETRY_COUNT]) if _RETRY_COUNT in headers else 0,
            key_id=self.key_id,
            team=self.team,
            session=headers[_SESSION][:MAX_SESSION_CHARACTERS].decode("latin-1") if _SESSION in headers else "",
        )


def _parse_count(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) < 4 else 0


def _parse_traceparent(traceparent: bytes | None) -> tuple[str, str]:
    """Trace id and parent span of a W3C `traceparent` header; a new trace id and "" if it is missing or invalid."""
    parts = traceparent.split(b"-") if traceparent else []
    if len(parts) >= 4 and len(parts[1]) == 32 and len(parts[2]) == 16:
        trace, parent = parts[1].decode("latin-1"), parts[2].decode("latin-1")
        if trace.strip("0") and parent.strip("0") and all(c in "0123456789abcdef" for c in trace + parent):
            return trace, parent
    return f"{_random.getrandbits(128):032x}", ""
