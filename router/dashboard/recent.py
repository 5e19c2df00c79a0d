"""The newest requests of all workers: `GET /router/recent`, read from the end of the journal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.client.keyfile import is_digest
from router.client.keys import Keys
from router.journal.segments import listed
from router.journal.tail import newest_lines
from router.journal.writer import Journal, RequestSummary
from router.json_response import json_response
from router.wire.text import DECODE_ERRORS

LIMIT = 50
MAX_TAIL_BYTES = 16 * 2**20  # read of each segment
SEGMENTS = 32  # the newest; each worker has one
SHOWN = (  # fields of the summary that are returned unchanged; they identify no user and no key
    *("trace_id", "span_id", "endpoint", "asked_model", "status", "model", "stream", "outcome", "attempts", "reason"),
    *("target", "question_type", "quality", "expected_cost_usd", "gap", "novelty", "policy_version", "usage"),
    *("cost_usd", "read_as", "adapted", "verification", "finding", "escalated_from"),
)

_decoder = msgspec.json.Decoder(RequestSummary)


class Collaborators(Protocol):
    """What the endpoint works with."""

    keys: Keys
    journal: Journal


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoint."""

    @app.get("/router/recent")
    async def recent(request: Request) -> Response:
        """The newest requests of all workers, newest first. A key without admin rights gets its own requests only."""
        caller = worker.keys.authenticate(request.scope["headers"])
        newest = await run_in_threadpool(newest_requests, worker.journal.directory, LIMIT, caller.own)
        return json_response({"requests": [as_mapping(summary) for summary in newest]})


def newest_requests(directory: Path, limit: int, key_id: str | None = None) -> list[RequestSummary]:
    """The newest requests in a journal, newest first; with `key_id`, only the requests of that key."""
    found: list[RequestSummary] = []
    for segment in listed(directory)[-SEGMENTS:]:
        found += islice(_requests(segment, key_id), limit)
    return sorted(found, key=lambda summary: -summary.ended_unix_ns)[:limit]


def _requests(segment: Path, key_id: str | None) -> Iterator[RequestSummary]:
    """The requests at the end of a segment, newest first."""
    containing = b"" if key_id is None else b'"key_id":' + msgspec.json.encode(key_id)
    for line in newest_lines(segment, containing, MAX_TAIL_BYTES):
        with contextlib.suppress(*DECODE_ERRORS):  # another kind of entry, or a damaged line
            summary = _decoder.decode(line)
            if key_id is None or summary.key_id == key_id:  # a question can contain the same bytes
                yield summary


def as_mapping(summary: RequestSummary) -> dict[str, Any]:
    """A request for JSON, with durations in milliseconds."""
    first_byte = summary.first_byte_unix_ns
    return {
        **{name: getattr(summary, name) for name in SHOWN},
        "key": None if is_digest(summary.key_id) else summary.key_id or None,  # the name of a key, never a digest
        "team": summary.team or None,
        "unix": summary.ended_unix_ns / 1e9,
        "milliseconds": {
            "whole": (summary.ended_unix_ns - summary.started_unix_ns) / 1e6,
            "first_byte": None if first_byte is None else (first_byte - summary.started_unix_ns) / 1e6,
            "added": None if summary.added_ns is None else summary.added_ns / 1e6,
        },
    }
