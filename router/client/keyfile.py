"""The file keys.json: named keys and their teams, with hashes, rights, limits and expiry. It contains no secrets."""

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
ACCOUNT = "account"  # the right to use everything else of the upstream's account
RIGHTS = (*CALLS, ACCOUNT)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{16}")  # the id of a key of ROUTER_API_KEYS

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class EarlierKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hash of a secret that was replaced by a rotation."""

    sha256: Digest
    until_unix: float  # the secret is accepted before then


Dollars = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
SOFT = 0.8  # default of `Limits.soft` if a floor is set
Count = Annotated[int, msgspec.Meta(gt=0, le=10**12)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The limits of a key or a team; None: no limit. Days and months are in UTC."""

    usd_a_day: Dollars | None = None
    usd_a_month: Dollars | None = None
    requests_a_minute: Count | None = None
    tokens_a_minute: Count | None = None
    soft: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None  # share of a budget from which `floor` applies
    floor: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None  # the target of `auto` from there on

    @property
    def in_dollars(self) -> bool:
        """Whether there is a budget."""
        return self.usd_a_day is not None or self.usd_a_month is not None


NO_LIMITS = Limits()


class Owner(NamedTuple):
    """The key or team to which limits belong."""

    kind: Literal["key", "team"]
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


Holding = tuple[tuple[Owner, Limits], ...]  # the limits that apply to a request: of its key, and of the key's team


class Team(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A group of keys that share limits. Times are in seconds since 1970."""

    name: str
    created_unix: float
    limits: Limits | None = None  # None: no limits
    removed_unix: float | None = None

    @property
    def state(self) -> str:
        """The state of the team: active or removed."""
        return "active" if self.removed_unix is None else "removed"


class NamedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One named key. Times are in seconds since 1970."""

    name: str
    sha256: Digest
    created_unix: float
    paths: tuple[str, ...]  # of RIGHTS
    models: tuple[str, ...] = ()  # allowed model names; empty: all
    admin: bool = False
    expires_unix: float | None = None
    revoked_unix: float | None = None
    earlier: tuple[EarlierKey, ...] = ()
    limits: Limits | None = None  # None: no limits
    team: str = ""  # the name of its team; "": no team

    def state(self, now_unix: float) -> str:
        """The state of the key: active, expired or revoked."""
        if self.revoked_unix is not None:
            return "revoked"
        return "expired" if self.expires_unix is not None and self.expires_unix <= now_unix else "active"


class Roster(msgspec.Struct, frozen=True):
    """The content of the file."""

    keys: tuple[NamedKey, ...] = ()
    teams: tuple[Team, ...] = ()

    def holdings(self) -> Iterator[tuple[NamedKey, Holding]]:
        """Each key with the limits that apply to it: its own, then those of its team."""
        limits = {team.name: team.limits for team in self.teams}
        for key in self.keys:
            both = (Owner("key", key.name), key.limits), (Owner("team", key.team), limits.get(key.team))
            yield key, tuple((owner, owned) for owner, owned in both if owned is not None)


class _Document(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    format: int
    keys: tuple[NamedKey, ...]
    teams: tuple[Team, ...] = ()


_decoder = msgspec.json.Decoder(_Document)


def sha256(key: str) -> str:
    """The hash of a key, as 64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A new random key."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def read_roster(path: Path) -> Roster:
    """The named keys and teams in a file; empty if there is no file.

    Raises:
        SettingsError: the file cannot be read, or is invalid.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Roster()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        document = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is damaged: {error}") from None
    problem = _problem(document)
    if problem:
        raise SettingsError(f"{path} is damaged: {problem}")
    return Roster(document.keys, document.teams)


def read_keys(path: Path) -> tuple[NamedKey, ...]:
    """The named keys in a file.

    Raises:
        SettingsError: see `read_roster`.
    """
    return read_roster(path).keys


def _problem(document: _Document) -> str:
    """What is invalid in a document; "" if it is valid."""
    if document.format != FORMAT:
        return f"expected format {FORMAT}"
    names = [key.name for key in document.keys]
    teams = [team.name for team in document.teams]
    hashes = [digest for key in document.keys for digest in (key.sha256, *(each.sha256 for each in key.earlier))]
    if len(set(names)) < len(names) or len(set(hashes)) < len(hashes):
        return "a key occurs twice"
    if len(set(teams)) < len(teams):
        return "a team occurs twice"
    for name in teams:
        if problem := name_problem(name, "team"):
            return problem
    for key in document.keys:
        if problem := name_problem(key.name):
            return problem
        if not set(key.paths) <= set(RIGHTS):
            return f"key {key.name} has an unknown path; expected {', '.join(RIGHTS)}"
        if key.team and key.team not in teams:
            return f"key {key.name} is in an unknown team"
    return ""


def is_digest(key_id: str) -> bool:
    """Whether the id of a key in records is a digest and not a name."""
    return _DIGEST.fullmatch(key_id) is not None


def name_problem(name: str, kind: str = "key") -> str:
    """Why `name` is not a valid name; "" if it is. A name that may be a key is not part of the message."""
    if without_keys(name) != name or name.startswith("sk-"):
        return f"a {kind}'s name looks like a key"
    if not _NAME.fullmatch(name):
        return (
            f"a {kind}'s name must have 1 to 64 letters, digits, dots, dashes and underscores, "
            "and start with a letter or digit"
        )
    if is_digest(name):
        return f"a {kind}'s name looks like the digest of a key of ROUTER_API_KEYS"
    return ""


def locked(path: Path) -> AbstractContextManager[Path]:
    """Lock a file of keys for writing. Yields its path.

    Raises:
        OSError: the lock file cannot be opened.
    """
    return shared_file.locked(path)


def write_roster(path: Path, roster: Roster) -> None:
    """Replace the content of the file, which only its owner can read. Call it under `locked`.

    Raises:
        OSError: the file cannot be written. Its content stays unchanged.
    """
    content = msgspec.json.format(msgspec.json.encode(_Document(FORMAT, roster.keys, roster.teams)), indent=1)
    shared_file.replace(path, content + b"\n")
