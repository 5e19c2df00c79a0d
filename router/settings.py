"""The settings of the router, read once from the environment and `router.toml`."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from router.policy.network import Network
from router.policy.proxies import ProxyAddressError

CONFIG = Path("router.toml")
KEYS_FILE = "keys.json"  # in the home folder
OPENAI_BASE_URL = "https://api.openai.com/v1"
SIMULATED = "simulated:"  # the base URL of the built-in upstream

Content = Literal["whole", "redacted", "lengths", "none"]


class SettingsError(ValueError):
    """The settings are invalid. The message is one line and contains no values, because some are secrets."""


def _split(value: Any) -> Any:
    """Split comma-separated names from the environment, or take a list from `router.toml`. Blanks are dropped."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        return parts
    stripped = [part.strip() if isinstance(part, str) else part for part in parts]
    return [part for part in stripped if part != ""]


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
MIN_KEY_CHARACTERS = 16
FALLBACKS = ("context_length_exceeded", "content_filter")  # errors after which another model can be tried


def _check_key_lengths(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(key.get_secret_value()) < MIN_KEY_CHARACTERS for key in keys):
        raise ValueError(f"a key needs at least {MIN_KEY_CHARACTERS} characters, such as from `openssl rand -hex 16`")
    return keys


def _check_key_length(key: SecretStr) -> SecretStr:
    return _check_key_lengths((key,))[0]


def _check_pair(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) not in (0, 2) or len(set(names)) < len(names):
        raise ValueError("expected two models, the cheap one first, such as gpt-6-luna,gpt-6-sol")
    return names


def _check_fallbacks(names: tuple[str, ...]) -> tuple[str, ...]:
    if not set(names) <= set(FALLBACKS):
        raise ValueError(f"expected any of {', '.join(FALLBACKS)}")
    return names


def _check_webhook_url(url: SecretStr) -> SecretStr:
    """Check the webhook URL. It is a secret, so no message contains it."""
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        is_valid = False
    if not is_valid or not text.isascii() or any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("expected an http or https URL without a user and password")
    return url


def _check_redis_url(url: SecretStr) -> SecretStr:
    """Check the URL of Redis. It may contain a password, so no message contains it."""
    try:
        parts = urlsplit(url.get_secret_value())
        is_valid = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("expected redis://host:port/number or rediss://user:password@host:port/number")
    return url


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_key_lengths)]
Seconds = Annotated[float, Field(gt=0)]


class Timeouts(BaseModel):
    """Timeouts in seconds. They are independent, and none limits the duration of a stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect: Seconds = 5.0
    first_byte: Seconds = 600.0  # until the upstream's status line; long answers without streaming take minutes
    idle: Seconds = 120.0  # between two pieces of an answer
    request_body: Seconds = 60.0  # between two pieces of the client's body
    retries: Seconds = 60.0  # after the start of a request, no retry begins later
    drain_before: Annotated[float, Field(ge=0)] = 1.0  # after SIGTERM: not ready, requests are still answered
    drain: Seconds = 30.0  # for requests in flight on shutdown

    @property
    def shutdown(self) -> float:
        """Seconds from SIGTERM until every request has ended."""
        return self.drain_before + self.drain


class ModelUpstream(BaseModel):
    """One of several upstreams of a model: a table `[[models."name".upstreams]]`. Unset values are the model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = ""
    api_key: SecretStr | None = None
    name: str = ""  # the model's name at that upstream
    label: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")  # the upstream's name; "": its host:port
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)  # share of requests within the same priority
    priority: int = Field(0, ge=0)  # upstreams with a higher number are tried when those with lower numbers fail


class UpstreamModel(BaseModel):
    """The upstreams and prices of one model, if they differ from the default: a table `[models."name"]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = ""
    api_key: SecretStr | None = None
    name: str = ""  # the model's name at that upstream; "": the same
    upstreams: tuple[ModelUpstream, ...] = ()  # used instead of base_url
    usd_per_million_input_tokens: float | None = Field(None, ge=0)
    usd_per_million_output_tokens: float | None = Field(None, ge=0)
    usd_per_million_cached_input_tokens: float | None = Field(None, ge=0)
    successor: str = ""  # replaces this model for `auto` after its shutdown; "none" for no model

    @property
    def bypasses_default(self) -> bool:
        """Whether the model never uses the default upstream."""
        return bool(self.base_url) or (bool(self.upstreams) and all(upstream.base_url for upstream in self.upstreams))


class _RouterToml(TomlConfigSettingsSource):
    """`router.toml`. Setting names may be written as in the environment: ROUTER_HOME, router_home or home."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return {name.lower().removeprefix("router_"): value for name, value in super()._read_file(file_path).items()}


class Settings(BaseSettings):
    """The settings of the router. In the environment, names have the prefix ROUTER_, except OPENAI_* and MLFLOW_*."""

    model_config = SettingsConfigDict(env_prefix="ROUTER_", extra="forbid", frozen=True, env_ignore_empty=True)

    openai_api_key: SecretStr | None = Field(None, validation_alias="openai_api_key")
    openai_base_url: str = Field("", validation_alias="openai_base_url")
    mlflow_tracking_uri: str = Field("", validation_alias="mlflow_tracking_uri")
    mlflow_experiment_name: str = Field("router", validation_alias="mlflow_experiment_name")

    proxy: SecretStr | None = None  # proxy to upstreams and MLflow; None: HTTPS_PROXY and the like; "none": no proxy
    ca_bundle: Path | None = None  # trusted certificates; None: SSL_CERT_FILE, or the system's
    api_keys: Secrets = ()  # admin keys, in addition to named keys; without any key, only loopback is served
    metrics_key: Annotated[SecretStr, AfterValidator(_check_key_length)] | None = None  # allows reading /metrics only
    hosts: Names = ()  # host names accepted without keys, in addition to loopback
    cors_origins: Names = ()  # sites whose pages may send requests, such as https://app.example.com
    forward_client_keys: bool = False  # send the client's key to the upstream
    alert_webhook: Annotated[SecretStr, AfterValidator(_check_webhook_url)] | None = None  # URL for alerts
    home: Path = Path(".router")  # folder of the journal, usage tables and policies
    keys_file: Path | None = None  # file of the named keys and teams; None: keys.json in the home folder
    policy: Path | None = None  # None: the promoted policy, otherwise the shipped one
    usage_database: SecretStr | None = None  # URL of the usage tables; None: SQLite in the home folder
    state: Annotated[SecretStr, AfterValidator(_check_redis_url)] | None = None  # URL of Redis, for shared limits
    state_failure: Literal["closed", "open"] = "closed"  # without Redis: reject requests, or limit per worker
    pair: Annotated[Names, AfterValidator(_check_pair)] = ()  # cheap and strong model, used before they are calibrated
    default_target: float | None = Field(None, gt=0, le=1)  # None: the target of the policy
    routed_models: Names = ()  # names that are routed like `auto`, for clients that cannot be changed
    record_content: Content = "whole"  # how much request and response content to record
    adapt: bool = True  # change parameters that the model chosen for `auto` does not support
    fallbacks: Annotated[Names, AfterValidator(_check_fallbacks)] = ("context_length_exceeded",)
    verify: Literal["off", "form", "content"] = "off"  # default verification of answers to `auto`
    verify_hold_tokens: int = Field(32, ge=0, le=4096)  # tokens of prose held back at the start of a verified stream
    echo_asked_model: bool = False  # return the requested model name instead of the answering model's
    max_body_bytes: int = Field(64 * 2**20, gt=0)
    max_requests: int = Field(10_000, ge=1)  # in flight, per worker
    memory_budget_mb: int = Field(512, ge=16)  # MiB reserved by the requests in flight, per worker
    max_attempts: int = Field(3, ge=1)  # calls to one model before the next one is tried
    keep_alive_seconds: float = Field(0.0, ge=0)  # interval of SSE comments before the first byte of a stream; 0: none
    timeouts: Timeouts = Timeouts()  # ROUTER_TIMEOUTS as JSON, or the table [timeouts]
    models: dict[str, UpstreamModel] = {}  # ROUTER_MODELS as JSON, or tables [models."name"]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment takes precedence over `router.toml`. A file .env is not read."""
        return init_settings, env_settings, _RouterToml(settings_cls, CONFIG)

    @cached_property
    def base_url(self) -> str:
        """URL of the default upstream, without a trailing slash; the simulated upstream if none is configured."""
        if self.openai_base_url:
            return self.openai_base_url.rstrip("/")
        has_key = self.openai_api_key is not None or self.forward_client_keys
        return OPENAI_BASE_URL if has_key else SIMULATED

    @cached_property
    def network(self) -> Network:
        """Proxies and certificates, from these settings and the environment.

        Raises:
            SettingsError: the address of the proxy is invalid.
        """
        proxy = "" if self.proxy is None else self.proxy.get_secret_value()
        try:
            return Network.read(proxy, "" if self.ca_bundle is None else str(self.ca_bundle), os.environ)
        except ProxyAddressError as error:
            raise SettingsError(f"setting {error}") from None

    @property
    def simulated(self) -> bool:
        """Whether the default upstream is the simulated one, because no key and no address are set."""
        return self.base_url == SIMULATED

    @property
    def keys_path(self) -> Path:
        """The file of the named keys and their teams."""
        return self.home / KEYS_FILE if self.keys_file is None else self.keys_file

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI; SQLite in the home folder by default."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home.absolute() / 'mlflow.db'}"

    @property
    def usage_url(self) -> str:
        """The URL of the usage tables. It may contain a password."""
        if self.usage_database is not None:
            return self.usage_database.get_secret_value()
        return f"sqlite:///{self.home.absolute() / 'usage.db'}"


def load(**overrides: Any) -> Settings:
    """Read the settings. `overrides` take precedence over the environment, and that over `router.toml`.

    Raises:
        SettingsError: a value is invalid. The message contains the setting's name and not its value.
    """
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        prefix = "" if name.startswith(("openai_", "mlflow_", "ROUTER_", "OPENAI_", "MLFLOW_")) else "router_"
        setting = ".".join(((prefix + name).upper(), *map(str, first["loc"][1:])))
        raise SettingsError(f"setting {setting}: {first['msg'].removeprefix('Value error, ')}") from None
    except (ValueError, OSError) as error:  # invalid TOML, or invalid JSON in the environment
        raise SettingsError(f"{CONFIG}: {error}") from None
    _ = settings.network  # reports an invalid proxy now
    if settings.forward_client_keys and settings.api_keys:
        raise SettingsError(
            "ROUTER_FORWARD_CLIENT_KEYS would send the router's own keys to the upstream: unset it or ROUTER_API_KEYS"
        )
    return settings


def is_loopback(host: str) -> bool:
    """Whether a server at `host` is reachable only from this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("127.evil.example")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def with_home(settings: Settings) -> Settings:
    """Create the home folder, which only its owner can read.

    Raises:
        SettingsError: the folder cannot be created, read or written.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(PermissionError):  # a volume may belong to another user and still be writable
            settings.home.chmod(0o700)
        if not os.access(settings.home, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission to read and write", str(settings.home))
    except OSError as error:
        raise SettingsError(f"setting ROUTER_HOME: {error.filename}: {error.strerror}") from error
    return settings
