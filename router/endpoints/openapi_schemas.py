"""The JSON schemas of bodies and answers in the OpenAPI document. Fields that are not listed may be present."""

from __future__ import annotations

from typing import Any

from router.policy.reasons import Reason
from router.policy.rules import Promise

_STRING: dict[str, Any] = {"type": "string"}
_TEXTS = {"type": "array", "items": _STRING}
_NUMBER: dict[str, Any] = {"type": "number"}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": "boolean"}
_BY_NAME = {"type": "object", "additionalProperties": _NUMBER}
_DAY = {"type": ["string", "null"], "format": "date-time"}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None, words: str = "") -> dict[str, Any]:
    """An object that has the required fields, and may have the optional ones."""
    made = {"type": "object", "required": list(required), "properties": required | (optional or {})}
    return made | {"description": words} if words else made


def _list(of: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{of}"}}


_INTERVAL = _object({"low": _NUMBER, "estimate": _NUMBER, "high": _NUMBER}, words="A 95 % interval.")
_MODEL = {"type": "string", "description": "A routing name such as `auto`, or a model of the upstream."}
_STREAM = {"type": "boolean", "default": False}
_LIMITS = {
    "limits": _BY_NAME,
    "state": {"enum": ["active", "expired", "revoked"]},
    "admin": _FLAG,
    "paths": _TEXTS,
    "models": _TEXTS,
    "created": _DAY,
    "expires": _DAY,
    "revoked": _DAY,
    "replaced_until": {"type": "array", "items": _DAY},
    "team": {"type": ["string", "null"]},
}
_SPENT = {
    "spent_usd_today": {"type": ["number", "null"]},
    "spent_usd_this_month": {"type": ["number", "null"]},
    "last_used": _DAY,
}
_STATUS = {"status": _STRING, "policy": _STRING, "unrecorded_requests": _COUNT, "warnings": _TEXTS}
_UPSTREAMS = {"type": "array", "items": {"type": "object"}}
_SUMS = _object(
    {
        "requests": _COUNT,
        "input_tokens": _COUNT,
        "output_tokens": _COUNT,
        "cost_usd": _NUMBER,
        "unknown_cost_requests": _COUNT,
        "simulated_requests": _COUNT,
        "always_strong_usd": _INTERVAL,
        "saved_usd": _INTERVAL,
    }
)

SCHEMAS: dict[str, Any] = {
    "ChatRequest": _object(
        {"messages": {"type": "array", "items": {"type": "object"}}},
        {"model": _MODEL, "stream": _STREAM, "tools": {"type": "array"}, "max_completion_tokens": _COUNT},
        "A chat completion request. The decision reads these fields; every other field is forwarded.",
    ),
    "ResponsesRequest": _object(
        {},
        {"model": _MODEL, "input": {"type": ["string", "array"]}, "instructions": _STRING, "stream": _STREAM},
        "A Responses API request. The decision reads these fields; every other field is forwarded.",
    ),
    "CompletionRequest": _object(
        {"model": _MODEL, "prompt": {}},
        {"stream": _STREAM, "max_tokens": _COUNT},
        "A legacy completion request. The decision reads these fields; every other field is forwarded.",
    ),
    "PassThrough": {"type": "object", "description": "As the upstream defines it.", "additionalProperties": True},
    "Model": _object({"id": _STRING, "object": {"const": "model"}}, {"created": _COUNT, "owned_by": _STRING}),
    "ModelList": _object({"object": {"const": "list"}, "data": _list("Model")}),
    "Error": _object(
        {
            "error": _object(
                {
                    "message": _STRING,
                    "type": _STRING,
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                }
            )
        },
        words="An error as OpenAI writes it.",
    ),
    "Evidence": _object(
        {
            "kind": {"enum": ["measured", "published", "transferred", "none"]},
            "n": _COUNT,
            "quality": {"type": "object", "additionalProperties": _INTERVAL},
            "quality_difference": _INTERVAL,
            "output_tokens": _BY_NAME,
            "source": _STRING,
        },
        words="What is known of a question type. `quality_difference` is the cheap model's minus the strong model's.",
    ),
    "Decision": _object(
        {
            "model": _STRING,
            "reason": {"enum": [reason.value for reason in Reason]},
            "target": _NUMBER,
            "promise": {"enum": [*(promise.value for promise in Promise), "none"]},
            "question_type": _STRING,
            "quality": _BY_NAME,
            "expected_cost_usd": _BY_NAME,
            "gap": _NUMBER,
            "novelty": _NUMBER,
            "evidence": {"$ref": "#/components/schemas/Evidence"},
            "policy_version": _STRING,
        },
        {
            "asked_model": _STRING,
            "asked": {"type": "object"},
            "adapted": {"type": "object"},
            "likely_types": _BY_NAME,
            "words": {"type": "object"},
        },
        "A decision. `gap` is the quality that the strong model is expected to add, in [-1, 1].",
    ),
    "Policy": _object(
        {
            "version": _STRING,
            "default_target": _NUMBER,
            "models": {"type": "array", "items": {"type": "object"}},
            "targets": {"type": "array", "items": {"type": "object"}},
            "evidence": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Evidence"}},
            "about": {"type": "object"},
        }
    ),
    "Recent": _object({"requests": {"type": "array", "items": {"type": "object"}}}),
    "Usage": _object(
        {"group_by": _TEXTS, "rows": {"type": "array", "items": {"type": "object"}}, "total": _SUMS},
        {"prices": {"type": "array", "items": {"type": "object"}}},
    ),
    "FeedbackRecorded": _object({"recorded": _FLAG, "feedback_id": _STRING, "trace_id": _STRING}),
    "Key": _object({"name": _STRING, **_LIMITS}, _SPENT),
    "NewKey": _object({"name": _STRING, "key": _STRING, **_LIMITS}, words="`key` is the secret, shown this once."),
    "Team": _object({"name": _STRING, "limits": _BY_NAME}, _SPENT),
    "TeamList": _object({"teams": _list("Team"), "may_change": _FLAG, "why": _STRING}),
    "KeyList": _object({"keys": _list("Key"), "may_change": _FLAG, "why": _STRING}),
    "Health": _object(
        {
            **_STATUS,
            "simulated": _FLAG,
            "upstreams": _UPSTREAMS,
            "learnt": {"type": "array", "items": {"type": "object"}},
        }
    ),
    "Ready": _object(
        {**_STATUS, "exporter": {"type": "object"}, "refused": {"type": "object"}, "upstreams": _UPSTREAMS}
    ),
}
