"""The policy that is being served: read from its folder, and replaced as a whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from router.policy.catalogue import Catalogue, CatalogueError
from router.policy.distribution import MODELS, PRICES, SHIPPED
from router.policy.document import DOCUMENT, WEIGHTS, Policy, PolicyError, parse
from router.policy.prices import Price, PriceBook, PriceError
from router.settings import Settings, SettingsError

log = logging.getLogger("router")


def policy_folder(settings: Settings) -> Path:
    """Where the policy is read from: as set, else the promoted one, else the one that is shipped."""
    if settings.policy is not None:
        return settings.policy
    promoted = settings.home / "policy"
    return promoted if (promoted / DOCUMENT).exists() else SHIPPED


def read_policy(folder: Path) -> Policy:
    """Read a policy folder.

    Raises:
        PolicyError: it is missing or does not parse; names the file.
    """
    files = {}
    for name in (DOCUMENT, WEIGHTS):
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise PolicyError(str(folder / name), f"cannot be read: {error.strerror}") from error
    try:
        return parse(files)
    except PolicyError as error:
        raise PolicyError(str(folder / error.file), error.problem) from error


def served_policy(settings: Settings) -> tuple[Policy, str]:
    """The policy to start with, and why it is not the promoted one: that cannot be read, and the shipped one serves.

    Raises:
        PolicyError: the policy that the settings name, or the shipped one, cannot be read.
    """
    folder = policy_folder(settings)
    try:
        return read_policy(folder), ""
    except PolicyError as error:
        if settings.policy is not None or folder == SHIPPED:
            raise
        problem = f"the promoted policy cannot be read: {error}"
        log.error("%s; the shipped one serves", problem)
        return read_policy(SHIPPED), problem


class Serving:
    """The policy of this process; `policy` is swapped in one assignment, between two requests."""

    def __init__(self, policy: Policy, problem: str, settings: Settings) -> None:
        self.policy = policy
        self.problem = problem  # why another policy than this one is not served, or nothing
        self._default_target = settings.default_target

    @property
    def default_target(self) -> float:
        """What `auto` keeps of the strong model's quality."""
        return self._default_target or self.policy.default_target


def prices(settings: Settings) -> PriceBook:
    """The price table, with the prices of the settings in their place.

    Raises:
        SettingsError: a table does not fit its form.
    """
    try:
        book = PriceBook.parse(msgspec.json.decode(PRICES.read_bytes()))
    except (OSError, msgspec.DecodeError, PriceError) as error:
        raise SettingsError(f"{PRICES}: {error}") from error
    own = {}
    for name, model in settings.models.items():
        read, written = model.usd_per_million_input_tokens, model.usd_per_million_output_tokens
        if read is not None and written is not None:
            own[name] = Price(read, written, model.usd_per_million_cached_input_tokens)
        elif read is not None or written is not None:
            raise SettingsError(f"setting models.{name}: a price needs both input and output")
    return book.extended(PriceBook(own, {}))


def catalogue(aliases: Mapping[str, str]) -> Catalogue:
    """What is known of models beside their prices; `aliases` are those of the price book.

    Raises:
        SettingsError: the table does not fit its form.
    """
    try:
        return Catalogue.parse(msgspec.json.decode(MODELS.read_bytes()), aliases)
    except (OSError, msgspec.DecodeError, CatalogueError) as error:
        raise SettingsError(f"{MODELS}: {error}") from error
