"""What a request was read as: what was taken for the question, and how much of what else came with it."""

from __future__ import annotations

from typing import Any

from router.policy.decision import Decision
from router.policy.features import Features
from router.policy.inputs import match_tools


def counts_of(features: Features, decision: Decision) -> dict[str, int]:
    """What a request was read as, in numbers: records and the page may hold these, and no text."""
    asked = decision.asked
    return {
        "question_characters": len(asked.question),
        "material_characters": len(asked.material),
        "examples": asked.examples,
        "tools_offered": len(features.tools),
        "tools_matching": decision.tools_matching,
        "turn": features.turn_numbers,
    }


def reading_of(features: Features, decision: Decision) -> dict[str, Any]:
    """What a request was read as, with the text of the question, for the one who sent it."""
    counts = counts_of(features, decision)
    del counts["question_characters"]
    return {"question": decision.asked.question, **counts, "cached_model": decision.cached_model}


def matching_tools(features: Features, decision: Decision) -> list[str]:
    """The names of the offered tools that fit the question."""
    question = decision.asked.question
    return [tool.partition(" ")[0] for tool in features.tools if match_tools(question, (tool,)).matching]
