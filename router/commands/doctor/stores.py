"""Checks of the stores: MLflow, the usage database and Redis."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from router.commands.doctor.finding import Finding, State
from router.commands.doctor.proxies import proxied, proxy_remedy
from router.journal.redaction import without_passwords
from router.limits.link import EXTRA, check
from router.policy.address import mask_credentials
from router.policy.network import Network
from router.upstream.calls import Origin
from router.upstream.standalone_call import TIMEOUT_SECONDS, NoResponseError, get


def mlflow_store(uri: str, network: Network) -> Finding:
    """Check that MLflow's store is reachable: open the database, or ask the server for its health."""
    subject, setting = "MLflow store", "MLFLOW_TRACKING_URI"
    if not uri.startswith(("http://", "https://")):
        return database(subject, uri, setting)
    address = mask_credentials(uri)
    remedy = f"Start it, or correct {setting}; until then, records stay in the journal"
    try:
        parts = urlsplit(uri)
        origin = Origin.parse(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
        status = get(origin, b"/health", _basic(parts.username, parts.password), network).status
        address += proxied(origin, network)
    except ValueError as error:
        return Finding(State.PROBLEM, subject, str(error), remedy)
    except NoResponseError as error:
        return Finding(State.PROBLEM, subject, f"{address}: {error}", proxy_remedy(error) or remedy)
    if status in (401, 403):
        message = f"{address} requires a login ({status}), so it could not be checked"
        return Finding(State.WARNING, subject, message, "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if status != 200:
        return Finding(State.PROBLEM, subject, f"{address} returns {status} for /health", remedy)
    return Finding(State.OK, subject, f"{address} is reachable")


def database(subject: str, url: str, setting: str) -> Finding:
    """Check that the database at `url` can be opened. A SQLite file that does not exist yet is valid."""
    shown = mask_credentials(url).partition("?")[0]  # the query string may hold a password too
    if url.startswith("sqlite:///"):
        return _sqlite(subject, Path(url.removeprefix("sqlite:///")), setting)
    try:
        _connect(url)
    except ImportError as error:
        message = f"{shown} requires the module {error.name}"
        return Finding(State.PROBLEM, subject, message, "Install calibrated-router[postgresql]")
    except Exception as error:  # drivers raise their own errors; the first line may name the login
        reason = without_passwords((str(getattr(error, "orig", None) or error).splitlines() or [""])[0])
        return Finding(State.PROBLEM, subject, f"{shown} cannot be opened: {reason}", f"Start it, or correct {setting}")
    return Finding(State.OK, subject, f"{shown} is reachable")


def redis(url: str, network: Network, unshared: Sequence[str] = ()) -> Finding:
    """Check that the Redis server for shared limits is reachable and runs scripts.

    `unshared` are the settings that several routers need in common, and that are not set.
    """
    subject, setting, shown = "Redis", "ROUTER_STATE", mask_credentials(url)
    try:
        asyncio.run(check(url, network, TIMEOUT_SECONDS))
    except ImportError as error:
        message = f"{shown} requires the module {error.name}"
        return Finding(State.PROBLEM, subject, message, f"Install {EXTRA}")
    except Exception as error:  # clients raise their own errors; the text may hold the command
        message = f"{shown} cannot be used: {type(error).__name__}"
        return Finding(State.PROBLEM, subject, message, f"Start it, or correct {setting}")
    remedy = f"If several routers share it, {' and '.join(unshared)} must be set, and the same" if unshared else ""
    return Finding(State.OK, subject, f"{shown} is reachable", remedy)


def _sqlite(subject: str, path: Path, setting: str) -> Finding:
    if not path.exists():
        return Finding(State.OK, subject, f"{path} is created at the first start")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as file:
            file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return Finding(State.PROBLEM, subject, f"{path} cannot be read: {error}", f"Move it away, or set {setting}")
    return Finding(State.OK, subject, f"{path} is readable")


def _connect(url: str) -> None:
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    has_timeout = parsed.get_backend_name() in ("postgresql", "mysql")
    engine = sa.create_engine(parsed, connect_args={"connect_timeout": int(TIMEOUT_SECONDS)} if has_timeout else {})
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    finally:
        engine.dispose()


def _basic(user: str | None, password: str | None) -> bytes | None:
    if user is None:
        return None
    return b"Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode())
