"""Changes of the named keys and their teams, for the command line and the HTTP API; and both as readers see them."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from router.client import grouping, issuing
from router.client.keyfile import Limits, NamedKey, Roster, Team, locked, read_roster, write_roster
from router.settings import Settings, SettingsError, with_home

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class ReadOnlyError(SettingsError):
    """The file of keys cannot be changed from here."""


def add_key(
    settings: Settings,
    name: str,
    *,
    models: Iterable[str] = (),
    paths: Iterable[str] | None = None,
    expires: str = "",
    admin: bool = False,
    limits: Mapping[str, str | None] | None = None,
    team: str = "",
) -> tuple[NamedKey, str]:
    """Make a key; gives it and its secret, which is stored nowhere. `limits` are as in `issuing.limits_of`.

    Raises:
        SettingsError: an option does not fit, the name is taken, or the file of keys is damaged or read-only.
        OSError: the file cannot be written.
    """
    now = time.time()
    wanted = issuing.limits_of(limits or {})
    end = issuing.end_unix(expires, now)
    with _changing(settings) as (path, roster):
        keys, secret = issuing.added(
            roster.keys,
            name,
            now,
            models=tuple(models),
            paths=None if paths is None else tuple(paths),
            expires_unix=end,
            admin=admin,
            limits=wanted,
            team=grouping.team_of(roster.teams, team),
        )
        write_roster(path, Roster(keys, roster.teams))
    return issuing.named(keys, name), secret


def limit_key(settings: Settings, name: str, limits: Mapping[str, str | None], team: str | None = None) -> NamedKey:
    """Change the limits and the team of a key; what is not given stays.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    with _changing(settings) as (path, roster):
        chosen = None if team is None else grouping.team_of(roster.teams, team)
        keys = issuing.limited(roster.keys, name, limits, chosen)
        write_roster(path, Roster(keys, roster.teams))
    return issuing.named(keys, name)


def revoke_key(settings: Settings, name: str) -> NamedKey:
    """End a key for good.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    with _changing(settings) as (path, roster):
        keys = issuing.revoked(roster.keys, name, time.time())
        write_roster(path, Roster(keys, roster.teams))
    return issuing.named(keys, name)


def rotate_key(settings: Settings, name: str, grace: str = "0") -> tuple[NamedKey, str, float | None]:
    """Make another secret for a key; gives the key, the secret, and until when the one before is accepted.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    now, seconds = time.time(), issuing.span_seconds(grace, "grace")
    with _changing(settings) as (path, roster):
        keys, secret = issuing.rotated(roster.keys, name, now, seconds)
        write_roster(path, Roster(keys, roster.teams))
    return issuing.named(keys, name), secret, now + seconds if seconds else None


def add_team(settings: Settings, name: str, limits: Mapping[str, str | None]) -> Team:
    """Make a team; `limits` are as in `issuing.limits_of`.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    with _changing(settings) as (path, roster):
        teams = grouping.added(roster.teams, name, time.time(), limits)
        write_roster(path, Roster(roster.keys, teams))
    return grouping.named(teams, name)


def limit_team(settings: Settings, name: str, limits: Mapping[str, str | None]) -> Team:
    """Change the limits of a team; what is not given stays.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    with _changing(settings) as (path, roster):
        teams = grouping.limited(roster.teams, name, limits)
        write_roster(path, Roster(roster.keys, teams))
    return grouping.named(teams, name)


def remove_team(settings: Settings, name: str) -> Team:
    """Remove a team that has no active keys.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    with _changing(settings) as (path, roster):
        teams = grouping.removed(roster, name, time.time())
        write_roster(path, Roster(roster.keys, teams))
    return grouping.named(teams, name)


@contextlib.contextmanager
def _changing(settings: Settings) -> Iterator[tuple[Path, Roster]]:
    """Be the only writer of the file of keys; gives its path and what it holds."""
    if settings.forward_client_keys:
        raise SettingsError("ROUTER_FORWARD_CLIENT_KEYS would send this router's own keys to the upstream: unset it")
    path = with_home(settings).keys_path if settings.keys_file is None else settings.keys_file
    try:
        with locked(path):
            yield path, read_roster(path)
    except OSError as error:
        if error.errno in _READ_ONLY:
            raise ReadOnlyError(
                f"{path}: cannot be changed here ({error.strerror}); run this where it can be written"
            ) from error
        raise


def as_mapping(key: NamedKey, now_unix: float) -> dict[str, Any]:
    """A key for readers: all but its hashes."""
    return {
        "name": key.name,
        "state": key.state(now_unix),
        "team": key.team or None,
        "admin": key.admin,
        "paths": list(key.paths),
        "models": list(key.models) or ["all"],
        "limits": limits_as_mapping(key.limits),
        "created": moment(key.created_unix),
        "expires": moment(key.expires_unix),
        "revoked": moment(key.revoked_unix),
        "replaced_until": [moment(each.until_unix) for each in key.earlier],
    }


def team_as_mapping(team: Team, keys: Iterable[NamedKey], now_unix: float) -> dict[str, Any]:
    """A team for readers, with the names of its active keys."""
    active = [key.name for key in grouping.members(keys, team.name) if key.state(now_unix) == "active"]
    return {
        "name": team.name,
        "state": team.state,
        "keys": active,
        "limits": limits_as_mapping(team.limits),
        "created": moment(team.created_unix),
        "removed": moment(team.removed_unix),
    }


def limits_as_mapping(limits: Limits | None) -> dict[str, float]:
    """The limits that there are, by name."""
    return {} if limits is None else {k: v for k, v in msgspec.structs.asdict(limits).items() if v is not None}


def moment(unix: float | None) -> str | None:
    """A moment as RFC 3339 has it, in UTC.

    >>> moment(0.0), moment(None)
    ('1970-01-01T00:00:00Z', None)
    """
    return None if unix is None else dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
