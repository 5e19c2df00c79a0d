"""Responses that go on with an earlier one stay on the model that made it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from router.planning import Request
from router.policy.prices import PriceBook
from router.upstream.calls import Call, ConnectError, CutError, StallError, read_whole
from router.upstream.upstreams import Upstreams
from router.wire import bodies

REMEMBERED = 50_000
_ID_LENGTH = 200
_SECONDS = 10.0


class Continuations:
    """Which model made which response: remembered here, else asked of the upstream, which every replica can do."""

    def __init__(self, upstreams: Upstreams, prices: PriceBook) -> None:
        self._upstreams = upstreams
        self._prices = prices
        self._models: OrderedDict[str, str] = OrderedDict()

    def remember(self, response_id: str, model: str) -> None:
        """Note who made a response."""
        if len(response_id) > _ID_LENGTH:
            return
        self._models[response_id] = model
        if len(self._models) > REMEMBERED:
            self._models.popitem(last=False)

    async def model(self, request: Request, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """The model that made the response which `request` goes on with; None where there is none, or nobody knows.

        Raises:
            BadRequestError: `previous_response_id` is not a string.
        """
        raw = request.fields.get("previous_response_id")
        if raw is None or bytes(raw) == b"null":
            return None
        previous = bodies.text(request.fields, "previous_response_id") or ""
        known = self._models.get(previous)
        if known is not None or not previous.replace("_", "").replace("-", "").isalnum() or len(previous) > _ID_LENGTH:
            return known
        answered = await self._asked(previous, headers)
        if answered is None:
            return None
        model = self._prices.aliases.get(answered, answered)  # a dated snapshot goes by the name the policy knows
        self.remember(previous, model)
        return model

    async def _asked(self, response_id: str, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        upstreams = self._upstreams
        passed = [(name, value) for name, value in headers if name.startswith((b"openai-", b"authorization"))]
        call = Call(
            b"GET", b"/responses/" + response_id.encode(), upstreams.headers(upstreams.default, passed, readable=True)
        )
        try:
            answer = await upstreams.send(upstreams.default, call)
            body = await read_whole(answer, _SECONDS)
        except (ConnectError, CutError, StallError):
            return None
        return bodies.read_answer(body).model or None
