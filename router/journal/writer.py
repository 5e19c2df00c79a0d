"""Finished requests, durable before the last byte is sent: one line of JSON a record, appended in one write.

Each worker appends to a segment of its own and holds a lock on it, so that a reader knows by the lock alone whether a
segment can still grow, even after `kill -9`. This module is on the path of every request: it imports neither MLflow nor
OpenTelemetry, and nothing in `append` raises.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import time
from pathlib import Path
from typing import Any

import msgspec

from router.wire.text import DECODE_ERRORS, MAX_REPAIRED_BYTES, may_contain_surrogates, repair_utf8

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 * 2**20
MAX_RECORD_BYTES = 8 * 2**20  # a larger one is kept without what was said
WARN_EVERY_SECONDS = 10.0


class Record(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="request"):
    """One finished request: answered, failed or abandoned."""

    trace_id: str  # 32 hex digits; MLflow's is "tr-" + this
    span_id: str  # 16 hex digits
    parent_span_id: str = ""  # from the caller's traceparent
    started_unix_ns: int
    first_byte_unix_ns: int | None = None
    ended_unix_ns: int
    added_ns: int | None = None  # of the time to the first byte what the router took itself, waiting left out
    endpoint: str  # "chat/completions", ...
    asked_model: str
    model: str = ""  # as sent upstream; "" where nothing was sent
    response_model: str = ""  # as the upstream named it
    stream: bool = False
    status: int  # what the client got; 499 where it left before
    outcome: str = "answered"  # answered, failed, abandoned, cut
    error: str = ""
    attempts: int = 1  # calls upstream, retries and fallbacks included
    client_retries: int = 0  # x-stainless-retry-count
    upstream: str = ""  # that answered, of a model that has several
    request_id: str = ""  # the upstream's x-request-id
    simulated: bool = False
    # the decision; empty where the request passed through
    reason: str = ""
    target: float | None = None
    question_type: str = ""
    quality: dict[str, float] = {}
    expected_cost_usd: dict[str, float] = {}
    gap: float | None = None
    novelty: float | None = None
    policy_version: str = ""
    text_tokens: int | None = None  # estimated of the text, where images are billed beside it
    adapted: str = ""  # what was changed in the request for the model, in words
    read_as: dict[str, int] = {}  # what it was read as, in numbers alone (`router.planning.summary.counts_of`)
    # verification of the answer
    verification: str = ""  # verified, escalated, kept, late, unchecked (docs/answers.md); "": not asked for
    finding: str = ""  # what is wrong with the answer that was looked at (`router.verifying.finding.Fault`)
    escalated_from: str = ""  # the model whose answer was replaced by that of `model`
    # what was billed
    service_tier: str = ""  # as the upstream billed it; "" is the default one
    usage: dict[str, int] | None = None  # the fields of router.policy.prices.Usage; None where the upstream told none
    cost_usd: float | None = None  # None where usage or price is unknown
    # attempts that came to nothing and may have been billed: {"model", "usage", "cost_usd"}, null where nobody told
    # and answers that a stronger model's took the place of, with what they were billed
    wasted: list[dict[str, Any]] = []
    kept_usd: float = 0.0  # counted against the budget of the key, since what was billed is not known
    # who asked
    key_id: str = ""  # the name of the client's key, a digest of one without a name; never the key
    user: str = ""
    session: str = ""
    # what was said, as configured (whole, lengths only, redacted, or none)
    request: Any = None
    response: Any = None


class Feedback(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="feedback"):
    """What a user thought of an answer; becomes an assessment of its trace."""

    feedback_id: str  # 32 hex digits
    trace_id: str  # 32 hex digits
    unix_ns: int
    score: float  # in [0, 1]; thumbs are 0 and 1
    thumbs: str = ""  # up, down, or "" where a score was given
    comment: str = ""
    user: str = ""


class Gap(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="gap"):
    """Requests that were answered and could not be recorded, written as soon as there is room again."""

    since_unix_ns: int
    until_unix_ns: int
    requests: int


Entry = Record | Feedback | Gap


class Journal:
    """The writing end, one per worker process."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open a new segment in `directory`, which is made.

        Raises:
            OSError: there is no room or no right to write there.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self.unrecorded = 0  # entries lost to a full disk since the start
        self._segment_bytes = segment_bytes
        self._encoder = msgspec.json.Encoder()
        self._gap = 0
        self._gap_since_unix_ns = 0
        self._warned = float("-inf")
        self._size = 0  # of the segment; a write that fails is cut back to it
        self._rotate_at = segment_bytes
        self._fd = self._opened()

    def append(self, entry: Entry) -> bool:
        """Make `entry` durable; False where that could not be done, which is counted and logged and never raised."""
        try:
            line = self._line(entry)
            self._write(self._gap_line() + line if self._gap else line)
            if self._gap:
                self._told_gap()
        except (OSError, TypeError, ValueError, RecursionError) as error:
            self._lost(error)
            return False
        return True

    def close(self) -> None:
        """Release the segment; what is in it is then complete."""
        if self._fd >= 0:
            os.close(self._fd)  # releases the lock
            self._fd = -1

    def _line(self, entry: Entry) -> bytes:
        try:
            line = self._encoder.encode(entry)
        except (TypeError, ValueError, RecursionError):
            if not isinstance(entry, Record):
                raise
            line = self._encoder.encode(_without_content(entry))
        if len(line) > MAX_RECORD_BYTES and isinstance(entry, Record):
            line = self._encoder.encode(_without_content(entry))
        if not line.isascii() or may_contain_surrogates(line):
            line = self._readable(line, entry)
        if b"\n" in line:  # from a raw body that was indented; inside strings a newline is escaped, so these are blanks
            line = line.replace(b"\n", b" ")
        return line + b"\n"

    def _readable(self, line: bytes, entry: Entry) -> bytes:
        """A line that can be read again, whatever text of others is in it."""
        line = repair_utf8(line)
        if len(line) > MAX_REPAIRED_BYTES and may_contain_surrogates(line) and isinstance(entry, Record):
            try:
                msgspec.json.decode(line)
            except DECODE_ERRORS:
                return self._encoder.encode(_without_content(entry))
        return line

    def _write(self, line: bytes) -> None:
        if self._fd < 0:
            raise OSError("the journal is closed")
        written = os.write(self._fd, line)
        if written != len(line):
            os.ftruncate(self._fd, self._size)  # no half line may stay where the next one begins
            raise OSError("no room left")
        self._size += written
        if self._size >= self._rotate_at:
            self._rotate()

    def _rotate(self) -> None:
        try:
            fd = self._opened()
        except OSError as error:  # the old segment still takes records
            log.warning("journal: no new segment could be opened: %s", error)
            self._rotate_at = self._size + self._segment_bytes
            return
        os.close(self._fd)
        self._fd, self._size, self._rotate_at = fd, 0, self._segment_bytes

    def _opened(self) -> int:
        """A new segment, locked before it bears the name by which readers find it."""
        name = f"{time.time_ns()}-{os.getpid()}-{secrets.token_hex(4)}"
        new = self.directory / f".{name}"
        fd = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self.directory / f"{name}.jsonl")
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        return fd

    def _lost(self, error: Exception) -> None:
        self.unrecorded += 1
        self._gap += 1
        self._gap_since_unix_ns = self._gap_since_unix_ns or time.time_ns()
        now = time.monotonic()
        if now - self._warned >= WARN_EVERY_SECONDS:
            self._warned = now
            log.error("journal: %d requests are NOT RECORDED so far: %s", self.unrecorded, error)

    def _gap_line(self) -> bytes:
        gap = Gap(since_unix_ns=self._gap_since_unix_ns, until_unix_ns=time.time_ns(), requests=self._gap)
        return self._encoder.encode(gap) + b"\n"

    def _told_gap(self) -> None:
        log.error("journal: there is room again; %d requests were not recorded", self._gap)
        self._gap = 0
        self._gap_since_unix_ns = 0


def _without_content(record: Record) -> Record:
    return msgspec.structs.replace(record, request=None, response=None)
