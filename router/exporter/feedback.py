"""User feedback: `POST /router/feedback` -> journal -> usage tables -> an assessment of the trace in MLflow.

Feedback takes the same path as records: none is lost while MLflow is down, and none is written twice.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Literal

import msgspec

from router.journal.writer import Feedback

MAX_COMMENT_CHARACTERS = 4000


class FeedbackError(ValueError):
    """The feedback is malformed; the message says how."""


class FeedbackBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /router/feedback`."""

    trace_id: Annotated[str, msgspec.Meta(pattern="^(tr-)?[0-9a-f]{32}$")]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    thumbs: Literal["up", "down"] | None = None
    comment: Annotated[str, msgspec.Meta(max_length=MAX_COMMENT_CHARACTERS)] = ""
    user: Annotated[str, msgspec.Meta(max_length=250)] = ""


_given = msgspec.json.Decoder(FeedbackBody)


def read_feedback(body: bytes) -> Feedback:
    """Parse the body of a feedback request.

    Raises:
        FeedbackError: the body is malformed.
    """
    try:
        given = _given.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FeedbackError(f"feedback: {error}") from error
    if len(given.trace_id.removeprefix("tr-")) != 32:  # the `$` of a pattern also matches before a final newline
        raise FeedbackError("feedback: trace_id must have 32 hexadecimal digits")
    if (given.score is None) == (given.thumbs is None):
        raise FeedbackError("feedback: give either score (0 to 1) or thumbs (up or down)")
    thumbs = given.thumbs or ""
    return Feedback(
        feedback_id=secrets.token_hex(16),
        trace_id=given.trace_id.removeprefix("tr-"),
        unix_ns=time.time_ns(),
        score=given.score if given.score is not None else float(thumbs == "up"),
        thumbs=thumbs,
        comment=given.comment,
        user=given.user,
    )
