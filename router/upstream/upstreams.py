"""Where each model is asked: its address, its key, and the connection to it. The only place that does HTTP out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from router.policy.naming import without_effort
from router.policy.network import BundleError, Network
from router.policy.proxies import ProxyAddressError
from router.settings import SIMULATED, Settings, SettingsError
from router.upstream.breaker import Breaker
from router.upstream.calls import Answer, Call, Headers, Origin
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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked."""

    origin: Origin | None  # None: the simulation
    authorization: bytes | None
    model: str = ""  # as that upstream calls it; "": by its own name
    own: bool = False  # named in the settings for this model


class Upstreams:
    """Every upstream there is, by the models they serve."""

    def __init__(self, settings: Settings) -> None:
        self.default = Endpoint(_origin(settings.base_url, "OPENAI_BASE_URL"), _bearer(settings.openai_api_key))
        self._own: dict[str, Endpoint] = {}
        for name, model in settings.models.items():
            if not model.base_url:
                key = model.api_key or settings.openai_api_key
                self._own[name] = replace(self.default, authorization=_bearer(key), model=model.name)
            else:  # the default key is for the default upstream, and shown to no other
                origin = _origin(model.base_url, f"models.{name}.base_url")
                self._own[name] = Endpoint(origin, _bearer(model.api_key), model.name, own=True)
        self._forward_keys = settings.forward_client_keys
        self._timeouts = settings.timeouts
        self.network = _network(settings, (self.default, *self._own.values()))
        self._pool = Pool(settings.timeouts.connect, self.network)
        self._simulated = SimulatedUpstream()
        self._breakers: dict[str, Breaker] = {}

    def endpoint(self, model: str) -> Endpoint:
        """Where `model` is asked; the default upstream for all that have none of their own."""
        found = self._own.get(model)
        if found is None and ":" in model:  # one that is asked to reason so much
            found = self._own.get(without_effort(model))
        return found or self.default

    def breaker(self, model: str) -> Breaker:
        """The circuit of `model`. There is no end of names that clients make up: those that nothing is held of go."""
        breaker = self._breakers.get(model)
        if breaker is None:
            if len(self._breakers) >= MAX_BREAKERS:
                self._breakers = {name: held for name, held in self._breakers.items() if held.is_open}
            breaker = Breaker()
            if len(self._breakers) < MAX_BREAKERS:
                self._breakers[model] = breaker
        return breaker

    def open_circuits(self) -> list[str]:
        """The models that are being left alone."""
        return [model for model, breaker in self._breakers.items() if breaker.is_open]

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


def _network(settings: Settings, endpoints: Iterable[Endpoint]) -> Network:
    """The network of the settings, with all that can be wrong about it said now."""
    try:
        for origin in {endpoint.origin for endpoint in endpoints if endpoint.origin is not None}:
            settings.network.proxies.to(origin.host, origin.port, tls=origin.tls)
        settings.network.check()
    except (ProxyAddressError, BundleError) as error:
        raise SettingsError(f"setting {error}") from None
    return settings.network


def _origin(url: str, setting: str) -> Origin | None:
    if url == SIMULATED:
        return None
    try:
        return Origin.parse(url)
    except ValueError as error:
        raise SettingsError(f"setting {setting}: {error}") from None


def _bearer(key: object) -> bytes | None:
    return None if key is None else b"Bearer " + key.get_secret_value().encode()  # type: ignore[attr-defined]
