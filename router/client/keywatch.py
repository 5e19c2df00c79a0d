"""The named keys of a running router: read when it starts, and again whenever their file is another one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from router.client.keyfile import FILE, NamedKey, read_keys
from router.client.keys import Keys
from router.lifetime import repeating
from router.settings import Settings, SettingsError
from router.shared_file import signature

log = logging.getLogger("router")
LOOK_EVERY_SECONDS = 1.0


def served_keys(settings: Settings) -> tuple[NamedKey, ...]:
    """The named keys that a router with these settings accepts.

    Raises:
        SettingsError: their file is damaged, or ROUTER_FORWARD_CLIENT_KEYS would send them to the upstream.
    """
    path = settings.home / FILE
    found = read_keys(path)
    if found and settings.forward_client_keys:
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
        self._seen = signature(settings.home / FILE)  # first: what changes meanwhile is looked at again
        named = served_keys(settings)
        self._had_keys = bool(named)
        self.keys = Keys(settings.api_keys, named, settings.metrics_key)

    def look(self) -> None:
        """Take up a file that changed. One that is damaged, or gone, changes nothing but `problem`."""
        now = signature(self._settings.home / FILE)
        if now == self._seen:
            return
        try:
            named = served_keys(self._settings)
            if self._had_keys and not named:
                raise SettingsError(f"{self._settings.home / FILE}: holds no key any more")
            self.keys.take(named)  # between two requests
        except SettingsError as error:
            self._tell(str(error))
        except Exception as error:  # whatever it is, the next file is looked for
            self._tell(type(error).__name__)
            log.exception("the keys cannot be read")
        else:
            self._had_keys, self.keys.problem = bool(named), ""
            log.info("keys: %d named keys are known", len(named))
        self._seen = now

    def _tell(self, problem: str) -> None:
        self.keys.problem = problem
        log.error("the keys stay as they were: %s", problem)


@contextlib.asynccontextmanager
async def following_keys(watch: KeyWatch) -> AsyncIterator[None]:
    """Read the named keys again whenever their file changes, while the context is open."""
    async with repeating(watch.look, LOOK_EVERY_SECONDS):
        yield
