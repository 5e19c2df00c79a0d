"""The OpenAPI 3.1 document of the HTTP API: OpenAI's endpoints as far as the router reads them, and its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from router.endpoints.keys import KeyChange, KeyCreation, KeyRotation
from router.endpoints.management import LimitChange
from router.endpoints.openapi_schemas import SCHEMAS
from router.endpoints.teams import TeamCreation
from router.exporter.feedback import FeedbackBody
from router.policy.distribution import version
from router.policy.reasons import Reason
from router.policy.rules import Promise

JSON = "application/json"
TAGS = {
    "OpenAI API": "The routed endpoints, and everything else below `/v1`, which passes through.",
    "Decisions": "What the router decides, and by which policy.",
    "Usage": "What requests cost, and what users think of the answers.",
    "Keys": "The named keys, and the teams that share limits. Admin keys only.",
    "Operations": "Health, metrics and the page.",
}
ROUTING_HEADERS = {
    "x-router-target": "The target of this request: above 0 and up to 1, or a routing name such as `auto-cost`.",
    "x-router-model": "Send this request to this model, whatever the body names.",
    "x-router-verify": "Check the answer of a cheaper model before it is sent: `form`, `content` or `off`.",
    "x-session-id": "The session of the request, for usage, traces and upstream affinity.",
    "x-user-id": "The user of the request, for usage and traces.",
    "traceparent": "The W3C trace context of the caller. The trace of the request continues it.",
}
ANSWER_HEADERS = {
    "x-router-model": "The model that answers.",
    "x-router-reason": f"Why this model answers: one of {', '.join(f'`{reason}`' for reason in Reason)}.",
    "x-router-trace-id": "The trace of the request, for `POST /router/feedback` and MLflow.",
    "x-router-type": "The question type. Routed requests only.",
    "x-router-evidence": "The kind of evidence, its size, and each model's quality with a 95 % interval.",
    "x-router-promise": f"What stands behind the target: {', '.join(f'`{promise}`' for promise in Promise)} or `none`.",
    "x-router-policy": "The version of the policy that decided.",
    "x-router-adapted": "What the router changed in the request for the model.",
    "x-router-upstream": "The upstream that answered, where a model has several that are labelled.",
    "x-router-verified": "What was checked in the answer: `form` or `content`.",
    "x-router-escalated": "The fault of the first answer, which a stronger model's answer replaces.",
    "x-router-finding": "The fault of the answer, where no stronger model answered.",
}
ERRORS = {
    400: "The request cannot be read, or asks for something that does not exist.",
    401: "The key is missing, unknown, expired, replaced or revoked.",
    403: "The key has no right to this request, or a web page of another site sent it.",
    404: "There is no such model, trace or key, or this key has no access to it.",
    409: "The name is in use, or the key has ended.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "The key has reached a limit or spent its budget.",
    502: "No upstream could be reached, or its answer broke off.",
    503: "The worker is overloaded, or a store that the answer needs cannot be read.",
    504: "The upstream did not answer in time.",
    507: "The disk is full; nothing was recorded.",
}


def document() -> dict[str, Any]:
    """The document. Paths are in the order in which a reader meets them."""
    forms = msgspec.json.schema_components(
        (KeyCreation, KeyChange, KeyRotation, TeamCreation, LimitChange, FeedbackBody),
        ref_template="#/components/schemas/{name}",
    )
    errors = {str(status): _error(words) for status, words in ERRORS.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Calibrated router",
            "version": version(),
            "summary": "An OpenAI-compatible proxy that sends each request to the cheapest model that is good enough.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {}],
        "tags": [{"name": name, "description": words} for name, words in TAGS.items()],
        "paths": {**_openai_paths(), **_own_paths()},
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A named key, or one of ROUTER_API_KEYS. A router without any key needs none, and "
                    "serves loopback only. The header `api-key` is accepted as well.",
                }
            },
            "headers": {name: {"description": words, "schema": _STRING} for name, words in ANSWER_HEADERS.items()},
            "responses": errors,
            "schemas": {**SCHEMAS, **forms[1]},
        },
    }


_STRING = {"type": "string"}


def _openai_paths() -> dict[str, Any]:
    routed = {
        "/v1/chat/completions": ("Chat completion", "ChatRequest"),
        "/v1/responses": ("Response", "ResponsesRequest"),
        "/v1/completions": ("Legacy completion", "CompletionRequest"),
    }
    passed = ["get", "post", "put", "patch", "delete"]
    return {
        **{path: {"post": _routed(*described)} for path, described in routed.items()},
        "/v1/embeddings": {
            "post": _operation(
                "OpenAI API",
                "Embeddings",
                "Passes through. The router reads the usage of the answer.",
                body="PassThrough",
                answer="PassThrough",
                errors=(401, 403, 404, 415, 429, 502, 503, 504),
            )
        },
        "/v1/models": {
            "get": _operation(
                "OpenAI API",
                "List models",
                "The upstream's models, with the routing names first. A key with `--models` sees its own models.",
                answer="ModelList",
                errors=(401, 403, 502),
            )
        },
        "/v1/models/{name}": {
            "parameters": [_parameter("name", "path", "A model or a routing name, such as `auto@0.9`.")],
            "get": _operation(
                "OpenAI API", "Retrieve a model", "One model.", answer="Model", errors=(401, 403, 404, 502)
            ),
        },
        "/v1/{path}": {
            "parameters": [_parameter("path", "path", "Any other path of the OpenAI API; it may contain slashes.")],
            **{
                method: _operation(
                    "OpenAI API",
                    f"Any other {method.upper()} request",
                    "Passes through unchanged. Named keys need the right `account`.",
                    answer="PassThrough",
                    errors=(400, 401, 403, 413, 502, 503, 504),
                )
                for method in passed
            },
        },
    }


def _routed(summary: str, form: str) -> dict[str, Any]:
    made = _operation(
        "OpenAI API",
        summary,
        "A routing name (`auto`, `auto-quality`, `auto-balanced`, `auto-cost`, `auto@TARGET`, each also with "
        "`+verify`) is routed. Any other model passes through. Fields that the router does not read reach the model "
        "unchanged. An error of the upstream is returned with its status, body and headers.",
        body=form,
        answer="PassThrough",
        errors=(400, 401, 403, 404, 413, 415, 429, 502, 503, 504),
    )
    made["parameters"] = [_parameter(name, "header", words) for name, words in ROUTING_HEADERS.items()]
    answer = made["responses"]["200"]
    answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in ANSWER_HEADERS}
    answer["content"]["text/event-stream"] = {"schema": _STRING}
    return made


def _own_paths() -> dict[str, Any]:
    name = _parameter("name", "path", "The name of the key.")
    days = [
        _parameter("from", "query", "The first day or moment in UTC, such as `2026-11-01`."),
        _parameter("to", "query", "The last day, included, or the moment before which requests count."),
        _parameter(
            "group_by", "query", "Any of model, type, key, team, day, user, reason, policy, finding; comma-separated."
        ),
        _parameter("format", "query", "`json` (default) or `csv`."),
    ]
    decided = (
        "The decision for a chat, responses or completions body, whatever model it names. Nothing is sent upstream."
    )
    return {
        "/router/decision": {
            "post": _operation(
                "Decisions", "Explain a decision", decided, "ChatRequest", "Decision", errors=(400, 401, 413)
            )
        },
        "/router/policy": {
            "get": _operation("Decisions", "Show the policy", "Models, targets and evidence.", answer="Policy")
        },
        "/router/recent": {
            "get": _operation(
                "Decisions",
                "List recent requests",
                "The last 50 requests, the newest first, without their content. A named key sees its own requests.",
                answer="Recent",
            )
        },
        "/router/usage": {
            "get": {
                **_operation(
                    "Usage",
                    "Sum up usage",
                    "Requests, tokens and dollars. A named key sees its own requests.",
                    answer="Usage",
                    errors=(400, 401, 503),
                ),
                "parameters": days,
            }
        },
        "/router/feedback": {
            "post": _operation(
                "Usage",
                "Rate an answer",
                "Exactly one of `score` and `thumbs` is required. The feedback is on disk when the request returns.",
                "FeedbackBody",
                "FeedbackRecorded",
                success=202,
                errors=(400, 401, 404, 507),
            )
        },
        "/router/overview": {
            "get": {
                **_operation(
                    "Usage",
                    "Show the figures of the page",
                    "Sums of this router by minute, hour or day. The form may change between versions.",
                    answer="PassThrough",
                    errors=(400, 401, 403, 503),
                ),
                "parameters": [_parameter("window", "query", "`hour` (default), `day`, `week` or `month`.")],
            }
        },
        "/router/keys": {
            "get": _operation(
                "Keys", "List keys", "Every key without its secret.", answer="KeyList", errors=(401, 403, 503)
            ),
            "post": _operation(
                "Keys",
                "Add a key",
                "The secret is in this answer and nowhere else.",
                "KeyCreation",
                "NewKey",
                success=201,
                errors=(400, 401, 403, 409, 503),
            ),
        },
        "/router/keys/{name}": {
            "parameters": [name],
            "get": _operation("Keys", "Show a key", "One key without its secret.", answer="Key", errors=_KEY_ERRORS),
            "patch": _operation(
                "Keys",
                "Change the limits or the team of a key",
                '`"none"` removes a limit.',
                "KeyChange",
                "Key",
                errors=_KEY_ERRORS,
            ),
            "delete": _operation(
                "Keys", "Revoke a key", "Requests in flight are answered.", answer="Key", errors=_KEY_ERRORS
            ),
        },
        "/router/keys/{name}/rotate": {
            "parameters": [name],
            "post": _operation(
                "Keys",
                "Rotate a key",
                "Replaces the secret. The previous secret stays valid for `grace`.",
                "KeyRotation",
                "NewKey",
                errors=_KEY_ERRORS,
            ),
        },
        "/router/teams": {
            "get": _operation("Keys", "List teams", "Every team.", answer="TeamList", errors=(401, 403, 503)),
            "post": _operation(
                "Keys",
                "Add a team",
                "Keys of a team share its limits.",
                "TeamCreation",
                "Team",
                success=201,
                errors=(400, 401, 403, 409, 503),
            ),
        },
        "/router/teams/{name}": {
            "parameters": [_parameter("name", "path", "The name of the team.")],
            "get": _operation("Keys", "Show a team", "One team.", answer="Team", errors=_KEY_ERRORS),
            "patch": _operation(
                "Keys",
                "Change the limits of a team",
                '`"none"` removes a limit.',
                "LimitChange",
                "Team",
                errors=_KEY_ERRORS,
            ),
            "delete": _operation(
                "Keys", "Remove a team", "Refused while the team has active keys.", answer="Team", errors=_KEY_ERRORS
            ),
        },
        "/health": {
            "get": _operation(
                "Operations", "Liveness", "The process answers. Needs no key.", answer="Health", errors=(), keyed=False
            )
        },
        "/ready": {"get": _ready()},
        "/metrics": {
            "get": _operation(
                "Operations", "Metrics", "Prometheus text or OpenMetrics.", content="text/plain", errors=(401, 403)
            )
        },
        "/openapi.json": {
            "get": _operation(
                "Operations", "This document", "Needs no key.", answer="PassThrough", errors=(), keyed=False
            )
        },
        "/": {
            "get": _operation("Operations", "The page", "The dashboard.", content="text/html", errors=(), keyed=False)
        },
    }


_KEY_ERRORS = (400, 401, 403, 404, 409, 503)


def _ready() -> dict[str, Any]:
    made = _operation(
        "Operations",
        "Readiness",
        "The worker accepts requests. The status is 503 after SIGTERM. Needs no key.",
        answer="Ready",
        errors=(),
        keyed=False,
    )
    made["responses"]["503"] = made["responses"]["200"] | {"description": "The worker is shutting down."}
    return made


def _operation(
    tag: str,
    summary: str,
    description: str,
    body: str = "",
    answer: str = "",
    *,
    content: str = JSON,
    success: int = 200,
    errors: tuple[int, ...] = (401,),
    keyed: bool = True,
) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{answer}"} if answer else _STRING
    made: dict[str, Any] = {"tags": [tag], "summary": summary, "description": description}
    if body:
        form = {"schema": {"$ref": f"#/components/schemas/{body}"}}
        made["requestBody"] = {"required": True, "content": {JSON: form}}
    made["responses"] = {
        str(success): {"description": "Success.", "content": {content: {"schema": schema}}},
        **{str(status): {"$ref": f"#/components/responses/{status}"} for status in errors},
    }
    return made if keyed else made | {"security": []}


def _parameter(name: str, where: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": _STRING}


def _error(description: str) -> Mapping[str, Any]:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": description, "content": content}
