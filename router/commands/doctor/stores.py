"""The stores of what is recorded: MLflow and the usage tables."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
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
    """Whether MLflow's store can be reached: a database, or the health of a server."""
    subject, setting = "MLflow store", "MLFLOW_TRACKING_URI"
    if not uri.startswith(("http://", "https://")):
        return database(subject, uri, setting)
    address = mask_credentials(uri)
    remedy = f"Start it, or correct {setting}; what is recorded waits in the journal"
    try:
        parts = urlsplit(uri)
        origin = Origin.parse(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
        status = get(origin, b"/health", _basic(parts.username, parts.password), network).status
        address += proxied(origin, network)
    except ValueError as error:
        return Finding(State.PROBLEM, subject, str(error), remedy)
    except NoResponseError as error:
        return Finding(State.PROBLEM, subject, f"{address} gives {error}", proxy_remedy(error) or remedy)
    if status in (401, 403):
        told = f"{address} asks for a login ({status}), so it could not be checked"
        return Finding(State.WARNING, subject, told, "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if status != 200:
        return Finding(State.PROBLEM, subject, f"{address} answers {status} to /health", remedy)
    return Finding(State.OK, subject, f"{address} answers")


def database(subject: str, url: str, setting: str) -> Finding:
    """Whether the database at `url` can be opened. A SQLite file that is not there yet is no problem."""
    shown = mask_credentials(url).partition("?")[0]  # what follows may hold a password as well
    if url.startswith("sqlite:///"):
        return _sqlite(subject, Path(url.removeprefix("sqlite:///")), setting)
    try:
        _connect(url)
    except ImportError as error:
        told = f"{shown} needs the module {error.name}"
        return Finding(State.PROBLEM, subject, told, "Install calibrated-router[postgresql]")
    except Exception as error:  # whatever the driver raises; its first line, which may name the login
        told = without_passwords((str(getattr(error, "orig", None) or error).splitlines() or [""])[0])
        return Finding(State.PROBLEM, subject, f"{shown} cannot be opened: {told}", f"Start it, or correct {setting}")
    return Finding(State.OK, subject, f"{shown} answers")


def redis(url: str, network: Network) -> Finding:
    """Whether the Redis of shared limits answers, and runs scripts."""
    subject, setting, shown = "Redis", "ROUTER_STATE", mask_credentials(url)
    try:
        asyncio.run(check(url, network, TIMEOUT_SECONDS))
    except ImportError as error:
        told = f"{shown} needs the module {error.name}"
        return Finding(State.PROBLEM, subject, told, f"Install {EXTRA}")
    except Exception as error:  # whatever the client raises; its text may hold what was sent
        told = f"{shown} cannot be used: {type(error).__name__}"
        return Finding(State.PROBLEM, subject, told, f"Start it, or correct {setting}")
    return Finding(State.OK, subject, f"{shown} answers")


def _sqlite(subject: str, path: Path, setting: str) -> Finding:
    if not path.exists():
        return Finding(State.OK, subject, f"{path} is made by the first start")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as file:
            file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return Finding(State.PROBLEM, subject, f"{path} cannot be read: {error}", f"Move it away, or set {setting}")
    return Finding(State.OK, subject, f"{path} can be read")


def _connect(url: str) -> None:
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    patient = parsed.get_backend_name() in ("postgresql", "mysql")
    engine = sa.create_engine(parsed, connect_args={"connect_timeout": int(TIMEOUT_SECONDS)} if patient else {})
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    finally:
        engine.dispose()


def _basic(user: str | None, password: str | None) -> bytes | None:
    if user is None:
        return None
    return b"Basic " + base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode())
