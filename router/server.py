"""Starting and stopping the server process for `router serve`."""

from __future__ import annotations

import contextlib
import logging
import logging.config
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from router import metrics
from router.client.keywatch import served_keys
from router.client.protocol import BoundedProtocol
from router.exporter import process
from router.serving.policy import prices, served_policy
from router.settings import Settings, SettingsError, is_loopback, load, with_home
from router.upstream.calls import Origin
from router.upstream.upstreams import Upstreams

log = logging.getLogger("router")
BACKLOG = 2048
WORKER_START_SECONDS = 60  # on a busy machine, before a worker counts as dead
KEEP_ALIVE_SECONDS = 75  # longer than that of clients and load balancers, so that they close first


def run(host: str, port: int, workers: int) -> None:
    """Serve until stopped. On shutdown, requests in flight are finished and records are exported.

    Raises:
        SettingsError, PolicyError: the settings, the keys or the policy are invalid.
    """
    settings = with_home(load())
    host = host.strip("[]")  # the brackets of an IPv6 address in a URL
    named = served_keys(settings)
    if not settings.api_keys and not named.keys and not is_loopback(host):
        raise SettingsError(
            f"serving {host} requires API keys: create one with `python -m router keys add NAME`, "
            "set ROUTER_API_KEYS, or serve 127.0.0.1"
        )
    holdings = (held_to for key, held_to in named.holdings() if held_to and key.state(time.time()) == "active")
    limited = next(holdings, None)
    if workers > 1 and limited is not None and settings.state is None:
        raise SettingsError(
            f"{limited[0][0]} has limits, and several workers can share limits only through Redis: set ROUTER_STATE, "
            "or serve with --workers 1"
        )
    log_config = logging_config(simulated=settings.simulated)
    logging.config.dictConfig(log_config)
    _validate(settings, host, port)
    if settings.simulated:
        log.warning("Answers are simulated, because no OPENAI_API_KEY is set.")
    _configure_mlflow()
    _open_many_files()
    metrics.clear(settings.home / "metrics")
    if workers > 1:
        _export_locations(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn stops on SIGTERM and then raises it again
    with _exporter(settings):
        uvicorn.run(
            "router.app:create_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            log_config=log_config,
            **server_options(settings),
        )


def _validate(settings: Settings, host: str, port: int) -> None:
    """Load the configuration before any worker starts, so that an error is reported only once."""
    policy, _ = served_policy(settings)
    prices(settings)
    for endpoint in Upstreams(settings).all:
        if endpoint.origin is not None and _is_served_at(endpoint.origin, host, port):
            raise SettingsError(
                f"the upstream {endpoint.origin.authority.decode()} is the address of this router, which would send "
                "requests to itself: unset or correct OPENAI_BASE_URL, or the model's base_url"
            )
    process.require_store(settings.tracking_uri)
    log.info("policy %s: %s", policy.version, ", ".join(model.name for model in policy.rules.models))


def _is_served_at(origin: Origin, host: str, port: int) -> bool:
    """Whether the upstream at `origin` is a server on this machine that listens on `host` and `port`.

    >>> upstream = Origin.parse("http://127.0.0.1:8000/v1")
    >>> [_is_served_at(upstream, host, 8000) for host in ("127.0.0.1", "localhost", "0.0.0.0", "::1")]
    [True, True, True, False]
    >>> _is_served_at(upstream, "127.0.0.1", 8001), _is_served_at(Origin.parse("http://10.0.0.2:8000"), "0.0.0.0", 8000)
    (False, False)
    """
    hosts = {origin.host, host}
    is_same_host = len(hosts) == 1 or bool(hosts & {"localhost", "0.0.0.0", "::"})  # noqa: S104  compared, not bound
    return origin.port == port and is_loopback(origin.host) and is_same_host


def server_options(settings: Settings) -> dict[str, Any]:
    """uvicorn's options: no headers and logs of its own, and time to finish requests on shutdown."""
    return {
        "http": BoundedProtocol,
        "ws": "none",
        "access_log": False,
        "proxy_headers": False,  # forwarded addresses are not used
        "server_header": False,
        "date_header": False,
        "backlog": BACKLOG,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_worker_healthcheck": WORKER_START_SECONDS,
        "timeout_graceful_shutdown": int(settings.timeouts.drain),
    }


def _open_many_files() -> None:
    """Raise the limit of open files to the system's maximum. A stream needs two; the usual limit is 1,024."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))


def _export_locations(settings: Settings) -> None:
    """Fix the locations that workers share with the exporter, for workers that SIGHUP starts with new settings."""
    os.environ["ROUTER_HOME"] = str(settings.home.absolute())
    os.environ["ROUTER_USAGE_DATABASE"] = settings.usage_url


def _configure_mlflow() -> None:
    os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")  # otherwise the first cost lookup stalls without a network


@contextlib.contextmanager
def _exporter(settings: Settings) -> Iterator[None]:
    running = process.start(settings)
    try:
        yield
    finally:
        running.stop()


class _HideBrokenStreams(logging.Filter):
    """Hides uvicorn's errors about streams that the router breaks off. The journal records those streams."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the record."""
        return "without completing response" not in record.getMessage()


def logging_config(*, simulated: bool) -> dict[str, Any]:
    """One log format for the router and uvicorn. With `simulated`, each line is marked."""
    mark = "SIMULATED " if simulated else ""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"broken": {"()": "router.server._HideBrokenStreams"}},
        "formatters": {"plain": {"format": mark + "%(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["broken"]}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
    }
