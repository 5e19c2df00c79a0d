"""`POST /router/decision` and `GET /router/policy`: explain decisions and the policy. Nothing is sent upstream."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.adaptation.adapter import Adapter
from router.client.body import read_body
from router.client.keys import Keys
from router.json_response import json_response
from router.planning.explanation import explain
from router.planning.summary import summarize_request
from router.policy.decision import Decision, likely_types
from router.policy.document import Policy
from router.policy.rules import Evidence
from router.serving.policy import Serving
from router.settings import Settings


class Collaborators(Protocol):
    """What the endpoints need."""

    keys: Keys
    settings: Settings
    serving: Serving
    adapter: Adapter


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""

    @app.post("/router/decision")
    async def decision(request: Request) -> Response:
        """Return the decision for a chat, responses or completions request, whichever model it names."""
        worker.keys.authenticate(request.scope["headers"])
        settings = worker.settings
        body = await read_body(
            request.receive,
            request.headers.get("content-length", "").encode() or None,
            settings.max_body_bytes,
            settings.timeouts.request_body,
        )
        headers = dict(request.scope["headers"])
        return json_response(await run_in_threadpool(decided, worker, body.skeleton.text, headers))

    @app.get("/router/policy")
    async def policy(request: Request) -> Response:
        """Return the policy in use: models, targets and evidence."""
        worker.keys.authenticate(request.scope["headers"])
        return json_response(describe(worker.serving.policy))


def decided(worker: Collaborators, body: bytes, headers: dict[bytes, bytes]) -> dict[str, Any]:
    """The decision for a request body, as JSON values.

    Raises:
        BadRequestError: the body is invalid.
    """
    explanation = explain(worker.serving, worker.adapter, worker.settings.routed_models, body, headers)
    decision = explanation.decision
    return {
        "asked_model": explanation.requested_model,
        "asked": summarize_request(explanation.features, decision),
        **as_mapping(decision),
        "adapted": dict(explanation.adapted),
        "likely_types": likely_types(decision),
        "words": {"question_type": explanation.type_words, "gap": explanation.gap_words},
    }


def as_mapping(decision: Decision) -> dict[str, Any]:
    """A decision as JSON values."""
    return {
        "model": decision.model,
        "reason": decision.reason.value,
        "target": decision.target,
        "promise": decision.promise.value if decision.promise else "none",
        "question_type": decision.question_type,
        "quality": dict(decision.quality),
        "expected_cost_usd": dict(decision.expected_cost_usd),
        "gap": decision.gap,
        "novelty": decision.novelty,
        "evidence": _evidence(decision.evidence),
        "policy_version": decision.policy_version,
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {
        "kind": evidence.kind,
        "n": evidence.n,
        "quality": {model: interval._asdict() for model, interval in evidence.quality.items()},
        "quality_difference": evidence.quality_difference._asdict(),
        "output_tokens": dict(evidence.output_tokens),
        "source": evidence.source,
    }


def describe(policy: Policy) -> dict[str, Any]:
    """A policy as JSON values, without its weights."""
    rules = policy.rules
    return {
        "version": policy.version,
        "default_target": policy.default_target,
        "least_type_probability": rules.least_type_probability,
        "no_evidence_limit": rules.no_evidence_limit,
        "novelty_limit": rules.novelty_limit,
        "models": [msgspec.to_builtins(model) for model in rules.models],
        "targets": [
            {**msgspec.to_builtins(rule), "expected_saving": rule.expected_saving._asdict()} for rule in rules.targets
        ],
        "evidence": {name: _evidence(evidence) for name, evidence in rules.evidence.items()},
        "about": dict(policy.about),
    }
