"""The head of an answer: the upstream's, with what was decided."""

from __future__ import annotations

from collections.abc import Sequence

from router.client.model_names import evidence_headers, header_value
from router.planning.plan import Plan
from router.policy.decision import Reason
from router.upstream.calls import Headers
from router.upstream.replies import Reply
from router.upstream.upstreams import returned_headers

RATES = b"x-ratelimit-"  # how the names of headers begin that tell what is left of a minute


def answer_head(plan: Plan, reply: Reply, trace_id: str, *, length: int | None) -> Headers:
    """The headers of an upstream's answer as the client gets them; `length` where the body is whole."""
    headers = [(n, v) for n, v in returned_headers(reply.headers) if n != b"content-length"]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    headers += decision_head(plan, reply, trace_id)
    return headers


def with_rates(headers: Headers, rates: Sequence[tuple[bytes, bytes]]) -> Headers:
    """The headers with the rates of the client's key in the place of those of the upstream, which are the owner's.

    Without `rates` the headers are returned as they are.
    """
    if not rates:
        return headers
    return [*[h for h in headers if h[0][:12] != RATES], *rates]  # every answer comes by: no call for each header


def decision_head(plan: Plan, reply: Reply | None, trace_id: str) -> Headers:
    """Who answered, and why; before there is a reply, who is asked first."""
    reason, model, adapted = plan.reason, plan.models[0], ""
    told: tuple[tuple[bytes, bytes], ...] = ()
    if reply is not None:
        reason, model, adapted, told = (
            reply.override_reason or reason,
            reply.model,
            reply.adapted,
            reply.verification_headers,
        )
    headers = [
        (b"x-router-model", header_value(model)),
        (b"x-router-reason", reason.encode()),
        (b"x-router-trace-id", trace_id.encode()),
    ]
    if reply is not None and reply.endpoint.is_named:  # else the label is an address, which is not for clients
        headers.append((b"x-router-upstream", reply.endpoint.label.encode()))
    if adapted:
        headers.append((b"x-router-adapted", header_value(adapted)))
    if told:
        headers += told
    if plan.decision is not None:
        headers += evidence_headers(plan.decision, promised=reason is not Reason.SUCCESSOR)
    return headers
