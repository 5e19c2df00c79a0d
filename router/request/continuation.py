"""Which upstream stores a response or conversation, so that requests that continue it go there."""

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

MAX_REMEMBERED = 50_000
_MAX_ID_CHARACTERS = 200
_LOOKUP_SECONDS = 10.0


class StoredItem(NamedTuple):
    """A response or conversation: the model that answered last, and the upstream that stores it."""

    model: str
    endpoint: Endpoint


class Continuations:
    """Finds stored items: in this worker's memory, otherwise by asking the upstreams."""

    def __init__(self, upstreams: Upstreams, prices: PriceBook) -> None:
        self._upstreams = upstreams
        self._prices = prices
        self._items: OrderedDict[str, StoredItem] = OrderedDict()

    def remember(self, stored_id: str, model: str, endpoint: Endpoint) -> None:
        """Remember where a response or conversation is stored. The oldest of MAX_REMEMBERED items is dropped."""
        if not stored_id or len(stored_id) > _MAX_ID_CHARACTERS:
            return
        self._items[stored_id] = StoredItem(model, endpoint)
        if len(self._items) > MAX_REMEMBERED:
            self._items.popitem(last=False)

    async def previous_response(self, request: Request, headers: Iterable[tuple[bytes, bytes]]) -> StoredItem | None:
        """The response that `request` continues; None if there is none, or if no upstream stores it.

        Raises:
            BadRequestError: `previous_response_id` is not a string.
        """
        raw = request.fields.get("previous_response_id")
        if raw is None or bytes(raw) == b"null":
            return None
        previous = bodies.read_string(request.fields, "previous_response_id") or ""
        return self._items.get(previous) or await self._look_up(previous, headers)

    def conversation_endpoint(self, request: Request) -> Endpoint | None:
        """The upstream that stores the conversation of `request`; None if it is unknown."""
        item = self._items.get(conversation_id(request.fields))
        return None if item is None else item.endpoint

    async def endpoint_for_path(self, path: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Endpoint:
        """The upstream for a pass-through path: the one that stores the item in the path, or the default one."""
        default = self._upstreams.default
        if not self._upstreams.labelled or not path.startswith((b"/responses/", b"/conversations/")):
            return default
        stored_id = path.split(b"/")[2].decode("latin-1")
        item = self._items.get(stored_id)
        if item is None and stored_id.startswith("resp"):
            item = await self._look_up(stored_id, headers)
        return default if item is None else item.endpoint

    async def _look_up(self, response_id: str, headers: Iterable[tuple[bytes, bytes]]) -> StoredItem | None:
        if not response_id.replace("_", "").replace("-", "").isalnum() or len(response_id) > _MAX_ID_CHARACTERS:
            return None
        for endpoint in _distinct_accounts([self._upstreams.default, *self._upstreams.labelled]):
            name = await self._fetch_model(endpoint, response_id, headers)
            if name is not None:
                model = self._upstreams.model_at(endpoint, name)
                model = self._prices.aliases.get(model, model)  # the policy has no dated snapshots
                self.remember(response_id, model, endpoint)
                return StoredItem(model, endpoint)
        return None

    async def _fetch_model(
        self, endpoint: Endpoint, response_id: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> str | None:
        """The model of a stored response; None if the upstream does not store it or does not respond."""
        upstreams = self._upstreams
        forwarded = [(name, value) for name, value in headers if name.startswith((b"openai-", b"authorization"))]
        forwarded = upstreams.request_headers(endpoint, forwarded, readable=True)
        call = Call(b"GET", b"/responses/" + response_id.encode(), forwarded)
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                body = await read_whole(await upstreams.send(endpoint, call), _LOOKUP_SECONDS)
        except (ConnectError, CutError, StallError, TimeoutError):
            return None
        return bodies.read_metadata(body).model or None


def _distinct_accounts(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """One endpoint for each combination of address and key."""
    distinct: list[Endpoint] = []
    for endpoint in endpoints:
        if not any(endpoint.is_same_account(other) for other in distinct):
            distinct.append(endpoint)
    return distinct
