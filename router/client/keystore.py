"""Changes of the named keys of a home folder, for the command line and the HTTP API; and a key as readers see it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from router.client import issuing
from router.client.keyfile import NamedKey, locked, read_keys, write_keys
from router.settings import Settings, SettingsError, with_home


def add_key(
    settings: Settings,
    name: str,
    *,
    models: Iterable[str] = (),
    paths: Iterable[str] | None = None,
    expires: str = "",
    admin: bool = False,
    limits: Mapping[str, str | None] | None = None,
) -> tuple[NamedKey, str]:
    """Make a key; gives it and its secret, which is stored nowhere. `limits` are as in `issuing.limits_of`.

    Raises:
        SettingsError: an option does not fit, the name is taken, or the file of keys is damaged.
        OSError: the file cannot be written.
    """
    now = time.time()
    wanted = issuing.limits_of(limits or {})
    end = issuing.end_unix(expires, now)
    with locked(_home(settings)) as path:
        keys, secret = issuing.added(
            read_keys(path),
            name,
            now,
            models=tuple(models),
            paths=None if paths is None else tuple(paths),
            expires_unix=end,
            admin=admin,
            limits=wanted,
        )
        write_keys(path, keys)
    return issuing.named(keys, name), secret


def limit_key(settings: Settings, name: str, limits: Mapping[str, str | None]) -> NamedKey:
    """Change the limits of a key; what is not given stays.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    with locked(_home(settings)) as path:
        keys = issuing.limited(read_keys(path), name, limits)
        write_keys(path, keys)
    return issuing.named(keys, name)


def revoke_key(settings: Settings, name: str) -> NamedKey:
    """End a key for good.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    with locked(_home(settings)) as path:
        keys = issuing.revoked(read_keys(path), name, time.time())
        write_keys(path, keys)
    return issuing.named(keys, name)


def rotate_key(settings: Settings, name: str, grace: str = "0") -> tuple[NamedKey, str, float | None]:
    """Make another secret for a key; gives the key, the secret, and until when the one before is accepted.

    Raises:
        SettingsError, OSError: as `add_key`.
    """
    now, seconds = time.time(), issuing.span_seconds(grace, "grace")
    with locked(_home(settings)) as path:
        keys, secret = issuing.rotated(read_keys(path), name, now, seconds)
        write_keys(path, keys)
    return issuing.named(keys, name), secret, now + seconds if seconds else None


def _home(settings: Settings) -> Path:
    if settings.forward_client_keys:
        raise SettingsError("ROUTER_FORWARD_CLIENT_KEYS would send this router's own keys to the upstream: unset it")
    return with_home(settings).home


def as_mapping(key: NamedKey, now_unix: float) -> dict[str, Any]:
    """A key for readers: all but its hashes."""
    return {
        "name": key.name,
        "state": key.state(now_unix),
        "admin": key.admin,
        "paths": list(key.paths),
        "models": list(key.models) or ["all"],
        "limits": limits_as_mapping(key),
        "created": moment(key.created_unix),
        "expires": moment(key.expires_unix),
        "revoked": moment(key.revoked_unix),
        "replaced_until": [moment(each.until_unix) for each in key.earlier],
    }


def limits_as_mapping(key: NamedKey) -> dict[str, float]:
    """The limits that a key has, by name."""
    return {} if key.limits is None else {k: v for k, v in msgspec.structs.asdict(key.limits).items() if v is not None}


def moment(unix: float | None) -> str | None:
    """A moment as RFC 3339 has it, in UTC.

    >>> moment(0.0), moment(None)
    ('1970-01-01T00:00:00Z', None)
    """
    return None if unix is None else dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
