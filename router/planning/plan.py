"""Plans how a request is answered: the models to try, the changes to its body, and the verification. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from msgspec import structs

from router.adaptation.adapter import Adapter
from router.client.model_names import CONTENT, FORM, parse_model_name
from router.client.user_session import read_user_session
from router.errors import BadRequestError, ModelNotFoundError
from router.planning.logprobs import UNAVAILABLE, LogprobsRequest, plan_logprobs
from router.policy.answers import accepts_answer, decide_first_step
from router.policy.decision import Decision, decide
from router.policy.document import Policy
from router.policy.features import Features, RequestError
from router.policy.guards import capability_guard
from router.policy.logprobs import Logprobs
from router.policy.parameters import Adaptation
from router.policy.prediction import predict
from router.policy.reasons import Reason
from router.serving.policy import Serving
from router.wire import bodies
from router.wire.nesting import MAX_LEVELS, exceeds_depth
from router.wire.parameters import parameter_edits
from router.wire.stream_progress import StreamProgress

AnswerCheck = Callable[[str, Logprobs | None], bool]  # whether to return an answer, given text and log probabilities
MAX_NAME = 256  # characters of a model's name


class Stream(Protocol):
    """An event stream that is read while it is forwarded."""

    model: str
    usage: dict[str, Any] | None
    service_tier: str
    error: str
    done: bool  # whether the stream has sent its final event
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
class ApiFormat:
    """An endpoint of OpenAI's API that is routed, with the readers of its requests and streams."""

    path: bytes  # below the upstream's base URL
    read_features: Callable[[bodies.Fields], Features]
    usage_on_request: bool  # whether a stream reports usage only if the request asks for it
    stream: Callable[[bool, str | None], Stream]  # (whether to remove usage, model name to report)
    needs_model: bool = True  # whether a request must name a model
    name: str = field(init=False)  # the path without its first slash

    def __post_init__(self) -> None:
        """Derive the name."""
        object.__setattr__(self, "name", self.path[1:].decode())


@dataclass(frozen=True, slots=True)
class Request:
    """A request's top-level fields, their positions in the body, and the requested model."""

    fields: bodies.Fields
    spans: dict[str, tuple[int, int]]  # start and end of each value, in bytes
    name: str  # of the model; "" if missing


@dataclass(frozen=True, slots=True)
class Plan:
    """How a request is answered."""

    request: Request
    models: list[str]  # in the order in which they are tried
    decision: Decision | None
    reason: Reason
    streamed: bool
    usage_edit: bodies.Edit | None  # makes the stream report usage if the client did not request it
    user: str
    session: str
    features: Features | None = None  # that the decision is based on
    adaptations: Mapping[str, Adaptation] = field(default_factory=dict)  # by model, if it requires changes
    verify: str = ""  # how the answer is verified; "" for not at all
    accepts_answer: AnswerCheck | None = None  # the check of the cheap model's answer by content
    logprobs: LogprobsRequest = UNAVAILABLE  # of the chosen model, if the check by content reads them
    stronger_models: Sequence[str] = ()  # than the chosen model, the weakest first; empty without verification

    def edits(self, body: bytes, model: str, adaptation: Adaptation | None) -> Iterator[bodies.Edit]:
        """The edits of the body for `model`, by its name at the upstream."""
        if self.usage_edit is not None:
            yield self.usage_edit
        if model != self.request.name:
            yield bodies.model_edit(self.request.spans, body, model)
        if adaptation is not None:
            yield from parameter_edits(body, self.request.spans, adaptation.changes)


def read_request(body: bytes, api_format: ApiFormat) -> Request:
    """Read the top-level fields of a body.

    Raises:
        BadRequestError: the body is not a JSON object, nests too deeply, or lacks a required model.
    """
    fields = bodies.read_fields(body)
    if exceeds_depth(body):
        raise BadRequestError(f"The body of the request nests deeper than {MAX_LEVELS} levels.")
    spans = bodies.locate_fields(body, fields)
    name = bodies.read_string(fields, "model") or ""
    if not name and (api_format.needs_model or "model" in fields):
        raise BadRequestError("you must provide a model parameter", "model")
    return Request(fields, spans, name)


def make_plan(
    api_format: ApiFormat,
    serving: Serving,
    adapter: Adapter,
    routed_models: Collection[str],
    request: Request,
    headers: Mapping[bytes, bytes],
    continued_model: str | None = None,
    budget_target: float | None = None,
) -> Plan:
    """Decide how a request is answered.

    `continued_model` is the model whose response the request continues. `budget_target` replaces a higher target when
    the budget of the key is nearly spent.

    Raises:
        BadRequestError: the request is invalid, or lacks a field that the decision needs.
        ModelNotFoundError: the name of the model is too long.
    """
    fields = request.fields
    if len(request.name) > MAX_NAME or len(headers.get(b"x-router-model", b"")) > MAX_NAME:
        raise ModelNotFoundError(f"No model has a name of more than {MAX_NAME} characters.", "model")
    routing = parse_model_name(request.name, headers, serving.default_target, routed_models, serving.verify)
    models, decision, reason = [routing.forced or request.name], None, Reason.PASSED_THROUGH
    features = accepts = None
    logprobs = UNAVAILABLE
    adaptations: Mapping[str, Adaptation] = {}
    if routing.target is not None and continued_model is not None:
        models, reason = [continued_model], Reason.CONTINUED
        adaptations = {continued_model: adapter.adaptation(continued_model, fields, api_format.name)}
    elif routing.target is not None:
        features, adaptations = read_features(api_format, serving, adapter, fields)
        inspects = routing.verify == CONTENT  # without it, the hot path takes no additional call
        if inspects:
            logprobs = plan_logprobs(serving.policy, adapter, fields, api_format.name)
            decision, accepts = first_step(serving.policy, features, routing.target, logprobs.is_available)
        else:
            decision = decision_for(serving, features, routing.target)
        reason = decision.reason
        if budget_target is not None and budget_target < routing.target:
            cheaper, cheaper_accepts = (
                first_step(serving.policy, features, budget_target, logprobs.is_available)
                if inspects
                else (decision_for(serving, features, budget_target), None)
            )
            if cheaper.model != decision.model:
                decision, reason, accepts = cheaper, Reason.BUDGET, cheaper_accepts
        models = candidate_models(serving.policy, decision, features)
    elif routing.forced:
        reason = Reason.FORCED
    streamed = bodies.is_true(fields, "stream")
    usage = bodies.usage_edit(fields, request.spans) if streamed and api_format.usage_on_request else None
    plan = Plan(
        request, models, decision, reason, streamed, usage, *read_user_session(fields, headers), features, adaptations
    )
    if not routing.verify or decision is None:
        return plan
    return _with_verification(plan, accepts, logprobs, serving.policy)


def _with_verification(plan: Plan, accepts: AnswerCheck | None, logprobs: LogprobsRequest, policy: Policy) -> Plan:
    """The plan with the stronger models for an answer that fails verification; unchanged if there are none."""
    decision, names = plan.decision, [model.name for model in policy.rules.models]
    assert decision is not None
    stronger = [name for name in names[names.index(decision.model) + 1 :] if name in plan.models]
    if not stronger:
        return plan
    verify = FORM if accepts is None else CONTENT
    plan = replace(plan, verify=verify, accepts_answer=accepts, stronger_models=stronger)
    if accepts is None or policy.answers is None or not policy.answers.predictor.reads_logprobs(decision.question_type):
        return plan
    return replace(plan, logprobs=logprobs, adaptations=logprobs.add_to(plan.adaptations, decision.model))


def read_features(
    api_format: ApiFormat, serving: Serving, adapter: Adapter, fields: bodies.Fields
) -> tuple[Features, Mapping[str, Adaptation]]:
    """The features of a request, and the changes that each model requires.

    Raises:
        BadRequestError: the body lacks a field that the decision needs.
    """
    features = extract_features(api_format, fields)
    adaptations = adapter.adaptations(serving.policy.rules.models, fields, api_format.name, features.max_output_tokens)
    if adaptations and (unsuitable := adapter.unsuitable_models(adaptations)):
        features = structs.replace(features, unsuitable_models=unsuitable)
        adaptations = {name: adapter.permitted(required) for name, required in adaptations.items()}
    return features, adaptations


def extract_features(api_format: ApiFormat, fields: bodies.Fields) -> Features:
    """The features of a request.

    Raises:
        BadRequestError: the body lacks a field that the decision needs.
    """
    try:
        return api_format.read_features(fields)
    except RequestError as error:
        raise BadRequestError(str(error), error.param) from error


def decision_for(serving: Serving, features: Features, target: float) -> Decision:
    """The decision of the served policy."""
    policy = serving.policy
    return decide(policy.rules, features, predict(policy.predictor, features), target)


def first_step(
    policy: Policy, features: Features, target: float, has_logprobs: bool = True
) -> tuple[Decision, AnswerCheck | None]:
    """The decision on which model to ask first, and the check of its answer by content.

    The check is None if the answer is not inspected: the policy does not inspect answers to such questions, or the
    strong model is asked first.
    """
    prediction, answers = predict(policy.predictor, features), policy.answers
    if answers is None:
        return decide(policy.rules, features, prediction, target), None
    step = decide_first_step(answers, policy.rules, features, prediction, target, has_logprobs)
    if not step.inspects_answer:
        return step.decision, None
    return step.decision, partial(accepts_answer, answers, policy.rules, features, prediction, target)


def candidate_models(policy: Policy, decision: Decision, features: Features) -> list[str]:
    """The chosen model, then its fallback models that can take the request: stronger ones first."""
    models = policy.rules.models
    at = next(n for n, model in enumerate(models) if model.name == decision.model)
    others = (*models[at + 1 :], *reversed(models[:at]))
    return [decision.model, *(model.name for model in others if capability_guard(model, features) is None)]
