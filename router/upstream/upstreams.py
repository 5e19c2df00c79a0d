"""Where each model is asked: its address, its key, and the connection to it. The only place that does HTTP out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from router.policy.naming import without_effort
from router.policy.network import BundleError, Network
from router.policy.proxies import ProxyAddressError
from router.settings import Settings, SettingsError
from router.upstream.breaker import Breaker
from router.upstream.calls import Answer, Call, Headers
from router.upstream.endpoints import Endpoint, default_endpoint, endpoints_of
from router.upstream.pool import Pool
from router.upstream.simulated import SimulatedUpstream

# Not passed on, either way: they speak of one connection, or are written anew.
HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
    )
)
_OURS = b"x-router-"
_NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"authorization", b"expect", b"api-key"}
_NOT_THEIRS = (b"access-control-", _OURS)  # which pages may read an answer is said here, and so is what was decided
MAX_BREAKERS = 1000


def passed_back(headers: Headers) -> Headers:
    """The headers of an upstream's answer that the client gets."""
    return [(n, v) for n, v in headers if n not in HOP_BY_HOP and not n.startswith(_NOT_THEIRS)]


class Standing(NamedTuple):
    """How an upstream of a model does. Its name is no address, since it is told to everybody."""

    model: str
    upstream: str
    left_alone: bool  # it gets only probes, since it failed
    key_refused: int  # 401 or 403 where it refuses its key


class Upstreams:
    """Every upstream there is, by the models they serve."""

    def __init__(self, settings: Settings) -> None:
        self.default = default_endpoint(settings)
        self._default = [self.default]
        self._own = {
            name: endpoints_of(name, model, self.default, settings.openai_api_key)
            for name, model in settings.models.items()
        }
        self.all = [self.default, *chain.from_iterable(self._own.values())]
        self.labelled = [endpoint for endpoint in self.all if endpoint.health is not None]
        self._forward_keys = settings.forward_client_keys
        self._timeouts = settings.timeouts
        self.network = _network(settings, self.all)
        self._pool = Pool(settings.timeouts.connect, self.network)
        self._simulated = SimulatedUpstream()
        self._breakers: dict[str, Breaker] = {}

    def endpoints(self, model: str) -> Sequence[Endpoint]:
        """Where `model` is asked, by priority; the default upstream for all that have none of their own."""
        found = self._own.get(model)
        if found is None and ":" in model:  # one that is asked to reason so much
            found = self._own.get(without_effort(model))
        return found or self._default

    def model_at(self, endpoint: Endpoint, name: str) -> str:
        """The name in the settings of the model that an upstream calls `name`; that name itself where none is set."""
        for model, endpoints in self._own.items():
            if any(each.model == name and each.is_same_account(endpoint) for each in endpoints):
                return model
        return name

    def breaker(self, model: str, endpoint: Endpoint) -> Breaker:
        """The circuit of `model` at an upstream.

        There is no end of names that clients make up: those that nothing is held of go.
        """
        if endpoint.health is not None:
            return endpoint.health.breaker
        breaker = self._breakers.get(model)
        if breaker is None:
            if len(self._breakers) >= MAX_BREAKERS:
                self._breakers = {name: held for name, held in self._breakers.items() if held.is_open}
            breaker = Breaker()
            if len(self._breakers) < MAX_BREAKERS:
                self._breakers[model] = breaker
        return breaker

    def open_circuits(self) -> list[str]:
        """The models that are left alone, at all of their upstreams."""
        alone = [model for model, breaker in self._breakers.items() if breaker.is_open]
        several = (name for name, endpoints in self._own.items() if endpoints[0].health is not None)
        return alone + [name for name in several if all(is_left_alone(each) for each in self._own[name])]

    def standing(self) -> list[Standing]:
        """How each upstream does, of models that have several, as this worker sees it."""
        found = []
        for model, endpoints in self._own.items():
            for number, endpoint in enumerate(endpoints, 1):
                if endpoint.health is not None:
                    name = endpoint.label if endpoint.is_named else f"upstream {number}"
                    refused = endpoint.health.key_refused
                    found.append(Standing(model, name, is_left_alone(endpoint), refused))
        return found

    def is_key_ours(self, endpoint: Endpoint) -> bool:
        """Whether an upstream gets a key of the settings, and not that of the client."""
        return endpoint.own or not self._forward_keys

    async def send(self, endpoint: Endpoint, call: Call) -> Answer:
        """Send a call; the answer's head is there when this returns.

        Raises:
            ConnectError, CutError, StallError: as their names say.
        """
        if endpoint.origin is None:
            return await self._simulated.send(call)
        return await self._pool.send(endpoint.origin, call, self._timeouts.first_byte)

    def headers(self, endpoint: Endpoint, given: Iterable[tuple[bytes, bytes]], *, readable: bool) -> Headers:
        """The client's headers as the upstream gets them: without ours and the client's credential, and with the key.

        With `readable`, the answer is not to be compressed, so that its usage can be read.
        """
        headers: Headers = []
        authorization = endpoint.authorization
        dropped: frozenset[bytes] | set[bytes] = _NOT_FORWARDED
        for name, value in given:
            if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                dropped = dropped | {part.strip().lower() for part in value.split(b",")}
        for name, value in given:
            if self._forward_keys and not endpoint.own and name in (b"authorization", b"api-key"):
                authorization = value if name == b"authorization" else b"Bearer " + value
            if name in dropped or name.startswith(_OURS) or (readable and name == b"accept-encoding"):
                continue
            headers.append((name, value))
        if readable:
            headers.append((b"accept-encoding", b"identity"))
        if authorization is not None:
            headers.append((b"authorization", authorization))
        return headers

    def close(self) -> None:
        """Close the connections at rest."""
        self._pool.close()


def is_left_alone(endpoint: Endpoint) -> bool:
    """Whether an upstream gets no requests, or only probes."""
    return endpoint.health is not None and endpoint.health.breaker.is_open


def _network(settings: Settings, endpoints: Iterable[Endpoint]) -> Network:
    """The network of the settings, with all that can be wrong about it said now."""
    try:
        for origin in {endpoint.origin for endpoint in endpoints if endpoint.origin is not None}:
            settings.network.proxies.proxy_for(origin.host, origin.port, tls=origin.tls)
        settings.network.check()
    except (ProxyAddressError, BundleError) as error:
        raise SettingsError(f"setting {error}") from None
    return settings.network
