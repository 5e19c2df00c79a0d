"""The named keys of keys.json and their teams: hashes, rights, limits and ends. The keys themselves are nowhere."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from router import shared_file
from router.journal.redaction import without_keys
from router.settings import SettingsError

PREFIX = "sk-router-"
RANDOM_BYTES = 32  # 43 characters, 256 bits
FORMAT = 1
CALLS = ("chat", "responses", "completions", "embeddings", "models")  # the rights of a new key
ACCOUNT = "account"  # the right to all else of the upstream's account
RIGHTS = (*CALLS, ACCOUNT)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{16}")  # how a key of ROUTER_API_KEYS is known

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class EarlierKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that was rotated out."""

    sha256: Digest
    until_unix: float  # it is accepted before that moment


Dollars = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
SOFT = 0.8  # where a floor is set and no share
Count = Annotated[int, msgspec.Meta(gt=0, le=10**12)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a key or a team may use; None: as much as it likes. Days and months are those of UTC."""

    usd_a_day: Dollars | None = None
    usd_a_month: Dollars | None = None
    requests_a_minute: Count | None = None
    tokens_a_minute: Count | None = None
    soft: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None  # share of a budget from which `floor` holds
    floor: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None  # the target that `auto` is then held to

    @property
    def in_dollars(self) -> bool:
        """Whether there is a budget."""
        return self.usd_a_day is not None or self.usd_a_month is not None


NO_LIMITS = Limits()


class Owner(NamedTuple):
    """Who has limits: a key, or a team of keys."""

    kind: Literal["key", "team"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


Holding = tuple[tuple[Owner, Limits], ...]  # what a request is held to: the limits of its key, and of that key's team


class Team(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Keys that share limits; times are in seconds since 1970."""

    name: str
    created_unix: float
    limits: Limits | None = None  # None: none
    removed_unix: float | None = None

    @property
    def state(self) -> str:
        """The team is active or removed."""
        return "active" if self.removed_unix is None else "removed"


class NamedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One named key; times are in seconds since 1970."""

    name: str
    sha256: Digest
    created_unix: float
    paths: tuple[str, ...]  # of RIGHTS
    models: tuple[str, ...] = ()  # names that it may ask for; none: all
    admin: bool = False
    expires_unix: float | None = None
    revoked_unix: float | None = None
    earlier: tuple[EarlierKey, ...] = ()
    limits: Limits | None = None  # None: none
    team: str = ""  # the name of its team; "": none

    def state(self, now_unix: float) -> str:
        """The key is active, expired or revoked."""
        if self.revoked_unix is not None:
            return "revoked"
        return "expired" if self.expires_unix is not None and self.expires_unix <= now_unix else "active"


class Roster(msgspec.Struct, frozen=True):
    """All that the file holds."""

    keys: tuple[NamedKey, ...] = ()
    teams: tuple[Team, ...] = ()

    def holdings(self) -> Iterator[tuple[NamedKey, Holding]]:
        """Each key with the limits that hold for it: its own, then those of its team."""
        limits = {team.name: team.limits for team in self.teams}
        for key in self.keys:
            both = (Owner("key", key.name), key.limits), (Owner("team", key.team), limits.get(key.team))
            yield key, tuple((owner, its) for owner, its in both if its is not None)


class _Document(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    format: int
    keys: tuple[NamedKey, ...]
    teams: tuple[Team, ...] = ()


_decoder = msgspec.json.Decoder(_Document)


def sha256(key: str) -> str:
    """The hash by which a key is stored, as 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A new random key."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def read_roster(path: Path) -> Roster:
    """The named keys and teams in a file; none where there is no file.

    Raises:
        SettingsError: the file cannot be read, or does not fit its form.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Roster()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        document = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: is damaged: {error}") from None
    problem = _problem(document)
    if problem:
        raise SettingsError(f"{path}: is damaged: {problem}")
    return Roster(document.keys, document.teams)


def read_keys(path: Path) -> tuple[NamedKey, ...]:
    """The named keys in a file, as `read_roster` reads it.

    Raises:
        SettingsError: as `read_roster`.
    """
    return read_roster(path).keys


def _problem(document: _Document) -> str:
    """What does not fit in a document, or nothing."""
    if document.format != FORMAT:
        return f"expected format {FORMAT}"
    names = [key.name for key in document.keys]
    teams = [team.name for team in document.teams]
    hashes = [digest for key in document.keys for digest in (key.sha256, *(each.sha256 for each in key.earlier))]
    if len(set(names)) < len(names) or len(set(hashes)) < len(hashes):
        return "a key is there twice"
    if len(set(teams)) < len(teams):
        return "a team is there twice"
    for name in teams:
        if problem := name_problem(name, "team"):
            return problem
    for key in document.keys:
        if problem := name_problem(key.name):
            return problem
        if not set(key.paths) <= set(RIGHTS):
            return f"key {key.name} has a path that is none of {', '.join(RIGHTS)}"
        if key.team and key.team not in teams:
            return f"key {key.name} is in a team that is not there"
    return ""


def is_digest(key_id: str) -> bool:
    """Whether the id of a key in records is a digest, and no name."""
    return _DIGEST.fullmatch(key_id) is not None


def name_problem(name: str, kind: str = "key") -> str:
    """Why `name` cannot name a key, or a team, or nothing. A name is never printed where it may be a key."""
    if without_keys(name) != name or name.startswith("sk-"):
        return f"a {kind}'s name looks like a key"
    if not _NAME.fullmatch(name):
        return (
            f"a {kind}'s name has 1 to 64 letters, digits, dots, dashes and underscores, "
            "and begins with none of the signs"
        )
    if is_digest(name):
        return f"a {kind}'s name looks like the digest of a key of ROUTER_API_KEYS"
    return ""


def locked(path: Path) -> AbstractContextManager[Path]:
    """Be the only writer of a file of keys; gives its path.

    Raises:
        OSError: the lock file cannot be opened.
    """
    return shared_file.locked(path)


def write_roster(path: Path, roster: Roster) -> None:
    """Replace the file by one that holds `roster`, for its owner only; call it under `locked`.

    Raises:
        OSError: the file cannot be written; the one before stays.
    """
    content = msgspec.json.format(msgspec.json.encode(_Document(FORMAT, roster.keys, roster.teams)), indent=1)
    shared_file.replace(path, content + b"\n")
