"""From a request's body to what is to be done with it. Pure but for the policy that happens to be served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from router import wire
from router.errors import BadRequestError
from router.policy.decision import Decision, Reason, decide
from router.policy.features import Features, RequestError
from router.policy.prediction import predict
from router.routing import asked, others
from router.serving import Serving
from router.settings import Settings


class Stream(Protocol):
    """An event stream that is read while it passes."""

    model: str
    usage: dict[str, Any] | None
    error: str
    done: bool  # it has said that it is over

    def feed(self, chunk: bytes) -> bytes: ...
    def rest(self) -> bytes: ...
    @property
    def ended(self) -> bool: ...
    def content(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Surface:
    """An endpoint of OpenAI's that is routed: how its requests are read, and its streams."""

    path: bytes  # below the upstream's base URL
    features: Callable[[wire.Fields], Features]
    asks_for_usage: bool  # whether a stream tells its usage only to those who ask
    stream: Callable[[bool], Stream]  # given whether usage is to be stripped


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with a request."""

    name: str  # as asked
    models: list[str]  # to be tried in turn
    decision: Decision | None
    reason: Reason
    streamed: bool
    strips_usage: bool
    edits: tuple[wire.Edit, ...]
    model_span: tuple[int, int]
    user: str = ""


def make_plan(surface: Surface, serving: Serving, settings: Settings, body: bytes, headers: dict[bytes, bytes]) -> Plan:
    """Decide what is to be done with a body.

    Raises:
        BadRequestError: the body cannot be read, or asks for what is not there.
    """
    fields = wire.read_fields(body)
    spans = wire.spans(body, fields)
    name = wire.text(fields, "model")
    if not name:
        raise BadRequestError("you must provide a model parameter", "model")
    wish = asked(name, headers, serving.default_target, settings.routed_models)
    models, decision, reason = [wish.forced or name], None, Reason.PASSED_THROUGH
    if wish.target is not None:
        decision = decision_for(surface, serving, fields, wish.target)
        models, reason = [decision.model, *others(serving.policy, decision.model)], decision.reason
    elif wish.forced:
        reason = Reason.FORCED
    streamed = wire.is_true(fields, "stream")
    usage = wire.asking_for_usage(fields, spans) if streamed and surface.asks_for_usage else None
    edits = () if usage is None else (usage,)
    return Plan(name, models, decision, reason, streamed, usage is not None, edits, spans["model"], _user(fields))


def decision_for(surface: Surface, serving: Serving, fields: wire.Fields, target: float) -> Decision:
    """The decision for a body.

    Raises:
        BadRequestError: it lacks what the decision is made of.
    """
    policy = serving.policy
    try:
        features = surface.features(fields)
    except RequestError as error:
        raise BadRequestError(str(error), error.param) from error
    return decide(policy.rules, features, predict(policy.predictor, features), target)


def _user(fields: wire.Fields) -> str:
    try:
        return (wire.text(fields, "user") or "")[:200]
    except BadRequestError:
        return ""  # the upstream says what is wrong with it
