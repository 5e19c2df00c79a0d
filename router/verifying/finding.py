"""What a check finds in an answer, and the interface of every check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from router.verifying.answer import Answer
from router.verifying.expectation import Expectation


class Fault(StrEnum):
    """What is wrong with an answer; the same word in header, record, trace and bill."""

    EMPTY = "empty"  # it has no text, no tool call and nothing else
    REFUSED = "refused"  # the API's `refusal` field is set
    LENGTH = "length"  # the model's own limit, or a default one, cut it off
    FILTERED = "content_filter"
    FAILED = "failed"  # status 200, and an error in the place of an answer
    INTERRUPTED = "interrupted"  # the stream broke off while it was held
    NOT_JSON = "not_json"  # the request asks for JSON
    SCHEMA = "schema"  # JSON that does not conform to the request's schema
    UNKNOWN_TOOL = "unknown_tool"  # a call of a tool that was not offered
    TOOL_ARGUMENTS = "tool_arguments"  # no JSON object, or not as the tool's schema has it
    NO_TOOL_CALL = "no_tool_call"  # `tool_choice` requires one
    PYTHON_SYNTAX = "python_syntax"  # code in a fence that says Python
    JSON_SYNTAX = "json_syntax"  # code in a fence that says JSON
    DOUBTFUL = "doubtful"  # by question and answer, the stronger model likely gives enough of a better one


@dataclass(frozen=True, slots=True)
class Finding:
    """Why an answer does not hold."""

    fault: Fault
    check: str = "form"  # the name of the check that found it


class Check(Protocol):
    """Looks at an answer. It runs in a thread, and bounds its own time and memory."""

    def __call__(self, request: Expectation, answer: Answer) -> Finding | None:
        """What is wrong with the answer; None where nothing is, or where that cannot be decided."""
