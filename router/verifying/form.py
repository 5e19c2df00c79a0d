"""The check by form: faults that the format of an answer shows, exactly and without a model."""

from __future__ import annotations

from typing import Any

from router.verifying.answer import Answer, Choice, ToolCall
from router.verifying.code import check_code
from router.verifying.expectation import Expectation
from router.verifying.finding import Fault, Finding
from router.verifying.parsing import UndecidedError, parse_json
from router.verifying.schemas import MOST_VALUE_CHARACTERS, conforms

MOST_JSON_CHARACTERS = 2**20


def check_form(request: Expectation, answer: Answer) -> Finding | None:
    """The fault in the form of an answer, or None."""
    if answer.failed:
        return Finding(Fault.FAILED)
    if not answer.choices:
        return Finding(Fault.EMPTY)
    for choice in answer.choices:
        fault = _fault(request, answer, choice)
        if fault is not None:
            return Finding(fault)
    return None


def _fault(request: Expectation, answer: Answer, choice: Choice) -> Fault | None:
    if choice.refusal:
        return Fault.REFUSED
    if choice.finish == "content_filter":
        return Fault.FILTERED
    if choice.finish == "length":
        # the client's own limit would cut the strong model off too; a truncated answer is not checked further
        return None if _is_cut_by_client(request, answer) else Fault.LENGTH
    if not choice.text.strip() and not choice.calls and not choice.has_more:
        return None if request.has_stops else Fault.EMPTY  # the answer may begin with a stop word
    if request.endpoint == "completions":  # continues the client's text, so fences and braces may be open
        return None
    if choice.calls:
        return next((fault for call in choice.calls if (fault := _call_fault(request, call))), None)
    if request.must_call:
        return Fault.NO_TOOL_CALL
    if request.json:
        return None if choice.has_more and not choice.text else _json_fault(request, choice.text)
    return check_code(choice.text, may_be_open=request.has_stops)


def _is_cut_by_client(request: Expectation, answer: Answer) -> bool:
    """Whether the client's limit may have cut the answer off. False if all choices together are shorter."""
    most, written = request.most_tokens, answer.output_tokens
    return most is not None and (written is None or written >= most)


def _call_fault(request: Expectation, call: ToolCall) -> Fault | None:
    if call.custom:
        return None if call.name in request.custom_tools else Fault.UNKNOWN_TOOL
    if call.name not in request.tools:
        return Fault.UNKNOWN_TOOL
    try:
        arguments = _parsed(call.arguments.strip() or "{}")  # some servers omit an empty object
    except UndecidedError:
        return None
    except ValueError:
        return Fault.TOOL_ARGUMENTS
    schema = request.tools[call.name]
    holds = isinstance(arguments, dict) and (schema is None or _conforms(arguments, call.arguments, schema))
    return None if holds else Fault.TOOL_ARGUMENTS


def _json_fault(request: Expectation, text: str) -> Fault | None:
    try:
        value = _parsed(text)
    except UndecidedError:
        return None
    except ValueError:
        return Fault.NOT_JSON
    if request.json == "object" and not isinstance(value, dict):
        return Fault.NOT_JSON
    return None if request.schema is None or _conforms(value, text, request.schema) else Fault.SCHEMA


def _parsed(text: str) -> Any:
    if len(text) > MOST_JSON_CHARACTERS:
        raise UndecidedError
    return parse_json(text)


def _conforms(value: Any, text: str, schema: bytes) -> bool:
    return len(text) > MOST_VALUE_CHARACTERS or conforms(value, schema)
