"""What an upstream stores is asked for where it is: responses that are gone on with, and conversations."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from router.planning.affinity import conversation_id
from router.planning.plan import Request
from router.policy.prices import PriceBook
from router.upstream.calls import Call, ConnectError, CutError, StallError, read_whole
from router.upstream.endpoints import Endpoint
from router.upstream.upstreams import Upstreams
from router.wire import bodies

REMEMBERED = 50_000
_ID_LENGTH = 200
_SECONDS = 10.0


class Made(NamedTuple):
    """Which model made a response, or answered last in a conversation, and at which upstream that is stored."""

    model: str
    endpoint: Endpoint


class Continuations:
    """Who holds what: remembered here, else asked of the upstreams, which every replica can do."""

    def __init__(self, upstreams: Upstreams, prices: PriceBook) -> None:
        self._upstreams = upstreams
        self._prices = prices
        self._made: OrderedDict[str, Made] = OrderedDict()

    def remember(self, stored_id: str, model: str, endpoint: Endpoint) -> None:
        """Note who made a response, or answered in a conversation."""
        if not stored_id or len(stored_id) > _ID_LENGTH:
            return
        self._made[stored_id] = Made(model, endpoint)
        if len(self._made) > REMEMBERED:
            self._made.popitem(last=False)

    async def found(self, request: Request, headers: Iterable[tuple[bytes, bytes]]) -> Made | None:
        """Who made the response which `request` goes on with; None where there is none, or nobody knows.

        Raises:
            BadRequestError: `previous_response_id` is not a string.
        """
        raw = request.fields.get("previous_response_id")
        if raw is None or bytes(raw) == b"null":
            return None
        previous = bodies.read_string(request.fields, "previous_response_id") or ""
        return self._made.get(previous) or await self._looked_up(previous, headers)

    def in_conversation(self, request: Request) -> Endpoint | None:
        """The upstream at which the conversation of a request went on before; None where that is not known."""
        made = self._made.get(conversation_id(request.fields))
        return None if made is None else made.endpoint

    async def holder(self, path: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Endpoint:
        """The upstream that a path leads to which is passed on: the default one, but for what another one stores."""
        default = self._upstreams.default
        if not self._upstreams.labelled or not path.startswith((b"/responses/", b"/conversations/")):
            return default
        stored_id = path.split(b"/")[2].decode("latin-1")
        made = self._made.get(stored_id)
        if made is None and stored_id.startswith("resp"):
            made = await self._looked_up(stored_id, headers)
        return default if made is None else made.endpoint

    async def _looked_up(self, response_id: str, headers: Iterable[tuple[bytes, bytes]]) -> Made | None:
        if not response_id.replace("_", "").replace("-", "").isalnum() or len(response_id) > _ID_LENGTH:
            return None
        for endpoint in _accounts([self._upstreams.default, *self._upstreams.labelled]):
            answered = await self._asked(endpoint, response_id, headers)
            if answered is not None:
                model = self._upstreams.model_at(endpoint, answered)
                model = self._prices.aliases.get(model, model)  # a dated snapshot goes by the name the policy knows
                self.remember(response_id, model, endpoint)
                return Made(model, endpoint)
        return None

    async def _asked(self, endpoint: Endpoint, response_id: str, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        upstreams = self._upstreams
        passed = [(name, value) for name, value in headers if name.startswith((b"openai-", b"authorization"))]
        call = Call(
            b"GET", b"/responses/" + response_id.encode(), upstreams.request_headers(endpoint, passed, readable=True)
        )
        try:
            async with asyncio.timeout(_SECONDS):
                body = await read_whole(await upstreams.send(endpoint, call), _SECONDS)
        except (ConnectError, CutError, StallError, TimeoutError):
            return None
        return bodies.read_metadata(body).model or None


def _accounts(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """One endpoint for each address and key."""
    found: list[Endpoint] = []
    for endpoint in endpoints:
        if not any(endpoint.is_same_account(other) for other in found):
            found.append(endpoint)
    return found
