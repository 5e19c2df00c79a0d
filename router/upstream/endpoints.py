"""Where a model is asked, and how well each of its upstreams does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pydantic import SecretStr

from router.settings import SIMULATED, Settings, SettingsError, UpstreamModel
from router.upstream.breaker import Breaker
from router.upstream.budget import RetryBudget
from router.upstream.calls import Origin

KEY_REFUSED = frozenset({401, 403})


class Health:
    """How one of a model's several upstreams does, as this worker sees it."""

    __slots__ = ("answered", "breaker", "failed", "key_refused", "model")

    def __init__(self, model: str) -> None:
        self.model = model  # as the settings call it
        self.breaker = Breaker()
        self.answered = 0  # calls
        self.failed = 0  # calls that failed by its fault
        self.key_refused = 0  # 401 or 403 where the upstream refused our key since it last answered

    def count(self, status: int, *, failed: bool) -> None:
        """Count a call; `status` is 0 where there was no answer."""
        if not failed:
            self.answered += 1
            self.key_refused = 0
            return
        self.failed += 1
        if status in KEY_REFUSED:
            self.key_refused = status


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked."""

    origin: Origin | None  # None: the simulation
    authorization: bytes | None = field(repr=False)
    model: str = ""  # as that upstream calls it; "": by its own name
    own: bool = False  # its address is set for this model
    label: str = ""  # the name of one of a model's several upstreams; "" for the only one
    is_named: bool = False  # the label is of the settings, and no address
    weight: float = 1.0
    priority: int = 0  # lower numbers are asked first
    health: Health | None = field(default=None, compare=False, repr=False)  # None for the only one
    retries: RetryBudget = field(default_factory=RetryBudget, compare=False, repr=False)

    def is_same_account(self, other: Endpoint) -> bool:
        """Whether what one of them stores can be read at the other."""
        return self.origin == other.origin and self.authorization == other.authorization


def default_endpoint(settings: Settings) -> Endpoint:
    """Where all models are asked that the settings name no other upstream for.

    Raises:
        SettingsError: its address is not an http or https URL.
    """
    return Endpoint(_origin(settings.base_url, "OPENAI_BASE_URL"), _bearer(settings.openai_api_key))


def endpoints_of(name: str, model: UpstreamModel, default: Endpoint, default_key: SecretStr | None) -> list[Endpoint]:
    """Where one model is asked, by priority. What an upstream leaves out is the model's, and then the default.

    Raises:
        SettingsError: an address is not an http or https URL, or two upstreams have the same label.
    """
    if not model.base_url:
        base = replace(default, authorization=_bearer(model.api_key or default_key), model=model.name)
    else:  # the default key is for the default upstream, and shown to no other
        base = Endpoint(
            _origin(model.base_url, f"models.{name}.base_url"), _bearer(model.api_key), model.name, own=True
        )
    found: dict[str, Endpoint] = {}
    for at, given in enumerate(model.upstreams):
        where, place = f"models.{name}.upstreams.{at}", base
        if given.base_url:  # likewise: the model's key is for the model's own upstream
            place = replace(base, origin=_origin(given.base_url, f"{where}.base_url"), authorization=None, own=True)
        if given.api_key is not None:
            place = replace(place, authorization=_bearer(given.api_key))
        label = given.label or _address(place.origin)
        if label in found:
            raise SettingsError(f"setting {where}.label: two upstreams are called {label!r}; name them apart")
        found[label] = replace(
            place,
            model=given.name or base.model,
            label=label,
            is_named=bool(given.label),
            weight=given.weight,
            priority=given.priority,
            health=Health(name),
            retries=RetryBudget(),
        )
    return sorted(found.values(), key=lambda endpoint: endpoint.priority) or [base]


def _address(origin: Origin | None) -> str:
    if origin is None:
        return "simulated"
    return f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"


def _origin(url: str, setting: str) -> Origin | None:
    if url == SIMULATED:
        return None
    try:
        return Origin.parse(url)
    except ValueError as error:
        raise SettingsError(f"setting {setting}: {error}") from None


def _bearer(key: SecretStr | None) -> bytes | None:
    return None if key is None else b"Bearer " + key.get_secret_value().encode()
