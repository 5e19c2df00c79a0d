"""From a request's body to what is to be done with it. Pure but for the policy that happens to be served."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from router.adaptation.adapter import Adapter
from router.client.model_names import CONTENT, FORM, parse_model_name
from router.client.user_session import read_user_session
from router.errors import BadRequestError, ModelNotFoundError
from router.policy.answers import answer_holds, decide_first
from router.policy.decision import Decision, Reason, decide, why_unable
from router.policy.document import Policy
from router.policy.features import Features, RequestError
from router.policy.parameters import Adaptation
from router.policy.prediction import predict
from router.serving.policy import Serving
from router.wire import bodies
from router.wire.nesting import MAX_LEVELS, exceeds_depth
from router.wire.parameters import parameter_edits
from router.wire.stream_progress import StreamProgress

Holds = Callable[[str], bool]  # whether an answer, as a text, is passed on
MAX_NAME = 256  # characters of a model's name


class Stream(Protocol):
    """An event stream that is read while it passes."""

    model: str
    usage: dict[str, Any] | None
    service_tier: str
    error: str
    done: bool  # it has said that it is over
    id: str

    def feed(self, chunk: bytes) -> bytes: ...
    def cut_event(self, message: str) -> bytes: ...
    def incomplete_event(self) -> bytes: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def buffered_bytes(self) -> int: ...
    def content(self) -> Any: ...
    def progress(self) -> StreamProgress: ...


@dataclass(frozen=True, slots=True)
class Surface:
    """An endpoint of OpenAI's that is routed: how its requests are read, and its streams."""

    path: bytes  # below the upstream's base URL
    features: Callable[[bodies.Fields], Features]
    asks_for_usage: bool  # whether a stream tells its usage only to those who ask
    stream: Callable[[bool, str | None], Stream]  # given whether to strip usage, and the name to answer with
    needs_model: bool = True  # whether the upstream knows no default of its own
    name: str = field(init=False)  # the path without its first slash

    def __post_init__(self) -> None:
        """Name it."""
        object.__setattr__(self, "name", self.path[1:].decode())


@dataclass(frozen=True, slots=True)
class Request:
    """A body as far as it is read: its top-level fields, where they lie, and the model it names."""

    fields: bodies.Fields
    spans: dict[str, tuple[int, int]]
    name: str  # "" where it names none


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with a request."""

    request: Request
    models: list[str]  # to be tried in turn
    decision: Decision | None
    reason: Reason
    streamed: bool
    asks_usage: bodies.Edit | None  # what makes the stream tell its usage, where the client did not ask for that
    user: str
    session: str
    features: Features | None = None  # what was decided on
    adaptations: Mapping[str, Adaptation] = field(default_factory=dict)  # of models that do not take it as it is
    verify: str = ""  # how the answer is verified, where a stronger model could be asked; "": not at all
    holds: Holds | None = None  # whether an answer of the cheap model is passed on by its content
    stronger: Sequence[str] = ()  # than the model decided on, the next one first; known where the answer is verified

    def edits(self, body: bytes, model: str, adaptation: Adaptation | None) -> Iterator[bodies.Edit]:
        """What is changed in the body for `model`, as its upstream calls it."""
        if self.asks_usage is not None:
            yield self.asks_usage
        if model != self.request.name:
            yield bodies.model_edit(self.request.spans, body, model)
        if adaptation is not None:
            yield from parameter_edits(body, self.request.spans, adaptation.changes)


def read_request(body: bytes, surface: Surface) -> Request:
    """Read a body.

    Raises:
        BadRequestError: it is not a JSON object, nests too deeply, or names no model where one is needed.
    """
    fields = bodies.read_fields(body)
    if exceeds_depth(body):
        raise BadRequestError(f"The body of the request nests deeper than {MAX_LEVELS} levels.")
    spans = bodies.locate_fields(body, fields)
    name = bodies.read_string(fields, "model") or ""
    if not name and (surface.needs_model or "model" in fields):
        raise BadRequestError("you must provide a model parameter", "model")
    return Request(fields, spans, name)


def make_plan(
    surface: Surface,
    serving: Serving,
    adapter: Adapter,
    routed_models: Collection[str],
    request: Request,
    headers: Mapping[bytes, bytes],
    continued: str | None = None,
    floor: float | None = None,
) -> Plan:
    """Decide what is to be done with a request; `continued` is the model whose conversation it goes on with.

    `floor` is the target that is kept instead of a higher one, since the budget of the key is nearly spent.

    Raises:
        BadRequestError: it asks for what is not there, or lacks what the decision is made of.
    """
    fields = request.fields
    if len(request.name) > MAX_NAME or len(headers.get(b"x-router-model", b"")) > MAX_NAME:
        raise ModelNotFoundError(f"No model has a name of more than {MAX_NAME} characters.", "model")
    wish = parse_model_name(request.name, headers, serving.default_target, routed_models, serving.verify)
    models, decision, reason = [wish.forced or request.name], None, Reason.PASSED_THROUGH
    features = holds = None
    adaptations: Mapping[str, Adaptation] = {}
    if wish.target is not None and continued is not None:
        models, reason = [continued], Reason.CONTINUED
        adaptations = {continued: adapter.adaptation(continued, fields, surface.name)}
    elif wish.target is not None:
        features, adaptations = read_features(surface, serving, adapter, fields)
        looks = wish.verify == CONTENT  # every request comes by: no call for what few ask for
        if looks:
            decision, holds = first_step(serving.policy, features, wish.target)
        else:
            decision = decision_for(serving, features, wish.target)
        reason = decision.reason
        if floor is not None and floor < wish.target:
            lower, its = (
                first_step(serving.policy, features, floor) if looks else (decision_for(serving, features, floor), None)
            )
            if lower.model != decision.model:
                decision, reason, holds = lower, Reason.BUDGET, its
        models = candidates(serving.policy, decision, features)
    elif wish.forced:
        reason = Reason.FORCED
    streamed = bodies.is_true(fields, "stream")
    usage = bodies.usage_edit(fields, request.spans) if streamed and surface.asks_for_usage else None
    plan = Plan(
        request, models, decision, reason, streamed, usage, *read_user_session(fields, headers), features, adaptations
    )
    return _verified(plan, holds, serving.policy) if wish.verify and decision is not None else plan


def _verified(plan: Plan, holds: Holds | None, policy: Policy) -> Plan:
    """The plan, with the models that may be asked where the answer does not hold; as it is where there are none."""
    assert plan.decision is not None
    names = [model.name for model in policy.rules.models]
    stronger = [name for name in names[names.index(plan.decision.model) + 1 :] if name in plan.models]
    if not stronger:
        return plan
    return replace(plan, verify=FORM if holds is None else CONTENT, holds=holds, stronger=stronger)


def read_features(
    surface: Surface, serving: Serving, adapter: Adapter, fields: bodies.Fields
) -> tuple[Features, Mapping[str, Adaptation]]:
    """What a decision is made of, and what would be changed in the request for each model.

    Raises:
        BadRequestError: the body lacks what the decision is made of.
    """
    features = features_of(surface, fields)
    adaptations = adapter.adaptations(serving.policy.rules.models, fields, surface.name, features.max_output_tokens)
    if adaptations and (unfit := adapter.unfit(adaptations)):
        features = replace(features, unfit=unfit)
        adaptations = {name: adapter.allowed(needed) for name, needed in adaptations.items()}
    return features, adaptations


def features_of(surface: Surface, fields: bodies.Fields) -> Features:
    """What a decision is made of.

    Raises:
        BadRequestError: the body lacks it.
    """
    try:
        return surface.features(fields)
    except RequestError as error:
        raise BadRequestError(str(error), error.param) from error


def decision_for(serving: Serving, features: Features, target: float) -> Decision:
    """The decision of the policy that is served."""
    policy = serving.policy
    return decide(policy.rules, features, predict(policy.predictor, features), target)


def first_step(policy: Policy, features: Features, target: float) -> tuple[Decision, Holds | None]:
    """The decision where answers are looked at by content, and which answers of the cheap model are passed on.

    None in the place of the latter where the answer is not looked at: the policy knows nothing of answers to such
    questions, or the strong model is asked at once.
    """
    prediction, answers = predict(policy.predictor, features), policy.answers
    if answers is None:
        return decide(policy.rules, features, prediction, target), None
    tried = decide_first(answers, policy.rules, features, prediction, target)
    if not tried.is_looked_at:
        return tried.decision, None
    return tried.decision, partial(answer_holds, answers, policy.rules, features, prediction, target)


def candidates(policy: Policy, decision: Decision, features: Features) -> list[str]:
    """The model decided on and those that stand in for it, as far as they can take the request: the stronger first."""
    models = policy.rules.models
    at = next(n for n, model in enumerate(models) if model.name == decision.model)
    others = (*models[at + 1 :], *reversed(models[:at]))
    return [decision.model, *(model.name for model in others if why_unable(model, features) is None)]
