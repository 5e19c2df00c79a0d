"""The named keys of a running router: read when it starts, and again whenever their file is another one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from router.client.keyfile import Roster, read_roster
from router.client.keys import Keys
from router.lifetime import running
from router.settings import Settings, SettingsError
from router.shared_file import signature

log = logging.getLogger("router")
LOOK_EVERY_SECONDS = 1.0


def served_keys(settings: Settings) -> Roster:
    """The named keys that a router with these settings accepts, and their teams.

    Raises:
        SettingsError: their file is damaged, or ROUTER_FORWARD_CLIENT_KEYS would send them to the upstream.
    """
    path = settings.keys_path
    found = read_roster(path)
    if found.keys and settings.forward_client_keys:
        raise SettingsError(
            f"ROUTER_FORWARD_CLIENT_KEYS would send the keys of {path} to the upstream: unset it or remove the file"
        )
    return found


class KeyWatch:
    """Looks whether the file of named keys changed, and has `keys` know what it says."""

    def __init__(self, settings: Settings) -> None:
        """Read the file for the first time.

        Raises:
            SettingsError: as `served_keys`.
        """
        self._settings = settings
        self._seen = signature(settings.keys_path)  # first: what changes meanwhile is looked at again
        named = served_keys(settings)
        self._had_keys = bool(named.keys)
        self.keys = Keys(settings.api_keys, named, settings.metrics_key)

    def look(self) -> None:
        """Take up a file that changed. One that is damaged, or gone, changes nothing but `problem`."""
        now = signature(self._settings.keys_path)
        if now == self._seen:
            return
        try:
            named = served_keys(self._settings)
            if self._had_keys and not named.keys:
                raise SettingsError(f"{self._settings.keys_path}: holds no key any more")
            self.keys.take(named)  # between two requests
        except SettingsError as error:
            self._tell(str(error))
        except Exception as error:  # whatever it is, the next file is looked for
            self._tell(type(error).__name__)
            log.exception("the keys cannot be read")
        else:
            self._had_keys, self.keys.problem = bool(named.keys), ""
            log.info("keys: %d named keys are known", len(named.keys))
        self._seen = now

    def _tell(self, problem: str) -> None:
        self.keys.problem = problem
        log.error("the keys stay as they were: %s", problem)


@contextlib.asynccontextmanager
async def following_keys(watch: KeyWatch) -> AsyncIterator[None]:
    """Take up changes of the named keys while the application runs."""
    async with running(_follow(watch)):
        yield


async def _follow(watch: KeyWatch) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        watch.look()  # a small file, and rarely another one
