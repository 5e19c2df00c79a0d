"""A request as it goes to each model that is asked, and what is done where one refuses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from router.adaptation.adapter import Adapter
from router.errors import ClientDisconnectedError
from router.planning.affinity import affinity_key, names_files, names_state
from router.planning.plan import Plan
from router.policy.decision import Model, Reason
from router.policy.naming import without_effort
from router.policy.parameters import UNCHANGED
from router.policy.refusals import STATUSES, Kind, Refusal, read_refusal
from router.upstream.attempts import ModelSequence
from router.upstream.calls import Call, Headers
from router.upstream.endpoints import Endpoint
from router.upstream.order import order_endpoints
from router.upstream.replies import Reply
from router.upstream.upstreams import Upstreams
from router.wire import bodies
from router.wire.skeleton import Skeleton
from router.wire.stream_errors import first_error

MOST_LESSONS = 8  # parameters that one request may teach of one model


class Sending:
    """One request on its way to the models of its plan."""

    def __init__(
        self,
        plan: Plan,
        endpoint: str,
        path: bytes,
        given: Headers,
        pieces: Sequence[bytes],
        where: Skeleton,
        upstreams: Upstreams,
        adapter: Adapter,
        models: Sequence[Model],
        fallbacks: Sequence[str],
        left: Callable[[], bool] | None,
        holder: Endpoint | None = None,
    ) -> None:
        """`path` is below the upstream's base URL, `given` the client's headers, `models` those of the policy.

        `holder` is the upstream that holds what the request goes on with, where that is known.
        """
        self._plan = plan
        self._endpoint = endpoint
        self._path = path
        self._given = given
        self._pieces = pieces
        self._where = where
        self._upstreams = upstreams
        self._adapter = adapter
        self._models = models
        self._fallbacks = fallbacks
        self._left = left
        self._holder = holder
        self._adaptations = dict(plan.adaptations)
        self._lessons = 0
        self.routed = plan.reason not in (Reason.PASSED_THROUGH, Reason.FORCED)  # what is named passes untouched

    def first_models(self) -> ModelSequence:
        """Whom to ask: the models of the plan, and for one that is known to be gone the one that follows it."""
        plan = self._plan
        if self.routed and self._adapter.is_gone(plan.models[0]):
            found = self._followed(plan.models[0], plan.models[1:])
            if found is not None:
                return found
        return ModelSequence(plan.models, None)

    @property
    def needs_state(self) -> bool:
        """Whether the request refers to what only one upstream may hold, such as an earlier response."""
        return names_state(self._plan.request.fields, self._where.text)

    def order_endpoints(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        """The upstreams of a model in the order in which they are asked; only the one that holds what is gone on with.

        Files were sent to the default upstream, so what refers to them is asked there first.
        """
        holder = self._holder
        if holder is not None and (there := [each for each in endpoints if each.is_same_account(holder)]):
            return there
        ordered = order_endpoints(endpoints, affinity_key(self._plan.request.fields, self._plan.session))
        if names_files(self._where.text):
            ordered.sort(key=lambda endpoint: not endpoint.is_same_account(self._upstreams.default))
        return ordered

    def build_call(self, model: str, endpoint: Endpoint) -> Call:
        """The request as `model` gets it at one of its upstreams.

        Raises:
            ClientDisconnectedError: nothing is asked for nobody.
        """
        if self._left is not None and self._left():
            raise ClientDisconnectedError
        upstreams, where = self._upstreams, self._where
        sent = endpoint.model or (without_effort(model) if self.routed and ":" in model else model)
        edits = [
            bodies.Edit(where.in_body(start), where.in_body(stop), text)
            for start, stop, text in self._plan.edits(where.text, sent, self._adaptations.get(model))
        ]
        return Call(
            b"POST",
            self._path,
            upstreams.request_headers(endpoint, self._given, readable=True),
            bodies.apply_edits(self._pieces, edits) if edits else self._pieces,
        )

    def told(self, model: str) -> str:
        """What was changed in the request for `model`, in words; "" where nothing was."""
        adaptation = self._adaptations.get(model)
        return "" if adaptation is None else adaptation.told

    def next_models(self, model: str, reply: Reply, left: Sequence[str]) -> ModelSequence | None:
        """Whom to ask after an error of `model`: itself with the request mended, or others; None where it passes on."""
        refusal = self._refusal(reply) if self.routed else None
        if refusal is None:
            return None
        if refusal.kind is Kind.GONE:
            self._adapter.gone(model)
            return self._followed(model, left)
        if refusal.kind in (Kind.CONTEXT, Kind.CONTENT):
            return self._elsewhere(model, refusal.kind, left)
        if self._adapter.adapts and self._lessons < MOST_LESSONS:
            self._lessons += 1
            self._adapter.learn(model, refusal, self._endpoint)
            adaptation = self._adapter.adaptation(model, self._plan.request.fields, self._endpoint)
            if adaptation != self._adaptations.get(model, UNCHANGED):
                self._adaptations[model] = adaptation
                return ModelSequence([model, *left], None)
        return None

    def _refusal(self, reply: Reply) -> Refusal | None:
        """What an answer refuses, also where a stream begins with the error; None for an answer that is passed on."""
        if reply.answer is None:
            return read_refusal(reply.status, reply.body) if reply.status in STATUSES else None
        error = first_error(reply.body) if reply.status == 200 else None
        return None if error is None else read_refusal(400, error)

    def _followed(self, model: str, left: Sequence[str]) -> ModelSequence | None:
        passed, successor = {model}, self._successor(model)
        while successor not in passed and self._adapter.is_gone(successor):
            passed.add(successor)
            successor = self._successor(successor)
        if successor and successor not in passed:
            self._adapt(successor)
            return ModelSequence([successor, *(each for each in left if each != successor)], Reason.SUCCESSOR)
        return ModelSequence(left, Reason.FALLBACK) if left else None

    def _successor(self, model: str) -> str:
        known = next((each for each in self._models if each.name == model), None)
        return self._adapter.successor(known, model)

    def _adapt(self, model: str) -> None:
        adaptation = self._adapter.adaptation(model, self._plan.request.fields, self._endpoint)
        if adaptation is not UNCHANGED:
            self._adaptations[model] = adaptation

    def _elsewhere(self, model: str, kind: Kind, left: Sequence[str]) -> ModelSequence | None:
        """Another model that may take what this one refused; for a request that is too long, one that holds more."""
        if kind.value not in self._fallbacks:
            return None
        if kind is Kind.CONTENT:
            return ModelSequence(left, Reason.FALLBACK) if left else None
        holds = {each.name: each.context_tokens for each in self._models}
        larger = [each for each in left if holds.get(each, 0) > holds.get(model, 0)]
        return ModelSequence(larger, Reason.CONTEXT_WINDOW) if larger else None
