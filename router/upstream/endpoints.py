"""The upstreams of each model, and their health."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pydantic import SecretStr

from router.settings import SIMULATED, Settings, SettingsError, UpstreamModel
from router.upstream.breaker import Breaker
from router.upstream.calls import Origin
from router.upstream.retry_budget import RetryBudget

KEY_REFUSED = frozenset({401, 403})


class Health:
    """The health of one of several upstreams of a model, as this worker observes it."""

    __slots__ = ("answered", "breaker", "failed", "key_refused", "model")

    def __init__(self, model: str) -> None:
        self.model = model  # its name in the settings
        self.breaker = Breaker()
        self.answered = 0  # successful calls
        self.failed = 0  # calls that failed because of the upstream
        self.key_refused = 0  # 401 or 403 if the upstream has rejected the configured key since its last answer

    def count(self, status: int, *, failed: bool) -> None:
        """Count a call. `status` is 0 if there was no answer."""
        if not failed:
            self.answered += 1
            self.key_refused = 0
            return
        self.failed += 1
        if status in KEY_REFUSED:
            self.key_refused = status


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One upstream of a model."""

    origin: Origin | None  # None: the simulated upstream
    authorization: bytes | None = field(repr=False)
    model: str = ""  # its name at that upstream; "": the same name
    has_own_address: bool = False  # whether the address is configured for this model
    label: str = ""  # distinguishes several upstreams of a model; "" for the only one
    is_named: bool = False  # whether the label comes from the settings and is not an address
    weight: float = 1.0
    priority: int = 0  # lower numbers are tried first
    health: Health | None = field(default=None, compare=False, repr=False)  # None for the only one
    retries: RetryBudget = field(default_factory=RetryBudget, compare=False, repr=False)

    def is_same_account(self, other: Endpoint) -> bool:
        """Whether responses stored at one of them can be read at the other."""
        return self.origin == other.origin and self.authorization == other.authorization


def build_default_endpoint(settings: Settings) -> Endpoint:
    """The upstream of all models that have none of their own in the settings.

    Raises:
        SettingsError: its address is not an http or https URL.
    """
    return Endpoint(_parse_origin(settings.base_url, "OPENAI_BASE_URL"), _bearer(settings.openai_api_key))


def build_endpoints(
    name: str, model: UpstreamModel, default: Endpoint, default_key: SecretStr | None
) -> list[Endpoint]:
    """The upstreams of one model, by priority. Values that are not set are those of the model, then the default.

    Raises:
        SettingsError: an address is not an http or https URL, or two upstreams have the same label.
    """
    if not model.base_url:
        base = replace(default, authorization=_bearer(model.api_key or default_key), model=model.name)
    else:  # the default key is sent only to the default upstream
        base = Endpoint(
            _parse_origin(model.base_url, f"models.{name}.base_url"),
            _bearer(model.api_key),
            model.name,
            has_own_address=True,
        )
    endpoints: dict[str, Endpoint] = {}
    for number, upstream in enumerate(model.upstreams):
        setting, endpoint = f"models.{name}.upstreams.{number}", base
        if upstream.base_url:  # the model's key is sent only to the model's own address
            origin = _parse_origin(upstream.base_url, f"{setting}.base_url")
            endpoint = replace(base, origin=origin, authorization=None, has_own_address=True)
        if upstream.api_key is not None:
            endpoint = replace(endpoint, authorization=_bearer(upstream.api_key))
        label = upstream.label or _address(endpoint.origin)
        if label in endpoints:
            raise SettingsError(f"setting {setting}.label: two upstreams have the label {label!r}; labels must differ")
        endpoints[label] = replace(
            endpoint,
            model=upstream.name or base.model,
            label=label,
            is_named=bool(upstream.label),
            weight=upstream.weight,
            priority=upstream.priority,
            health=Health(name),
            retries=RetryBudget(),
        )
    return sorted(endpoints.values(), key=lambda endpoint: endpoint.priority) or [base]


def _address(origin: Origin | None) -> str:
    if origin is None:
        return "simulated"
    return f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"


def _parse_origin(url: str, setting: str) -> Origin | None:
    if url == SIMULATED:
        return None
    try:
        return Origin.parse(url)
    except ValueError as error:
        raise SettingsError(f"setting {setting}: {error}") from None


def _bearer(key: SecretStr | None) -> bytes | None:
    return None if key is None else b"Bearer " + key.get_secret_value().encode()
