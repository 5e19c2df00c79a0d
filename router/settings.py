"""How we run: read once from the environment and `router.toml`. What we choose is the policy's."""

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
SIMULATED = "simulated:"  # as a base URL: the upstream that is built in

Content = Literal["whole", "redacted", "lengths", "none"]


class SettingsError(ValueError):
    """The settings do not fit their form; one line, without the values, since some are secrets."""


def _split(value: Any) -> Any:
    """Comma-separated names from the environment, or a list of `router.toml`; what is blank is none."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        return parts
    stripped = [part.strip() if isinstance(part, str) else part for part in parts]
    return [part for part in stripped if part != ""]


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
LEAST_KEY_CHARACTERS = 16
FALLBACKS = ("context_length_exceeded", "content_filter")  # refusals that another model may be asked after


def _long_enough(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(key.get_secret_value()) < LEAST_KEY_CHARACTERS for key in keys):
        raise ValueError(f"a key has at least {LEAST_KEY_CHARACTERS} characters, as of `openssl rand -hex 16`")
    return keys


def _long_enough_one(key: SecretStr) -> SecretStr:
    return _long_enough((key,))[0]


def _a_pair(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) not in (0, 2) or len(set(names)) < len(names):
        raise ValueError("expected two models, the cheap one first, such as gpt-6-luna,gpt-6-sol")
    return names


def _known_fallbacks(names: tuple[str, ...]) -> tuple[str, ...]:
    if not set(names) <= set(FALLBACKS):
        raise ValueError(f"expected any of {', '.join(FALLBACKS)}")
    return names


def _a_url(url: SecretStr) -> SecretStr:
    """An address that is a secret as a whole, so that no message quotes it."""
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        fits = False
    if not fits or not text.isascii() or any(character <= " " or character == "\x7f" for character in text):
        raise ValueError("expected an http or https URL without a user and a password")
    return url


def _a_redis_url(url: SecretStr) -> SecretStr:
    """The address of a Redis. It may hold a login, so that no message quotes it."""
    try:
        parts = urlsplit(url.get_secret_value())
        fits = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("expected redis://host:port/number or rediss://user:password@host:port/number")
    return url


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_long_enough)]
Seconds = Annotated[float, Field(gt=0)]


class Timeouts(BaseModel):
    """Seconds; each clock stands alone, and none bounds a whole stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connect: Seconds = 5.0
    first_byte: Seconds = 600.0  # until the upstream's status line; long answers that do not stream take minutes
    idle: Seconds = 120.0  # between two pieces of an answer
    request_body: Seconds = 60.0  # between two pieces of the client's body
    retries: Seconds = 60.0  # all waiting between attempts together; no attempt begins after it
    drain_before: Annotated[float, Field(ge=0)] = 1.0  # after SIGTERM: not ready, and all is answered
    drain: Seconds = 30.0  # for running requests when the server stops

    @property
    def ending(self) -> float:
        """From SIGTERM until every request has ended."""
        return self.drain_before + self.drain


class ModelUpstream(BaseModel):
    """One of several upstreams of a model: a table `[[models."name".upstreams]]`; what is unset is the model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = ""
    api_key: SecretStr | None = None
    name: str = ""  # as that upstream calls the model
    label: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")  # as the router calls the upstream; "": its host:port
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)  # share of the requests, among those of the same priority
    priority: int = Field(0, ge=0)  # a higher number is asked when those of lower ones fail


class UpstreamModel(BaseModel):
    """One model's own upstreams and price, where they differ from the default: a table `[models."name"]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = ""
    api_key: SecretStr | None = None
    name: str = ""  # as that upstream calls the model; "": the same
    upstreams: tuple[ModelUpstream, ...] = ()  # all that are asked, in the place of base_url
    usd_per_million_input_tokens: float | None = Field(None, ge=0)
    usd_per_million_output_tokens: float | None = Field(None, ge=0)
    usd_per_million_cached_input_tokens: float | None = Field(None, ge=0)
    successor: str = ""  # the model that answers for `auto` when this one is gone; "none" for none

    @property
    def leaves_default(self) -> bool:
        """Whether the model is never asked at the default upstream."""
        return bool(self.base_url) or (bool(self.upstreams) and all(each.base_url for each in self.upstreams))


class _RouterToml(TomlConfigSettingsSource):
    """`router.toml`, where a setting may be written as in the environment: ROUTER_HOME, router_home or home."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return {name.lower().removeprefix("router_"): value for name, value in super()._read_file(file_path).items()}


class Settings(BaseSettings):
    """The settings of the proxy. In the environment each has the prefix ROUTER_, but those named for their owner."""

    model_config = SettingsConfigDict(env_prefix="ROUTER_", extra="forbid", frozen=True, env_ignore_empty=True)

    openai_api_key: SecretStr | None = Field(None, validation_alias="openai_api_key")
    openai_base_url: str = Field("", validation_alias="openai_base_url")
    mlflow_tracking_uri: str = Field("", validation_alias="mlflow_tracking_uri")
    mlflow_experiment_name: str = Field("router", validation_alias="mlflow_experiment_name")

    proxy: SecretStr | None = None  # the proxy to upstreams and MLflow; None: as HTTPS_PROXY and its like say; "none"
    ca_bundle: Path | None = None  # certificates trusted instead of the system's; None: SSL_CERT_FILE, or the system's
    api_keys: Secrets = ()  # of admins, beside the named keys; without any key only loopback is served
    metrics_key: Annotated[SecretStr, AfterValidator(_long_enough_one)] | None = None  # reads /metrics and nothing else
    hosts: Names = ()  # names by which this machine may be called without keys, beside those of loopback
    cors_origins: Names = ()  # sites whose pages may ask, as https://app.example.com
    forward_client_keys: bool = False  # send the client's own key upstream
    alert_webhook: Annotated[SecretStr, AfterValidator(_a_url)] | None = None  # the URL that alerts are posted to
    home: Path = Path(".router")  # journal, usage, policies
    keys_file: Path | None = None  # the named keys and teams; None: keys.json in the home folder
    policy: Path | None = None  # None: the one that was promoted, else the one that is shipped
    usage_database: SecretStr | None = None  # URL of the usage tables, as PostgreSQL; None: SQLite in the home folder
    state: Annotated[SecretStr, AfterValidator(_a_redis_url)] | None = None  # Redis, for limits that workers share
    state_failure: Literal["closed", "open"] = "closed"  # keys with limits, while Redis is away: refused, or local
    pair: Annotated[Names, AfterValidator(_a_pair)] = ()  # cheap and strong model, before they are calibrated
    default_target: float | None = Field(None, gt=0, le=1)  # None: the policy's
    routed_models: Names = ()  # names beside `auto` that are routed, for clients that cannot be changed
    record_content: Content = "whole"  # what of questions and answers the journal keeps
    adapt: bool = True  # change parameters that the model chosen for `auto` does not take
    fallbacks: Annotated[Names, AfterValidator(_known_fallbacks)] = ("context_length_exceeded",)
    verify: Literal["off", "form", "content"] = "off"  # of answers to `auto`, where the request does not say
    verify_hold_tokens: int = Field(32, ge=0, le=4096)  # of prose that a verified stream holds back at first
    echo_asked_model: bool = False  # answers bear the name the client asked for, and not the one that served
    max_body_bytes: int = Field(64 * 2**20, gt=0)
    max_requests: int = Field(10_000, ge=1)  # in flight in one worker; a stream that waits costs little
    memory_budget_mb: int = Field(512, ge=16)  # MiB that the requests in flight of one worker may hold together
    max_attempts: int = Field(3, ge=1)  # calls to one model, before the next is tried
    keep_alive_seconds: float = Field(0.0, ge=0)  # SSE comments while a stream waits for its first byte; 0: none
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
        """The environment goes before the file. There is no .env: what a shell exports is what counts."""
        return init_settings, env_settings, _RouterToml(settings_cls, CONFIG)

    @cached_property
    def base_url(self) -> str:
        """Where requests go, without a trailing slash; the built-in simulation where there is nobody to ask."""
        if self.openai_base_url:
            return self.openai_base_url.rstrip("/")
        keyed = self.openai_api_key is not None or self.forward_client_keys
        return OPENAI_BASE_URL if keyed else SIMULATED

    @cached_property
    def network(self) -> Network:
        """How other machines are reached, by these settings and the environment; read when the settings are.

        Raises:
            SettingsError: the proxy is no address of one.
        """
        proxy = "" if self.proxy is None else self.proxy.get_secret_value()
        try:
            return Network.read(proxy, "" if self.ca_bundle is None else str(self.ca_bundle), os.environ)
        except ProxyAddressError as error:
            raise SettingsError(f"setting {error}") from None

    @property
    def simulated(self) -> bool:
        """Whether answers come from the built-in upstream, for want of a key and an address."""
        return self.base_url == SIMULATED

    @property
    def keys_path(self) -> Path:
        """The file of the named keys and their teams."""
        return self.home / KEYS_FILE if self.keys_file is None else self.keys_file

    @property
    def tracking_uri(self) -> str:
        """MLflow's store: as set, or SQLite in the home folder."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home.absolute() / 'mlflow.db'}"

    @property
    def usage_url(self) -> str:
        """Where the usage tables are; it may hold a password."""
        if self.usage_database is not None:
            return self.usage_database.get_secret_value()
        return f"sqlite:///{self.home.absolute() / 'usage.db'}"


def load(**given: Any) -> Settings:
    """Read the settings; `given` goes before the environment, and that before `router.toml`.

    Raises:
        SettingsError: a value does not fit; names the setting and not its value.
    """
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        prefix = "" if name.startswith(("openai_", "mlflow_", "ROUTER_", "OPENAI_", "MLFLOW_")) else "router_"
        where = ".".join(((prefix + name).upper(), *map(str, first["loc"][1:])))
        raise SettingsError(f"setting {where}: {first['msg']}") from None
    except (ValueError, OSError) as error:  # router.toml is not TOML, or a list in the environment is not JSON
        raise SettingsError(f"{CONFIG}: {error}") from None
    _ = settings.network  # read once, with the rest
    if settings.forward_client_keys and settings.api_keys:
        raise SettingsError(
            "ROUTER_FORWARD_CLIENT_KEYS would send this router's own keys to the upstream: set it or ROUTER_API_KEYS"
        )
    return settings


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at `host`.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("127.evil.example")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def with_home(settings: Settings) -> Settings:
    """Make the home folder, so that all that follow may write to it; its files are for its owner only.

    Raises:
        SettingsError: it cannot be made, read or written to.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(PermissionError):  # the root of a volume may be another's, and yet be written to
            settings.home.chmod(0o700)
        if not os.access(settings.home, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no right to read and write there", str(settings.home))
    except OSError as error:
        raise SettingsError(f"setting ROUTER_HOME: {error.filename}: {error.strerror}") from error
    return settings
