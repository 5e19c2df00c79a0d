"""The findings of checks, and the interface of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from router.verifying.answer import Answer
from router.verifying.expectation import Expectation


class Fault(StrEnum):
    """The fault of an answer; the value appears in headers, records, traces and bills."""

    EMPTY = "empty"  # no text, no tool call and nothing else
    REFUSED = "refused"  # the API's `refusal` field is set
    LENGTH = "length"  # cut off by the model's limit or a default limit
    FILTERED = "content_filter"
    FAILED = "failed"  # status 200 with an error instead of an answer
    INTERRUPTED = "interrupted"  # the stream broke off during verification
    NOT_JSON = "not_json"  # the request requires JSON
    SCHEMA = "schema"  # JSON that does not conform to the request's schema
    UNKNOWN_TOOL = "unknown_tool"  # a call of a tool that the request does not offer
    TOOL_ARGUMENTS = "tool_arguments"  # no JSON object, or it does not conform to the tool's schema
    NO_TOOL_CALL = "no_tool_call"  # `tool_choice` requires one
    PYTHON_SYNTAX = "python_syntax"  # in fenced Python
    JSON_SYNTAX = "json_syntax"  # in fenced JSON
    DOUBTFUL = "doubtful"  # the predictor expects a sufficiently better answer from the stronger model


@dataclass(frozen=True, slots=True)
class Finding:
    """Why an answer fails verification."""

    fault: Fault
    check: str = "form"  # the name of the check that found it


class Check(Protocol):
    """Checks an answer. It runs in a thread and bounds its own time and memory."""

    def __call__(self, request: Expectation, answer: Answer) -> Finding | None:
        """The fault of the answer, or None if it has none or the check cannot decide."""
