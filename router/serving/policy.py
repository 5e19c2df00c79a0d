"""The policy that is being served: read from its folder, and replaced as a whole."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from router.policy.answer_document import ANSWER_FILES
from router.policy.catalogue import Catalogue, CatalogueError
from router.policy.distribution import MODELS, PRICES, SHIPPED
from router.policy.document import DOCUMENT, FILES, Policy, PolicyError, dump, parse
from router.policy.models import model_named
from router.policy.prices import Price, PriceBook, PriceError
from router.policy.transfer import TransferError, transferred
from router.settings import Settings, SettingsError

log = logging.getLogger("router")


def policy_folder(settings: Settings) -> Path:
    """Where the policy is read from: as set, else the promoted one, else the one that is shipped.

    Where a pair of models is set that the promoted or shipped policy is not for, it is the one transferred from that.

    Raises:
        SettingsError: the pair has no price, or nothing can be transferred to it.
    """
    if settings.policy is not None:
        return settings.policy
    promoted = settings.home / "policy"
    return _for_the_pair(settings, promoted if (promoted / DOCUMENT).exists() else SHIPPED)


def _for_the_pair(settings: Settings, folder: Path) -> Path:
    if not settings.pair:
        return folder
    base = folder.resolve()
    made = _PAIRS.get((settings.home, base, settings.pair))
    if made is None or not (made / DOCUMENT).exists():
        try:
            policy = read_policy(base)
        except PolicyError:  # who reads it next tells what is wrong
            return folder
        made = _PAIRS[settings.home, base, settings.pair] = _folder_of_pair(settings, base, policy)
    return made


_PAIRS: dict[tuple[Path, Path, tuple[str, ...]], Path] = {}  # the folder of a pair's policy, by what it is made from


def _folder_of_pair(settings: Settings, base: Path, policy: Policy) -> Path:
    """The policy in `base` where it is of the pair, else the one that is transferred from it, kept in the home."""
    if tuple(model.name for model in policy.rules.models) == settings.pair:
        return base
    book = prices(settings)
    known = catalogue(book.aliases)
    models = [model_named(name, book, known) for name in settings.pair]
    for name, model in zip(settings.pair, models, strict=True):
        if model is None:
            raise SettingsError(f"setting ROUTER_PAIR: {name!r} has no price; set it in [models.{name!r}]")
    cheap, strong = models
    assert cheap is not None and strong is not None
    try:
        files = dump(transferred(policy, cheap, strong))
    except TransferError as error:
        raise SettingsError(f"setting ROUTER_PAIR: {error}") from error
    return keep_policy(settings.home, parse(files).version, files)


def keep_policy(home: Path, version: str, files: Mapping[str, bytes]) -> Path:
    """Keep a policy in the home folder under its version, at once and with all its files; returns its folder."""
    kept = home / "policies" / version
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".partial-"))
        for name, content in files.items():
            (partial / name).write_bytes(content)
        try:
            partial.rename(kept)
        except OSError:  # another process kept it meanwhile
            if not kept.exists():
                raise
            shutil.rmtree(partial)
    return kept


def read_policy(folder: Path) -> Policy:
    """Read a policy folder.

    Raises:
        PolicyError: it is missing or does not parse; names the file.
    """
    files = {}
    for name in FILES:
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            if name in ANSWER_FILES and isinstance(error, FileNotFoundError):
                continue
            raise PolicyError(str(folder / name), f"cannot be read: {error.strerror}") from error
    try:
        return parse(files)
    except PolicyError as error:
        raise PolicyError(str(folder / error.file), error.problem) from error


def served_policy(settings: Settings) -> tuple[Policy, str]:
    """The policy to start with, and why it is not the promoted one: that cannot be read, and the shipped one serves.

    Raises:
        PolicyError: the policy that the settings name, or the shipped one, cannot be read.
        SettingsError: a pair of models is set that no policy is for, and that none can be transferred to.
    """
    folder = policy_folder(settings)
    try:
        return read_policy(folder), ""
    except PolicyError as error:
        if settings.policy is not None or folder == SHIPPED:
            raise
        problem = f"the promoted policy cannot be read: {error}"
        log.error("%s; the shipped one serves", problem)
        return read_policy(_for_the_pair(settings, SHIPPED)), problem


class Serving:
    """The policy of this process; `policy` is swapped in one assignment, between two requests."""

    def __init__(self, policy: Policy, problem: str, settings: Settings) -> None:
        self.policy = policy
        self.problem = problem  # why another policy than this one is not served, or nothing
        self._default_target = settings.default_target
        self.verify = "" if settings.verify == "off" else settings.verify  # how answers to `auto` are verified

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
    return book.extended(PriceBook(own, {}, sources={name: f"setting models.{name}" for name in own}))


def catalogue(aliases: Mapping[str, str]) -> Catalogue:
    """What is known of models beside their prices; `aliases` are those of the price book.

    Raises:
        SettingsError: the table does not fit its form.
    """
    try:
        return Catalogue.parse(msgspec.json.decode(MODELS.read_bytes()), aliases)
    except (OSError, msgspec.DecodeError, CatalogueError) as error:
        raise SettingsError(f"{MODELS}: {error}") from error
