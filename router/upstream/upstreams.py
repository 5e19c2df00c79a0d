"""All upstreams: which of them serve a model, and how requests are sent to them."""

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
from router.upstream.endpoints import Endpoint, build_default_endpoint, build_endpoints
from router.upstream.pool import Pool
from router.upstream.simulated import SimulatedUpstream

# Headers of one connection: not forwarded in either direction.
HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
    )
)
_ROUTER_PREFIX = b"x-router-"
_NOT_FORWARDED = HOP_BY_HOP | {b"host", b"content-length", b"authorization", b"expect", b"api-key"}
_NOT_RETURNED = (b"access-control-", _ROUTER_PREFIX)  # the router sets these itself
MAX_BREAKERS = 1000


def returned_headers(headers: Headers) -> Headers:
    """The headers of an upstream's answer that are returned to the client."""
    return [(n, v) for n, v in headers if n not in HOP_BY_HOP and not n.startswith(_NOT_RETURNED)]


class UpstreamStatus(NamedTuple):
    """The status of one upstream of a model. It is public, so `upstream` is a label or a number, not an address."""

    model: str
    upstream: str
    left_alone: bool  # whether its circuit is open, so it receives only probes
    key_refused: int  # 401 or 403 if it rejects the configured key, otherwise 0


class Upstreams:
    """All upstreams, by model."""

    def __init__(self, settings: Settings) -> None:
        self.default = build_default_endpoint(settings)
        self._default = [self.default]
        self._own = {
            name: build_endpoints(name, model, self.default, settings.openai_api_key)
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
        """The upstreams of `model`, by priority; the default upstream if the model has none of its own."""
        own = self._own.get(model)
        if own is None and ":" in model:  # a model with a reasoning effort, such as gpt-5:low
            own = self._own.get(without_effort(model))
        return own or self._default

    def model_at(self, endpoint: Endpoint, name: str) -> str:
        """The configured model that has the name `name` at an upstream; `name` itself if there is none."""
        for model, endpoints in self._own.items():
            if any(each.model == name and each.is_same_account(endpoint) for each in endpoints):
                return model
        return name

    def breaker(self, model: str, endpoint: Endpoint) -> Breaker:
        """The circuit of `model` at an upstream.

        Clients can send any number of model names, so at most MAX_BREAKERS circuits are kept.
        """
        if endpoint.health is not None:
            return endpoint.health.breaker
        breaker = self._breakers.get(model)
        if breaker is None:
            if len(self._breakers) >= MAX_BREAKERS:
                self._breakers = {name: known for name, known in self._breakers.items() if known.is_open}
            breaker = Breaker()
            if len(self._breakers) < MAX_BREAKERS:
                self._breakers[model] = breaker
        return breaker

    def open_circuits(self) -> list[str]:
        """The models whose circuits are open at all of their upstreams."""
        open_models = [model for model, breaker in self._breakers.items() if breaker.is_open]
        several = (name for name, endpoints in self._own.items() if endpoints[0].health is not None)
        return open_models + [name for name in several if all(is_circuit_open(each) for each in self._own[name])]

    def statuses(self) -> list[UpstreamStatus]:
        """The status of each upstream of a model that has several, as this worker observes it."""
        statuses = []
        for model, endpoints in self._own.items():
            for number, endpoint in enumerate(endpoints, 1):
                if endpoint.health is not None:
                    name = endpoint.label if endpoint.is_named else f"upstream {number}"
                    refused = endpoint.health.key_refused
                    statuses.append(UpstreamStatus(model, name, is_circuit_open(endpoint), refused))
        return statuses

    def uses_configured_key(self, endpoint: Endpoint) -> bool:
        """Whether the upstream receives a key from the settings and not the client's key."""
        return endpoint.has_own_address or not self._forward_keys

    async def send(self, endpoint: Endpoint, call: Call) -> Answer:
        """Send a call and wait for the headers of its answer.

        Raises:
            ConnectError, CutError, StallError: see `upstream.calls`.
        """
        if endpoint.origin is None:
            return await self._simulated.send(call)
        return await self._pool.send(endpoint.origin, call, self._timeouts.first_byte)

    def request_headers(
        self, endpoint: Endpoint, client_headers: Iterable[tuple[bytes, bytes]], *, readable: bool
    ) -> Headers:
        """The headers for the upstream: the client's, with the upstream's key, and without those of the router.

        With `readable`, the upstream is asked not to compress the answer, so that its usage can be read.
        """
        headers: Headers = []
        authorization = endpoint.authorization
        dropped: frozenset[bytes] | set[bytes] = _NOT_FORWARDED
        for name, value in client_headers:
            if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                dropped = dropped | {part.strip().lower() for part in value.split(b",")}
        for name, value in client_headers:
            if self._forward_keys and not endpoint.has_own_address and name in (b"authorization", b"api-key"):
                authorization = value if name == b"authorization" else b"Bearer " + value
            if name in dropped or name.startswith(_ROUTER_PREFIX) or (readable and name == b"accept-encoding"):
                continue
            headers.append((name, value))
        if readable:
            headers.append((b"accept-encoding", b"identity"))
        if authorization is not None:
            headers.append((b"authorization", authorization))
        return headers

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()


def is_circuit_open(endpoint: Endpoint) -> bool:
    """Whether an upstream receives no requests, or only probes."""
    return endpoint.health is not None and endpoint.health.breaker.is_open


def _network(settings: Settings, endpoints: Iterable[Endpoint]) -> Network:
    """The network settings, checked for all upstreams.

    Raises:
        SettingsError: the proxy or the certificates are invalid.
    """
    try:
        for origin in {endpoint.origin for endpoint in endpoints if endpoint.origin is not None}:
            settings.network.proxies.proxy_for(origin.host, origin.port, tls=origin.tls)
        settings.network.check()
    except (ProxyAddressError, BundleError) as error:
        raise SettingsError(f"setting {error}") from None
    return settings.network
