"""The champion of MLflow's registry: the exporter downloads it to the home folder, and every worker serves it.

Workers do not import MLflow. They watch the link `policy` in the home folder. The exporter, a separate process,
downloads the champion, checks it, and then moves the link. An invalid champion or an unavailable registry changes
nothing. When no version is champion any more, the exporter removes the link, and the shipped policy is served.
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

from router.lifetime import repeating
from router.policy.document import CHAMPION, FILES, REGISTERED_MODEL, PolicyError
from router.serving.policy import Serving, policy_folder, read_policy, save_policy
from router.settings import Settings, SettingsError

log = logging.getLogger("router")
FETCH_EVERY_SECONDS = 3.0
CHECK_EVERY_SECONDS = 1.0
_importing = threading.Lock()


class Collaborators(Protocol):
    """What `following_champion` works with."""

    settings: Settings
    serving: Serving


@contextlib.asynccontextmanager
async def following_champion(worker: Collaborators) -> AsyncIterator[None]:
    """Serve each newly promoted policy while the context is open, unless the settings name a policy."""
    if worker.settings.policy is not None:
        yield
        return
    async with repeating(ChampionWatch(worker).check, CHECK_EVERY_SECONDS):
        yield


class ChampionWatch:
    """Replaces the policy of a worker when the home folder points to another one."""

    def __init__(self, worker: Collaborators) -> None:
        self._settings = worker.settings
        self._serving = worker.serving
        self._folder: Path | None = None  # the last one that was read

    async def check(self) -> None:
        """Serve the promoted policy if it is another one than before; log why it cannot be served."""
        try:
            folder = (await asyncio.to_thread(policy_folder, self._settings)).resolve()
        except SettingsError as error:  # the promoted policy cannot be transferred to the configured pair of models
            self._folder = None
            if self._serving.problem != str(error):
                log.error("policy %s remains in use: %s", self._serving.policy.version, error)
            self._serving.problem = str(error)
            return
        if folder != self._folder:
            self._folder = folder
            await self._read(folder)

    async def _read(self, folder: Path) -> None:
        version = self._serving.policy.version
        try:
            policy = await asyncio.to_thread(read_policy, folder)
        except PolicyError as error:
            self._serving.problem = f"the promoted policy cannot be read: {error}"
            log.error("policy %s remains in use because the promoted policy is invalid: %s", version, error)
            return
        except Exception as error:  # a later policy may be readable
            self._serving.problem = f"the promoted policy cannot be read: {type(error).__name__}"
            log.exception("policy %s remains in use because the promoted policy cannot be read", version)
            return
        self._serving.problem = ""
        if policy.version != version:
            self._serving.policy = policy  # one assignment, so that a request sees either policy as a whole
            log.info("policy %s replaces %s", policy.version, version)


def import_mlflow() -> None:
    """Import MLflow in one thread at a time; concurrent imports leave it incomplete for the rest of the process."""
    with _importing:
        import mlflow  # noqa: F401


def keep_fetching(settings: Settings, stopping: threading.Event) -> None:
    """Download each new champion until `stopping` is set. Runs in the exporter."""
    if settings.policy is None:
        fetch_repeatedly(fetch, "champion", settings, FETCH_EVERY_SECONDS, stopping)


def fetch_repeatedly(
    fetch: Callable[[Settings, str], str], name: str, settings: Settings, seconds: float, stopping: threading.Event
) -> None:
    """Call `fetch` every `seconds` with its last result, at first "", until `stopping` is set."""
    previous = ""
    while not stopping.wait(seconds):
        try:
            previous = fetch(settings, previous)
        except Exception as error:  # MLflow may be unavailable or fail in any way; the exporter goes on
            log.warning("the %s cannot be fetched from MLflow: %s: %s", name, type(error).__name__, str(error)[:300])


def fetch(settings: Settings, known_version: str = "") -> str:
    """Download the champion and link to it, unless its version is `known_version`. Returns its version.

    Without a champion, the link is removed and "" is returned. An invalid champion is logged and not downloaded again
    until there is another version.
    """
    if not _registry_exists(settings.tracking_uri):
        return known_version
    import_mlflow()
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient(tracking_uri=settings.tracking_uri)
    try:
        champion = client.get_model_version_by_alias(REGISTERED_MODEL, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return _without_champion(client, settings.home, known_version)
        raise
    if champion.version == known_version:
        return known_version
    with tempfile.TemporaryDirectory() as folder:
        place = mlflow.artifacts.download_artifacts(
            artifact_uri=champion.source, dst_path=folder, tracking_uri=settings.tracking_uri
        )
        try:
            policy = read_policy(Path(place))
        except PolicyError as error:
            log.error("version %s, the champion, is invalid and is not served: %s", champion.version, error)
        else:
            files = {name: (Path(place) / name).read_bytes() for name in FILES if (Path(place) / name).exists()}
            link_policy(settings.home, policy.version, files)
    return str(champion.version)


def _without_champion(client: Any, home: Path, known_version: str) -> str:
    """Remove the link to a champion that was rolled back, if the registry has the model."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(REGISTERED_MODEL).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return known_version  # nothing was promoted yet, or this is another registry
        raise
    if CHAMPION in aliases:
        return known_version  # promoted since the request above; the next call downloads it
    unlink_policy(home)
    return ""


def _registry_exists(uri: str) -> bool:
    """Whether the store may have the model. A SQLite store is read directly, because MLflow would create it."""
    if not uri.startswith("sqlite:///"):
        return True
    path = Path(uri.removeprefix("sqlite:///"))
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            row = store.execute("SELECT 1 FROM registered_models WHERE name = ?", (REGISTERED_MODEL,)).fetchone()
    except sqlite3.Error:
        return False
    return row is not None


def link_policy(home: Path, version: str, files: dict[str, bytes]) -> None:
    """Save a policy under its version, and make the link `policy` point to it atomically."""
    folder = save_policy(home, version, files)
    link = home / "policy"
    if link.exists() and not link.is_symlink():
        log.warning("%s is a folder, not a link, and is served; remove it to serve the champion", link)
        return
    if link.is_symlink() and link.resolve() == folder.resolve():
        return
    partial_link = home / f".policy-{os.getpid()}"
    partial_link.unlink(missing_ok=True)
    partial_link.symlink_to(Path("policies") / version)
    partial_link.replace(link)
    log.info("the champion is policy %s", version)


def unlink_policy(home: Path) -> None:
    """Remove the link to a promoted policy, so that the shipped policy is served; a link to elsewhere remains."""
    link = home / "policy"
    if link.is_symlink() and link.resolve().parent == (home / "policies").resolve():
        link.unlink()
        log.info("no version is champion any more; the shipped policy is served")
