"""The champion of MLflow's registry: fetched into the home folder by the exporter, and taken up by every worker.

The workers never see MLflow: they watch where `policy` in the home folder points to. The exporter, a process of its
own, asks the registry, reads what it gets, and only then moves the link. So a champion that is broken is never pointed
to, and a registry that is away leaves everything as it is. Where the registry says that no version is champion any
more, the link is removed, and the shipped policy serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol

from router.lifetime import running
from router.policy.document import CHAMPION, FILES, REGISTERED_MODEL, PolicyError
from router.serving.policy import Serving, keep_policy, policy_folder, read_policy
from router.settings import Settings, SettingsError

log = logging.getLogger("router")
FETCH_EVERY_SECONDS = 3.0
LOOK_EVERY_SECONDS = 1.0
_importing = threading.Lock()


class Collaborators(Protocol):
    """What a champion is taken up by."""

    settings: Settings
    serving: Serving


def import_mlflow() -> None:
    """Import MLflow in one thread at a time: two at once each get half of it, and that stays so in their process."""
    with _importing:
        import mlflow  # noqa: F401


@contextlib.asynccontextmanager
async def following(worker: Collaborators) -> AsyncIterator[None]:
    """Take up what is promoted while the application runs; a policy that the settings name stays."""
    if worker.settings.policy is not None:
        yield
        return
    async with running(_follow(worker)):
        yield


async def _follow(worker: Collaborators) -> None:
    seen: Path | None = None
    while True:
        try:
            folder = (await asyncio.to_thread(policy_folder, worker.settings)).resolve()
        except SettingsError as error:  # nothing can be transferred from what was promoted
            seen, before = None, worker.serving.problem
            worker.serving.problem = str(error)
            if before != str(error):
                log.error("policy %s stays: %s", worker.serving.policy.version, error)
        else:
            if folder != seen:
                seen = folder
                await _take_up(worker, folder)
        await asyncio.sleep(LOOK_EVERY_SECONDS)


async def _take_up(worker: Collaborators, folder: Path) -> None:
    before = worker.serving.policy.version
    try:
        policy = await asyncio.to_thread(read_policy, folder)
    except PolicyError as error:
        worker.serving.problem = f"the promoted policy cannot be read: {error}"
        log.error("policy %s stays, since the new one is broken: %s", before, error)
        return
    except Exception as error:  # whatever it is, the next one is looked for
        worker.serving.problem = f"the promoted policy cannot be read: {type(error).__name__}"
        log.exception("policy %s stays, since the new one cannot be read", before)
        return
    worker.serving.problem = ""
    if policy.version != before:
        worker.serving.policy = policy  # one assignment: a request has the one or the other
        log.info("policy %s takes the place of %s", policy.version, before)


def keep_fetching(settings: Settings, stopping: threading.Event) -> None:
    """Fetch the champion whenever it is another one, until told to stop. Runs in the exporter."""
    if settings.policy is None:
        fetch_again_and_again(fetch, "champion", settings, FETCH_EVERY_SECONDS, stopping)


def fetch_again_and_again(
    fetch: Callable[[Settings, str], str], name: str, settings: Settings, seconds: float, stopping: threading.Event
) -> None:
    """Call `fetch` every so many seconds with what it returned last, first with "", until told to stop."""
    seen = ""
    while not stopping.wait(seconds):
        try:
            seen = fetch(settings, seen)
        except Exception as error:  # an MLflow that is away or confused must not end the exporter
            log.warning("the %s could not be looked up: %s: %s", name, type(error).__name__, str(error)[:300])


def fetch(settings: Settings, seen: str = "") -> str:
    """Point the home folder at the champion, unless it is the version `seen`; returns the version it is now.

    Where no version is champion any more, the home folder points to none, and "" is returned. A champion that is
    broken is logged, left out, and not tried again until there is another.
    """
    if not _may_hold_a_champion(settings.tracking_uri):
        return seen
    import_mlflow()
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient(tracking_uri=settings.tracking_uri)
    try:
        champion = client.get_model_version_by_alias(REGISTERED_MODEL, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return _without_champion(client, settings.home, seen)
        raise
    if champion.version == seen:
        return seen
    with tempfile.TemporaryDirectory() as folder:
        place = mlflow.artifacts.download_artifacts(
            artifact_uri=champion.source, dst_path=folder, tracking_uri=settings.tracking_uri
        )
        try:
            policy = read_policy(Path(place))
        except PolicyError as error:
            log.error("version %s of the champion is broken and is left out: %s", champion.version, error)
        else:
            files = {name: (Path(place) / name).read_bytes() for name in FILES if (Path(place) / name).exists()}
            point_to(settings.home, policy.version, files)
    return str(champion.version)


def _without_champion(client: Any, home: Path, seen: str) -> str:
    """Let go of a champion that was rolled back; a registry without the model says nothing about that."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(REGISTERED_MODEL).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return seen  # nothing was ever promoted, or this is another registry
        raise
    if CHAMPION in aliases:
        return seen  # promoted since the first question; the next look finds it
    point_to_none(home)
    return ""


def _may_hold_a_champion(uri: str) -> bool:
    """Whether there is anything to ask for. A SQLite store is looked at as a file: asking MLflow could create it."""
    if not uri.startswith("sqlite:///"):
        return True
    path = Path(uri.removeprefix("sqlite:///"))
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            found = store.execute("SELECT 1 FROM registered_models WHERE name = ?", (REGISTERED_MODEL,)).fetchone()
    except sqlite3.Error:
        return False
    return found is not None


def point_to(home: Path, version: str, files: dict[str, bytes]) -> None:
    """Keep a policy under its version, and let `policy` point to it: at once, and with all its files."""
    kept = keep_policy(home, version, files)
    link = home / "policy"
    if link.exists() and not link.is_symlink():
        log.warning("%s is a folder of its own and is served; remove it to follow the champion", link)
        return
    if link.is_symlink() and link.resolve() == kept.resolve():
        return
    partial_link = home / f".policy-{os.getpid()}"
    partial_link.unlink(missing_ok=True)
    partial_link.symlink_to(Path("policies") / version)
    partial_link.replace(link)
    log.info("the champion is policy %s", version)


def point_to_none(home: Path) -> None:
    """Remove the link to a promoted policy, so that the shipped one serves; what somebody else put there stays."""
    link = home / "policy"
    if link.is_symlink() and link.resolve().parent == (home / "policies").resolve():
        link.unlink()
        log.info("no policy is champion any more, so the shipped policy serves")
