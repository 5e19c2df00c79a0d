"""The policy that a process serves, and the folder that it is read from."""

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
from router.policy.transfer import TransferError, transfer_policy
from router.settings import Settings, SettingsError

log = logging.getLogger("router")


def policy_folder(settings: Settings) -> Path:
    """The folder of the policy to serve: the configured policy, else the promoted one, else the shipped one.

    If the settings name another pair of models than the promoted or shipped policy has, that policy is transferred to
    the pair.

    Raises:
        SettingsError: a model of the pair has no price, or the policy cannot be transferred to the pair.
    """
    if settings.policy is not None:
        return settings.policy
    promoted = settings.home / "policy"
    return _folder_for_pair(settings, promoted if (promoted / DOCUMENT).exists() else SHIPPED)


def _folder_for_pair(settings: Settings, folder: Path) -> Path:
    if not settings.pair:
        return folder
    base = folder.resolve()
    transferred = _TRANSFERRED.get((settings.home, base, settings.pair))
    if transferred is None or not (transferred / DOCUMENT).exists():
        try:
            policy = read_policy(base)
        except PolicyError:  # the caller reads it again and reports what is wrong
            return folder
        transferred = _TRANSFERRED[settings.home, base, settings.pair] = _transfer_to_pair(settings, base, policy)
    return transferred


_TRANSFERRED: dict[tuple[Path, Path, tuple[str, ...]], Path] = {}  # by home folder, original policy and pair


def _transfer_to_pair(settings: Settings, base: Path, policy: Policy) -> Path:
    """`base` if its policy has the pair of models, else the folder of the transferred policy in the home folder."""
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
        files = dump(transfer_policy(policy, cheap, strong))
    except TransferError as error:
        raise SettingsError(f"setting ROUTER_PAIR: {error}") from error
    return save_policy(settings.home, parse(files).version, files)


def save_policy(home: Path, version: str, files: Mapping[str, bytes]) -> Path:
    """Save a policy atomically in the home folder under its version. Returns its folder."""
    folder = home / "policies" / version
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        for name, content in files.items():
            (partial / name).write_bytes(content)
        try:
            partial.rename(folder)
        except OSError:  # another process saved it meanwhile
            if not folder.exists():
                raise
            shutil.rmtree(partial)
    return folder


def read_policy(folder: Path) -> Policy:
    """Read a policy folder.

    Raises:
        PolicyError: a file is missing or invalid. The message names it.
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
    """The policy to start with, and why it is not the promoted one ("" if it is): that policy cannot be read.

    Raises:
        PolicyError: the configured or the shipped policy cannot be read.
        SettingsError: no policy can be transferred to the configured pair of models.
    """
    folder = policy_folder(settings)
    try:
        return read_policy(folder), ""
    except PolicyError as error:
        if settings.policy is not None or folder == SHIPPED:
            raise
        problem = f"the promoted policy cannot be read: {error}"
        log.error("%s; the shipped policy is served", problem)
        return read_policy(_folder_for_pair(settings, SHIPPED)), problem


class Serving:
    """The policy of this process. `policy` is replaced in one assignment, between two requests."""

    def __init__(self, policy: Policy, problem: str, settings: Settings) -> None:
        self.policy = policy
        self.problem = problem  # why the promoted policy is not served; "" if it is
        self._default_target = settings.default_target
        self.verify = (
            "" if settings.verify == "off" else settings.verify
        )  # how answers to `auto` are verified; "" for not at all

    @property
    def default_target(self) -> float:
        """The share of the strong model's quality that `auto` keeps."""
        return self._default_target or self.policy.default_target


def prices(settings: Settings) -> PriceBook:
    """The price table, overridden by the prices in the settings.

    Raises:
        SettingsError: the table or a price in the settings is invalid.
    """
    try:
        book = PriceBook.parse(msgspec.json.decode(PRICES.read_bytes()))
    except (OSError, msgspec.DecodeError, PriceError) as error:
        raise SettingsError(f"{PRICES}: {error}") from error
    configured = {}
    for name, model in settings.models.items():
        input_price, output_price = model.usd_per_million_input_tokens, model.usd_per_million_output_tokens
        if input_price is not None and output_price is not None:
            configured[name] = Price(input_price, output_price, model.usd_per_million_cached_input_tokens)
        elif input_price is not None or output_price is not None:
            raise SettingsError(f"setting models.{name}: a price needs both input and output")
    return book.merged_with(PriceBook(configured, {}, sources={name: f"setting models.{name}" for name in configured}))


def catalogue(aliases: Mapping[str, str]) -> Catalogue:
    """The table of models; `aliases` are those of the price book.

    Raises:
        SettingsError: the table is invalid.
    """
    try:
        return Catalogue.parse(msgspec.json.decode(MODELS.read_bytes()), aliases)
    except (OSError, msgspec.DecodeError, CatalogueError) as error:
        raise SettingsError(f"{MODELS}: {error}") from error
