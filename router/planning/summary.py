"""Summaries of a request: its question, and the amounts of material, examples and tools."""

from __future__ import annotations

from typing import Any

from router.policy.decision import Decision
from router.policy.features import Features
from router.policy.inputs import match_tools


def request_counts(features: Features, decision: Decision) -> dict[str, int]:
    """A summary in numbers, for records and the dashboard, which contain no text."""
    parts = decision.parts
    return {
        "question_characters": len(parts.question),
        "material_characters": len(parts.material),
        "examples": parts.examples,
        "tools_offered": len(features.tools),
        "tools_matching": decision.tools_matching,
        "turn": features.turn_count,
    }


def summarize_request(features: Features, decision: Decision) -> dict[str, Any]:
    """A summary with the text of the question, for the client that sent it."""
    counts = request_counts(features, decision)
    del counts["question_characters"]
    return {"question": decision.parts.question, **counts, "cached_model": decision.cached_model}


def matching_tools(features: Features, decision: Decision) -> list[str]:
    """The names of the offered tools that match the question."""
    question = decision.parts.question
    return [tool.partition(" ")[0] for tool in features.tools if match_tools(question, (tool,)).matching]
