"""The journal of finished requests: each is durable before the last byte of its answer is sent.

Each record is one line of JSON, appended in one write. Each worker appends to its own segment and holds a lock on it.
A reader learns from the lock whether the segment can still grow, even after `kill -9`. Every request passes through
this module: it imports neither MLflow nor OpenTelemetry, and `append` never raises.
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
MAX_RECORD_BYTES = 8 * 2**20  # a larger record is written without its content
WARN_EVERY_SECONDS = 10.0


class RequestSummary(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="request"):
    """One finished request without its content: answered, failed or abandoned."""

    trace_id: str  # 32 hex digits; MLflow prefixes "tr-"
    span_id: str  # 16 hex digits
    parent_span_id: str = ""  # from the caller's traceparent
    started_unix_ns: int
    first_byte_unix_ns: int | None = None
    ended_unix_ns: int
    added_ns: int | None = None  # time to the first byte that the router itself spent; waiting is not counted
    endpoint: str  # "chat/completions", ...
    asked_model: str
    model: str = ""  # as sent upstream; "" if nothing was sent
    response_model: str = ""  # as named by the upstream
    stream: bool = False
    status: int  # as sent to the client; 499 if it disconnected before
    outcome: str = "answered"  # answered, failed, abandoned, cut
    error: str = ""
    attempts: int = 1  # calls upstream, retries and fallbacks included
    client_retries: int = 0  # x-stainless-retry-count
    upstream: str = ""  # that answered, if the model has several
    request_id: str = ""  # the upstream's x-request-id
    simulated: bool = False
    # the decision; empty for requests that pass through
    reason: str = ""
    target: float | None = None
    question_type: str = ""
    quality: dict[str, float] = {}
    expected_cost_usd: dict[str, float] = {}
    gap: float | None = None
    novelty: float | None = None
    policy_version: str = ""
    text_tokens: int | None = None  # estimated tokens of the text, if images are billed too
    adapted: str = ""  # the changes made to the request for the model, in words
    read_as: dict[str, int] = {}  # sizes of the parts of the request (`router.planning.summary.counts_of`)
    # verification of the answer
    verification: str = ""  # verified, escalated, kept, late, unchecked; "" if not requested
    finding: str = ""  # the fault found in the checked answer (`router.verifying.finding.Fault`)
    escalated_from: str = ""  # the model whose answer was replaced by an answer of `model`
    # what was billed
    service_tier: str = ""  # as billed by the upstream; "" is the default tier
    usage: dict[str, int] | None = None  # the fields of router.policy.prices.Usage; None if the upstream reported none
    cost_usd: float | None = None  # None if usage or price is unknown
    # failed attempts that may have been billed, and answers that were replaced by a stronger model's:
    # {"model", "usage", "cost_usd"}, null where the upstream reported nothing
    wasted: list[dict[str, Any]] = []
    kept_usd: float = 0.0  # charged to the budget of the key, because the billed amount is unknown
    # the client
    key_id: str = ""  # the name of the key, or a digest of a key without a name; never the key itself
    team: str = ""  # the team of the key when the request began
    user: str = ""
    session: str = ""


class Record(RequestSummary, omit_defaults=True, kw_only=True, tag_field="kind", tag="request"):
    """One finished request as the journal keeps it."""

    # the content, recorded as configured: whole, redacted, lengths only, or not at all
    request: Any = None
    response: Any = None


class Feedback(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="feedback"):
    """A user's rating of an answer. It becomes an assessment of the trace in MLflow."""

    feedback_id: str  # 32 hex digits
    trace_id: str  # 32 hex digits
    unix_ns: int
    score: float  # in [0, 1]; thumbs are 0 and 1
    thumbs: str = ""  # up, down, or "" if a score was given
    comment: str = ""
    user: str = ""


class Gap(msgspec.Struct, omit_defaults=True, kw_only=True, tag_field="kind", tag="gap"):
    """A number of answered requests that could not be recorded. Written as soon as there is room again."""

    since_unix_ns: int
    until_unix_ns: int
    requests: int


Entry = Record | Feedback | Gap


class Journal:
    """Writes the journal; each worker process has one."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Create `directory` if needed, and open a new segment in it.

        Raises:
            OSError: the disk is full or the directory is not writable.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self.unrecorded = 0  # entries lost to a full disk since the start
        self._segment_bytes = segment_bytes
        self._encoder = msgspec.json.Encoder()
        self._gap = 0
        self._gap_since_unix_ns = 0
        self._warned = float("-inf")
        self._size = 0  # of the segment; a failed write is truncated to it
        self._rotate_at = segment_bytes
        self._fd = self._open_segment()

    def append(self, entry: Entry) -> bool:
        """Make `entry` durable. Return False if that failed; the failure is counted and logged, never raised."""
        try:
            line = self._encode(entry)
            self._write(self._gap_line() + line if self._gap else line)
            if self._gap:
                self._close_gap()
        except (OSError, TypeError, ValueError, RecursionError) as error:
            self._count_lost(error)
            return False
        return True

    def close(self) -> None:
        """Close the segment and release its lock. The segment is then complete."""
        if self._fd >= 0:
            os.close(self._fd)  # releases the lock
            self._fd = -1

    def _encode(self, entry: Entry) -> bytes:
        try:
            line = self._encoder.encode(entry)
        except (TypeError, ValueError, RecursionError):
            if not isinstance(entry, Record):
                raise
            line = self._encoder.encode(_without_content(entry))
        if len(line) > MAX_RECORD_BYTES and isinstance(entry, Record):
            line = self._encoder.encode(_without_content(entry))
        if not line.isascii() or may_contain_surrogates(line):
            line = self._repair(line, entry)
        if b"\n" in line:  # a raw body was indented; newlines inside strings are escaped, so these are white space
            line = line.replace(b"\n", b" ")
        return line + b"\n"

    def _repair(self, line: bytes, entry: Entry) -> bytes:
        """The line with malformed text repaired, so that it can be decoded again."""
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
            os.ftruncate(self._fd, self._size)  # the next line must not follow half a line
            raise OSError("no space left on the device")
        self._size += written
        if self._size >= self._rotate_at:
            self._rotate()

    def _rotate(self) -> None:
        try:
            fd = self._open_segment()
        except OSError as error:  # the old segment is still writable
            log.warning("journal: cannot open a new segment: %s", error)
            self._rotate_at = self._size + self._segment_bytes
            return
        os.close(self._fd)
        self._fd, self._size, self._rotate_at = fd, 0, self._segment_bytes

    def _open_segment(self) -> int:
        """Create a new segment. It is locked before it gets the name by which readers find it."""
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

    def _count_lost(self, error: Exception) -> None:
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

    def _close_gap(self) -> None:
        log.error("journal: writing works again; %d requests were not recorded", self._gap)
        self._gap = 0
        self._gap_since_unix_ns = 0


def _without_content(record: Record) -> Record:
    return msgspec.structs.replace(record, request=None, response=None)
