"""A request as it is sent to each model, and the models that are tried after an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from router.adaptation.adapter import Adapter
from router.errors import ClientDisconnectedError
from router.planning.affinity import affinity_key, names_files, names_state
from router.planning.plan import Plan
from router.policy.naming import without_effort
from router.policy.parameters import UNCHANGED
from router.policy.reasons import Reason
from router.policy.refusals import STATUSES, Refusal, RefusalKind, read_refusal
from router.policy.rules import Model
from router.upstream.attempts import ModelSequence
from router.upstream.calls import Call, Headers
from router.upstream.endpoints import Endpoint
from router.upstream.order import order_endpoints
from router.upstream.replies import Reply
from router.upstream.upstreams import Upstreams
from router.wire import bodies
from router.wire.skeleton import Skeleton
from router.wire.stream_errors import first_error

MAX_LESSONS = 8  # parameters that the router learns from the errors to one request, per model


class OutgoingRequest:
    """One request to the models of its plan. Implements `upstream.attempts.Outgoing`."""

    def __init__(
        self,
        plan: Plan,
        endpoint: str,
        path: bytes,
        client_headers: Headers,
        pieces: Sequence[bytes],
        skeleton: Skeleton,
        upstreams: Upstreams,
        adapter: Adapter,
        models: Sequence[Model],
        fallbacks: Sequence[str],
        is_disconnected: Callable[[], bool] | None,
        pinned_endpoint: Endpoint | None = None,
    ) -> None:
        """`path` is relative to the upstream's base URL, `pieces` is the body, `models` are those of the policy.

        `pinned_endpoint` is the upstream that stores the response or conversation that the request continues.
        """
        self._plan = plan
        self._endpoint = endpoint
        self._path = path
        self._client_headers = client_headers
        self._pieces = pieces
        self._skeleton = skeleton
        self._upstreams = upstreams
        self._adapter = adapter
        self._models = models
        self._fallbacks = fallbacks
        self._is_disconnected = is_disconnected
        self._pinned_endpoint = pinned_endpoint
        self._adaptations = dict(plan.adaptations)
        self._lessons = 0
        self.is_routed = plan.reason not in (Reason.PASSED_THROUGH, Reason.FORCED)  # a named model is not replaced

    def first_models(self) -> ModelSequence:
        """The models of the plan. If the first one is known to be shut down, its successor replaces it."""
        plan = self._plan
        if self.is_routed and self._adapter.is_missing(plan.models[0]):
            following = self._after_shutdown(plan.models[0], plan.models[1:])
            if following is not None:
                return following
        return ModelSequence(plan.models, None)

    @property
    def needs_state(self) -> bool:
        """Whether the request refers to stored data of one upstream, such as an earlier response."""
        return names_state(self._plan.request.fields, self._skeleton.text)

    def order_endpoints(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """The upstreams of a model in the order in which they are tried.

        If the request continues stored data, only the upstream that stores it is tried. Files are uploaded to the
        default upstream, so a request that refers to files tries that one first.
        """
        pinned = self._pinned_endpoint
        if pinned is not None and (same := [endpoint for endpoint in endpoints if endpoint.is_same_account(pinned)]):
            return same
        ordered = order_endpoints(endpoints, affinity_key(self._plan.request.fields, self._plan.session))
        if names_files(self._skeleton.text):
            ordered.sort(key=lambda endpoint: not endpoint.is_same_account(self._upstreams.default))
        return ordered

    def build_call(self, model: str, endpoint: Endpoint) -> Call:
        """The request for `model` at one of its upstreams.

        Raises:
            ClientDisconnectedError: the client has disconnected.
        """
        if self._is_disconnected is not None and self._is_disconnected():
            raise ClientDisconnectedError
        upstreams, skeleton = self._upstreams, self._skeleton
        name = endpoint.model or (without_effort(model) if self.is_routed and ":" in model else model)
        edits = [
            bodies.Edit(skeleton.in_body(start), skeleton.in_body(stop), text)
            for start, stop, text in self._plan.edits(skeleton.text, name, self._adaptations.get(model))
        ]
        return Call(
            b"POST",
            self._path,
            upstreams.request_headers(endpoint, self._client_headers, readable=True),
            bodies.apply_edits(self._pieces, edits) if edits else self._pieces,
        )

    def describe_changes(self, model: str) -> str:
        """A description of the parameters that were changed for `model`; "" if there are none."""
        adaptation = self._adaptations.get(model)
        return "" if adaptation is None else adaptation.description

    def next_models(self, model: str, reply: Reply, remaining: Sequence[str]) -> ModelSequence | None:
        """The models to try after a reply of `model`; None if the reply is returned to the client.

        After an error about a parameter, `model` itself is tried again with the parameter changed.
        """
        refusal = self._read_refusal(reply) if self.is_routed else None
        if refusal is None:
            return self._without_logprobs(model, remaining) if reply.status in (400, 422) else None
        if refusal.kind is RefusalKind.MODEL_NOT_FOUND:
            self._adapter.mark_missing(model)
            return self._after_shutdown(model, remaining)
        if refusal.kind in (RefusalKind.CONTEXT, RefusalKind.CONTENT):
            return self._fallback(model, refusal.kind, remaining)
        if self._adapter.adapts and self._lessons < MAX_LESSONS:
            self._lessons += 1
            self._adapter.learn(model, refusal, self._endpoint)
            adaptation = self._adapter.adaptation(model, self._plan.request.fields, self._endpoint)
            if adaptation != self._adaptations.get(model, UNCHANGED):
                self._adaptations[model] = adaptation
                return ModelSequence([model, *remaining], None)
        return None

    def _without_logprobs(self, model: str, remaining: Sequence[str]) -> ModelSequence | None:
        """`model` again, without the log probabilities that only the router requests; None if it requests none."""
        change, adaptation = self._plan.logprobs.change, self._adaptations.get(model, UNCHANGED)
        if change is None or change not in adaptation.changes:
            return None
        changes = tuple(other for other in adaptation.changes if other is not change)
        self._adaptations[model] = replace(adaptation, changes=changes)
        return ModelSequence([model, *remaining], None)

    def _read_refusal(self, reply: Reply) -> Refusal | None:
        """The reason for which a reply refuses the request, also if a stream starts with an error; None otherwise."""
        if reply.answer is None:
            return read_refusal(reply.status, reply.body) if reply.status in STATUSES else None
        error = first_error(reply.body) if reply.status == 200 else None
        return None if error is None else read_refusal(400, error)

    def _after_shutdown(self, model: str, remaining: Sequence[str]) -> ModelSequence | None:
        visited, successor = {model}, self._successor(model)
        while successor not in visited and self._adapter.is_missing(successor):
            visited.add(successor)
            successor = self._successor(successor)
        if successor and successor not in visited:
            self._adapt(successor)
            return ModelSequence([successor, *(name for name in remaining if name != successor)], Reason.SUCCESSOR)
        return ModelSequence(remaining, Reason.FALLBACK) if remaining else None

    def _successor(self, name: str) -> str:
        known = next((model for model in self._models if model.name == name), None)
        return self._adapter.successor(known, name)

    def _adapt(self, model: str) -> None:
        adaptation = self._adapter.adaptation(model, self._plan.request.fields, self._endpoint)
        if adaptation is not UNCHANGED:
            self._adaptations[model] = adaptation

    def _fallback(self, model: str, kind: RefusalKind, remaining: Sequence[str]) -> ModelSequence | None:
        """The remaining models that may accept a request that `model` refused because of its length or content."""
        if kind.value not in self._fallbacks:
            return None
        if kind is RefusalKind.CONTENT:
            return ModelSequence(remaining, Reason.FALLBACK) if remaining else None
        context_tokens = {known.name: known.context_tokens for known in self._models}
        larger = [name for name in remaining if context_tokens.get(name, 0) > context_tokens.get(model, 0)]
        return ModelSequence(larger, Reason.CONTEXT_WINDOW) if larger else None
