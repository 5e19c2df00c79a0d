"""The check by content: a learned predictor estimates whether the cheaper model's answer is good enough."""

from __future__ import annotations

import msgspec

from router.policy.logprobs import summarise_logprobs
from router.verifying.answer import Answer, Choice
from router.verifying.expectation import Expectation
from router.verifying.finding import Fault, Finding
from router.wire.text import DECODE_ERRORS


def check_content(request: Expectation, answer: Answer) -> Finding | None:
    """The finding for the first choice that the predictor rejects. Answers that cannot be read pass."""
    if request.holds is None:
        return None
    for index, choice in enumerate(answer.choices):
        text = answer_text(choice)
        logprobs = summarise_logprobs(text, request.tokens(index)) if text and request.tokens is not None else None
        if text and not request.holds(text, logprobs):
            return Finding(Fault.DOUBTFUL, "content")
    return None


def answer_text(choice: Choice) -> str:
    """The input of the predictor: the text of a choice, or its tool calls as a JSON list."""
    if not choice.calls:
        return choice.text
    calls = [{"name": call.name, "arguments": _arguments(call.arguments)} for call in choice.calls]
    return msgspec.json.encode(calls).decode()


def _arguments(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except DECODE_ERRORS:
        return text
