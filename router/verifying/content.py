"""The check by content: whether an answer likely keeps what the stronger model gives, by what calibration learnt."""

from __future__ import annotations

import msgspec

from router.verifying.answer import Answer, Choice
from router.verifying.expectation import Expectation
from router.verifying.finding import Fault, Finding
from router.wire.text import DECODE_ERRORS


def check_content(request: Expectation, answer: Answer) -> Finding | None:
    """Find the choice that does not hold by its content. What cannot be read counts as holding."""
    if request.holds is None:
        return None
    for choice in answer.choices:
        text = answer_text(choice)
        if text and not request.holds(text):
            return Finding(Fault.DOUBTFUL, "content")
    return None


def answer_text(choice: Choice) -> str:
    """A choice as the predictor of answers reads it: its text, or its tool calls as a JSON list."""
    if not choice.calls:
        return choice.text
    calls = [{"name": call.name, "arguments": _arguments(call.arguments)} for call in choice.calls]
    return msgspec.json.encode(calls).decode()


def _arguments(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except DECODE_ERRORS:
        return text
