"""The named keys of a running router: loaded at the start, and reloaded when their file changes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from router.client.keyfile import Roster, read_roster
from router.client.keys import Keys
from router.lifetime import repeating
from router.settings import Settings, SettingsError
from router.shared_file import signature

log = logging.getLogger("router")
CHECK_INTERVAL_SECONDS = 1.0


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
    """Reloads the named keys of `keys` when their file changes."""

    def __init__(self, settings: Settings) -> None:
        """Load the file.

        Raises:
            SettingsError: see `served_keys`.
        """
        self._settings = settings
        self._seen = signature(settings.keys_path)  # before the file is read, so that no change is missed
        named = served_keys(settings)
        self._had_keys = bool(named.keys)
        self.keys = Keys(settings.api_keys, named, settings.metrics_key)

    def check(self) -> None:
        """Load the file if it has changed. If it is damaged or missing, the keys stay and `keys.problem` is set."""
        now = signature(self._settings.keys_path)
        if now == self._seen:
            return
        try:
            named = served_keys(self._settings)
            if self._had_keys and not named.keys:
                raise SettingsError(f"{self._settings.keys_path}: contains no keys any more")
            self.keys.replace_named(named)  # between two requests
        except SettingsError as error:
            self._report(str(error))
        except Exception as error:  # the file is checked again later
            self._report(type(error).__name__)
            log.exception("the named keys could not be loaded")
        else:
            self._had_keys, self.keys.problem = bool(named.keys), ""
            log.info("keys: %d named keys loaded", len(named.keys))
        self._seen = now

    def _report(self, problem: str) -> None:
        self.keys.problem = problem
        log.error("changes of the keys were not applied: %s", problem)


@contextlib.asynccontextmanager
async def following_keys(watch: KeyWatch) -> AsyncIterator[None]:
    """Reload the named keys when their file changes, while the context is open."""
    async with repeating(watch.check, CHECK_INTERVAL_SECONDS):
        yield
