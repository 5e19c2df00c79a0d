"""The headers of a response: those of the upstream, and those that describe the decision."""

from __future__ import annotations

from collections.abc import Sequence

from router.client.model_names import evidence_headers, header_value
from router.planning.plan import Plan
from router.policy.reasons import Reason
from router.upstream.calls import Headers
from router.upstream.replies import Reply
from router.upstream.upstreams import returned_headers

RATE_LIMIT_PREFIX = b"x-ratelimit-"


def answer_headers(plan: Plan, reply: Reply, trace_id: str, *, length: int | None) -> Headers:
    """The response headers for an upstream's answer; `length` is the size of a body that is sent as a whole."""
    headers = [(n, v) for n, v in returned_headers(reply.headers) if n != b"content-length"]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    headers += decision_headers(plan, reply, trace_id)
    return headers


def with_rate_limits(headers: Headers, rate_limits: Sequence[tuple[bytes, bytes]]) -> Headers:
    """The headers with the rate limits of the client's key instead of those of the upstream.

    If `rate_limits` is empty, the headers are returned unchanged.
    """
    if not rate_limits:
        return headers
    return [*[h for h in headers if h[0][:12] != RATE_LIMIT_PREFIX], *rate_limits]  # no function call per header


def decision_headers(plan: Plan, reply: Reply | None, trace_id: str) -> Headers:
    """The headers that name the model and the reason. Before there is a reply, the model is the first of the plan."""
    reason, model, adapted = plan.reason, plan.models[0], ""
    verification: tuple[tuple[bytes, bytes], ...] = ()
    if reply is not None:
        reason, model, adapted = reply.override_reason or reason, reply.model, reply.adapted
        verification = reply.verification_headers
    headers = [
        (b"x-router-model", header_value(model)),
        (b"x-router-reason", reason.encode()),
        (b"x-router-trace-id", trace_id.encode()),
    ]
    if reply is not None and reply.endpoint.is_named:  # an address is not shown to clients
        headers.append((b"x-router-upstream", reply.endpoint.label.encode()))
    if adapted:
        headers.append((b"x-router-adapted", header_value(adapted)))
    if verification:
        headers += verification
    if plan.decision is not None:
        headers += evidence_headers(plan.decision, promised=reason is not Reason.SUCCESSOR)
    return headers
