"""Changes of named keys and teams in the file, and their public form, for the command line and the HTTP API."""

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
    """The file of keys is not writable."""


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
    """Create a key. Returns it and its secret, which is not stored. `limits` is as in `issuing.parse_limits`.

    Raises:
        SettingsError: an option is invalid, the name is in use, or the file of keys is damaged or read-only.
        OSError: the file cannot be written.
    """
    now = time.time()
    parsed_limits = issuing.parse_limits(limits or {})
    expires_unix = issuing.parse_expiry(expires, now)
    with _changing(settings) as (path, roster):
        keys, secret = issuing.add(
            roster.keys,
            name,
            now,
            models=tuple(models),
            paths=None if paths is None else tuple(paths),
            expires_unix=expires_unix,
            admin=admin,
            limits=parsed_limits,
            team=grouping.parse_team(roster.teams, team),
        )
        write_roster(path, Roster(keys, roster.teams))
    return issuing.find_key(keys, name), secret


def limit_key(settings: Settings, name: str, limits: Mapping[str, str | None], team: str | None = None) -> NamedKey:
    """Change the limits and the team of a key. Values that are not given stay.

    Raises:
        SettingsError, OSError: see `add_key`.
    """
    with _changing(settings) as (path, roster):
        chosen = None if team is None else grouping.parse_team(roster.teams, team)
        keys = issuing.set_limits(roster.keys, name, limits, chosen)
        write_roster(path, Roster(keys, roster.teams))
    return issuing.find_key(keys, name)


def revoke_key(settings: Settings, name: str) -> NamedKey:
    """Revoke a key permanently.

    Raises:
        SettingsError, OSError: see `add_key`.
    """
    with _changing(settings) as (path, roster):
        keys = issuing.revoke(roster.keys, name, time.time())
        write_roster(path, Roster(keys, roster.teams))
    return issuing.find_key(keys, name)


def rotate_key(settings: Settings, name: str, grace: str = "0") -> tuple[NamedKey, str, float | None]:
    """Create a new secret for a key. Returns the key, the secret, and until when the previous secret is accepted.

    Raises:
        SettingsError, OSError: see `add_key`.
    """
    now, seconds = time.time(), issuing.parse_duration(grace, "grace")
    with _changing(settings) as (path, roster):
        keys, secret = issuing.rotate(roster.keys, name, now, seconds)
        write_roster(path, Roster(keys, roster.teams))
    return issuing.find_key(keys, name), secret, now + seconds if seconds else None


def add_team(settings: Settings, name: str, limits: Mapping[str, str | None]) -> Team:
    """Create a team; `limits` is as in `issuing.parse_limits`.

    Raises:
        SettingsError, OSError: see `add_key`.
    """
    with _changing(settings) as (path, roster):
        teams = grouping.add(roster.teams, name, time.time(), limits)
        write_roster(path, Roster(roster.keys, teams))
    return grouping.find_team(teams, name)


def limit_team(settings: Settings, name: str, limits: Mapping[str, str | None]) -> Team:
    """Change the limits of a team. Values that are not given stay.

    Raises:
        SettingsError, OSError: see `add_key`.
    """
    with _changing(settings) as (path, roster):
        teams = grouping.set_limits(roster.teams, name, limits)
        write_roster(path, Roster(roster.keys, teams))
    return grouping.find_team(teams, name)


def remove_team(settings: Settings, name: str) -> Team:
    """Remove a team that has no active keys.

    Raises:
        SettingsError, OSError: see `add_key`.
    """
    with _changing(settings) as (path, roster):
        teams = grouping.remove(roster, name, time.time())
        write_roster(path, Roster(roster.keys, teams))
    return grouping.find_team(teams, name)


@contextlib.contextmanager
def _changing(settings: Settings) -> Iterator[tuple[Path, Roster]]:
    """Lock the file of keys for writing. Yields its path and content."""
    if settings.forward_client_keys:
        raise SettingsError("ROUTER_FORWARD_CLIENT_KEYS would send the router's own keys to the upstream: unset it")
    path = with_home(settings).keys_path if settings.keys_file is None else settings.keys_file
    try:
        with locked(path):
            yield path, read_roster(path)
    except OSError as error:
        if error.errno in _READ_ONLY:
            raise ReadOnlyError(
                f"{path} is not writable ({error.strerror}); run the command where it is writable"
            ) from error
        if error.errno == errno.ENOENT:
            raise SettingsError(
                f"setting ROUTER_KEYS_FILE: the folder {path.parent} does not exist; create it, or correct the setting"
            ) from error
        raise


def key_as_mapping(key: NamedKey, now_unix: float) -> dict[str, Any]:
    """The public form of a key, without its hashes."""
    return {
        "name": key.name,
        "state": key.state(now_unix),
        "team": key.team or None,
        "admin": key.admin,
        "paths": list(key.paths),
        "models": list(key.models) or ["all"],
        "limits": limits_as_mapping(key.limits),
        "created": format_time(key.created_unix),
        "expires": format_time(key.expires_unix),
        "revoked": format_time(key.revoked_unix),
        "replaced_until": [format_time(old.until_unix) for old in key.earlier],
    }


def team_as_mapping(team: Team, keys: Iterable[NamedKey], now_unix: float) -> dict[str, Any]:
    """The public form of a team, with the names of its active keys."""
    active = [key.name for key in grouping.members(keys, team.name) if key.state(now_unix) == "active"]
    return {
        "name": team.name,
        "state": team.state,
        "keys": active,
        "limits": limits_as_mapping(team.limits),
        "created": format_time(team.created_unix),
        "removed": format_time(team.removed_unix),
    }


def limits_as_mapping(limits: Limits | None) -> dict[str, float]:
    """The limits that are set, by name."""
    return {} if limits is None else {k: v for k, v in msgspec.structs.asdict(limits).items() if v is not None}


def format_time(unix: float | None) -> str | None:
    """A time in seconds since 1970, in RFC 3339 format (UTC).

    >>> format_time(0.0), format_time(None)
    ('1970-01-01T00:00:00Z', None)
    """
    return None if unix is None else dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
