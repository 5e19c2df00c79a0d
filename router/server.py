"""Starting and stopping: what `serve` does around the application."""

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
from router.upstream.simulated import NOTICE
from router.upstream.upstreams import Upstreams

log = logging.getLogger("router")
BACKLOG = 2048
WORKER_START_SECONDS = 60  # a worker that is slow to start, on a busy machine, is not dead
KEEP_ALIVE_SECONDS = 75  # longer than clients and load balancers keep a connection, so that they end it and not we


def run(host: str, port: int, workers: int) -> None:
    """Serve until stopped; running requests are finished first, and what is recorded is exported.

    Raises:
        SettingsError, PolicyError: what it would run on does not fit its form.
    """
    settings = with_home(load())
    host = host.strip("[]")  # as an IPv6 address stands in a URL
    named = served_keys(settings)
    if not settings.api_keys and not named and not is_loopback(host):
        raise SettingsError(
            f"serving {host} needs keys that clients must present: make one with `python -m router keys add NAME`, "
            "set ROUTER_API_KEYS, or serve 127.0.0.1"
        )
    limited = next((key.name for key in named if key.limits and key.state(time.time()) == "active"), None)
    if workers > 1 and limited is not None and settings.state is None:
        raise SettingsError(
            f"key {limited} has limits, which several workers share in Redis alone: set ROUTER_STATE, "
            "or serve with --workers 1"
        )
    lines = logging_config(simulated=settings.simulated)
    logging.config.dictConfig(lines)
    _check(settings)
    if settings.simulated:
        log.warning("%s", NOTICE)
    _configure_mlflow()
    _open_many_files()
    metrics.clear(settings.home / "metrics")
    if workers > 1:
        _share(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn stops at it, and then raises it once more
    with _exporter(settings):
        uvicorn.run(
            "router.app:create_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            log_config=lines,
            **server_options(settings),
        )


def _check(settings: Settings) -> None:
    """Read what will be served before any worker starts, so that what is wrong is said once; nothing of it is kept."""
    policy, _ = served_policy(settings)
    prices(settings)
    Upstreams(settings)
    process.require_store(settings.tracking_uri)
    log.info("policy %s: %s", policy.version, ", ".join(model.name for model in policy.rules.models))


def server_options(settings: Settings) -> dict[str, Any]:
    """How uvicorn is to serve: nothing of its own on the wire, and time for running requests when it stops."""
    return {
        "http": BoundedProtocol,
        "ws": "none",
        "access_log": False,
        "proxy_headers": False,  # who is in front of us changes nothing
        "server_header": False,
        "date_header": False,
        "backlog": BACKLOG,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_worker_healthcheck": WORKER_START_SECONDS,
        "timeout_graceful_shutdown": int(settings.timeouts.drain),
    }


def _open_many_files() -> None:
    """Allow as many open files as the system does: a stream takes two, and shells often start with 1,024."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _share(settings: Settings) -> None:
    """Have a worker that SIGHUP starts, and that reads its settings anew, still share what the exporter goes by."""
    os.environ["ROUTER_HOME"] = str(settings.home.absolute())
    os.environ["ROUTER_USAGE_DATABASE"] = settings.usage_url


def _configure_mlflow() -> None:
    os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")  # else the first look-up of a cost stalls without a network


@contextlib.contextmanager
def _exporter(settings: Settings) -> Iterator[None]:
    running = process.start(settings)
    try:
        yield
    finally:
        running.stop()


class _NoBrokenStreams(logging.Filter):
    """A stream that is broken on purpose is in the journal, and is no error of the server's."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep the line."""
        return "without completing response" not in record.getMessage()


def logging_config(*, simulated: bool) -> dict[str, Any]:
    """Lines of ours and of uvicorn in one form; where answers are simulated, each line says so."""
    mark = "SIMULATED " if simulated else ""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"broken": {"()": "router.server._NoBrokenStreams"}},
        "formatters": {"plain": {"format": mark + "%(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "filters": ["broken"]}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
    }
