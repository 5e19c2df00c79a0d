"""The last decisions, as they are made: `GET /router/recent`, from the end of the journal that all workers write."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.client.keyfile import is_digest
from router.client.keys import Keys
from router.journal.segments import listed
from router.journal.writer import Journal
from router.wire.text import DECODE_ERRORS

LIMIT = 50
TAIL_BYTES = 256 * 1024  # of each segment at first; more where that holds too few
MAX_TAIL_BYTES = 16 * 2**20
SEGMENTS = 32  # the newest; each worker has one


class Collaborators(Protocol):
    """What the endpoints work with."""

    keys: Keys
    journal: Journal


class Seen(msgspec.Struct):
    """What is shown of a record: nothing of what was said, and of who said it no more than the name of the key."""

    trace_id: str
    span_id: str
    started_unix_ns: int
    ended_unix_ns: int
    endpoint: str
    asked_model: str
    status: int
    first_byte_unix_ns: int | None = None
    added_ns: int | None = None
    model: str = ""
    stream: bool = False
    outcome: str = "answered"
    attempts: int = 1
    reason: str = ""
    target: float | None = None
    question_type: str = ""
    quality: dict[str, float] = {}
    expected_cost_usd: dict[str, float] = {}
    gap: float | None = None
    novelty: float | None = None
    policy_version: str = ""
    adapted: str = ""
    read_as: dict[str, int] = {}
    verification: str = ""
    finding: str = ""
    escalated_from: str = ""
    usage: dict[str, int] | None = None
    cost_usd: float | None = None
    key_id: str = ""
    kind: str = "request"


_decoder = msgspec.json.Decoder(Seen)


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoint."""

    @app.get("/router/recent")
    async def recent(request: Request) -> Response:
        """The newest requests of all workers, the last one first; those of its own for a key that is no admin."""
        caller = worker.keys.check(request.scope["headers"])
        seen = await run_in_threadpool(last, worker.journal.directory, LIMIT, caller.own)
        return Response(msgspec.json.encode({"requests": [told(one) for one in seen]}), media_type="application/json")


def last(directory: Path, limit: int, key_id: str | None = None) -> list[Seen]:
    """The newest requests in a journal, the last one first; with `key_id`, those of that key alone."""
    found: list[Seen] = []
    for segment in reversed(listed(directory)[-SEGMENTS:]):
        with contextlib.suppress(FileNotFoundError):
            found += _tail(segment, limit, key_id)
    return sorted(found, key=lambda seen: -seen.ended_unix_ns)[:limit]


def _tail(segment: Path, limit: int, key_id: str | None) -> list[Seen]:
    """The last requests of a segment."""
    mark = b"" if key_id is None else b'"key_id":' + msgspec.json.encode(key_id)
    with segment.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        length = TAIL_BYTES
        while True:
            file.seek(max(size - length, 0))
            lines = file.read(length).split(b"\n")
            lines = lines[:-1] if length >= size else lines[1:-1]  # none that is cut at either end
            whole = length >= min(size, MAX_TAIL_BYTES)
            if mark:
                seen = _requests([line for line in lines if mark in line])
                own = [one for one in seen if one.key_id == key_id]  # a question may have the mark in it as well
                if whole or len(own) >= limit:
                    return own[-limit:]
            elif whole or len(lines) >= limit:
                return _requests(lines[-limit:])
            length *= 4


def _requests(lines: list[bytes]) -> list[Seen]:
    seen = []
    for line in lines:
        with contextlib.suppress(*DECODE_ERRORS):  # the exporter logs it
            one = _decoder.decode(line)
            if one.kind == "request":
                seen.append(one)
    return seen


def told(seen: Seen) -> dict[str, Any]:
    """A request for JSON, with times in milliseconds."""
    first = seen.first_byte_unix_ns
    return {
        **{name: getattr(seen, name) for name in _SAME},
        "key": None if is_digest(seen.key_id) else seen.key_id or None,  # a name, and no digest
        "unix": seen.ended_unix_ns / 1e9,
        "milliseconds": {
            "whole": (seen.ended_unix_ns - seen.started_unix_ns) / 1e6,
            "first_byte": None if first is None else (first - seen.started_unix_ns) / 1e6,
            "added": None if seen.added_ns is None else seen.added_ns / 1e6,
        },
    }


_SAME = (
    *("trace_id", "span_id", "endpoint", "asked_model", "status", "model", "stream", "outcome", "attempts", "reason"),
    *("target", "question_type", "quality", "expected_cost_usd", "gap", "novelty", "policy_version", "usage"),
    *("cost_usd", "read_as", "adapted", "verification", "finding", "escalated_from"),
)
