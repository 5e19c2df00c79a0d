"""Create, revoke, rotate and limit named keys. Pure functions; callers pass the time."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from router.client.keyfile import CALLS, NO_LIMITS, RIGHTS, EarlierKey, Limits, NamedKey, name_problem, new_key, sha256
from router.settings import SettingsError

_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([mhdw])")
LONGEST_SECONDS = 100 * 365 * 86_400
MOST = 10**12  # dollars, requests or tokens


class OptionError(SettingsError):
    """An option of a key or team is invalid. The command names it `--usd-a-day`, the HTTP API `usd_a_day`."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(problem if option == "name" else f"--{option.replace('_', '-')}: {problem}")
        self.option = option
        self.problem = problem


class UnknownNameError(SettingsError):
    """No key or team has this name."""


class StateError(SettingsError):
    """The name is taken, or the key or team is no longer active."""


def added(
    keys: tuple[NamedKey, ...],
    name: str,
    now_unix: float,
    *,
    models: tuple[str, ...] = (),
    paths: tuple[str, ...] | None = None,
    expires_unix: float | None = None,
    admin: bool = False,
    limits: Limits | None = None,
    team: str = "",
) -> tuple[tuple[NamedKey, ...], str]:
    """The keys with a new one, and its secret. `paths` defaults to `CALLS`, for an admin key to all rights.

    Raises:
        SettingsError: the name is taken or invalid, a path is unknown, or the expiry is in the past.
    """
    if problem := name_problem(name):
        raise OptionError("name", problem)
    if any(key.name == name for key in keys):
        raise StateError(
            f"the name {name} is taken by a current or former key; names cannot be reused, to keep usage separate"
        )
    rights = (RIGHTS if admin else CALLS) if paths is None else paths
    for right in rights:
        if right not in RIGHTS:
            raise OptionError("paths", f"{right!r} is not one of {', '.join(RIGHTS)}")
    if expires_unix is not None and expires_unix <= now_unix:
        raise OptionError("expires", "the expiry is in the past")
    key = new_key()
    created = NamedKey(
        name, sha256(key), now_unix, _once(rights), _once(models), admin, expires_unix, limits=limits, team=team
    )
    return (*keys, created), key


def revoked(keys: tuple[NamedKey, ...], name: str, now_unix: float) -> tuple[NamedKey, ...]:
    """The keys, with one of them revoked together with its replaced secrets.

    Raises:
        SettingsError: the key does not exist or is already revoked.
    """
    key = named(keys, name)
    if key.revoked_unix is not None:
        raise StateError(f"key {name} is already revoked")
    return _with(keys, msgspec.structs.replace(key, revoked_unix=now_unix))


def rotated(
    keys: tuple[NamedKey, ...], name: str, now_unix: float, grace_seconds: float
) -> tuple[tuple[NamedKey, ...], str]:
    """The keys with a new secret for `name`, and that secret. Old secrets are accepted for `grace_seconds`.

    Raises:
        SettingsError: the key does not exist, or is revoked or expired.
    """
    key = named(keys, name)
    if key.state(now_unix) != "active":
        raise StateError(f"key {name} is {key.state(now_unix)}; create a new one")
    new = new_key()
    until = now_unix + grace_seconds
    before = (EarlierKey(old.sha256, min(old.until_unix, until)) for old in key.earlier)
    earlier = (*before, EarlierKey(key.sha256, until))
    return _with(keys, msgspec.structs.replace(key, sha256=sha256(new), earlier=earlier)), new


def limited(
    keys: tuple[NamedKey, ...], name: str, given: Mapping[str, str | None], team: str | None = None
) -> tuple[NamedKey, ...]:
    """The keys, with changed limits for one of them; `given` is as in `limits_of`.

    `team` is its new team: "" for no team, None to leave it unchanged.

    Raises:
        SettingsError: the key does not exist or is revoked, or a limit is invalid.
    """
    key = named(keys, name)
    if key.revoked_unix is not None:
        raise StateError(f"key {name} is revoked")
    team = key.team if team is None else team
    return _with(keys, msgspec.structs.replace(key, limits=limits_of(given, key.limits), team=team))


def limits_of(given: Mapping[str, str | None], before: Limits | None = None) -> Limits | None:
    """The limits as they were, with those that are given in their place; "none" removes one, None leaves it.

    >>> limits_of({"usd_a_day": "5", "requests_a_minute": None}, Limits(requests_a_minute=60))
    Limits(usd_a_day=5.0, usd_a_month=None, requests_a_minute=60, tokens_a_minute=None, soft=None, floor=None)
    >>> limits_of({"usd_a_day": "none"}, Limits(usd_a_day=5.0)) is None
    True

    Raises:
        SettingsError: a limit is invalid.
    """
    values = {name: None if text == "none" else _amount(name, text) for name, text in given.items() if text is not None}
    limits = msgspec.structs.replace(before or NO_LIMITS, **values)
    if limits.soft is not None and limits.floor is None:
        raise OptionError("soft", "requires --floor, the target of auto once this share is spent")
    if limits.floor is not None and not limits.in_dollars:
        raise OptionError("floor", "requires --usd-a-day or --usd-a-month")
    return None if limits == NO_LIMITS else limits


def _amount(name: str, text: str) -> float | int:
    share, in_dollars = name in ("soft", "floor"), name.startswith("usd")
    try:
        amount = float(text) if share or in_dollars else int(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount <= (1 if share else MOST) or (name == "soft" and amount == 1):
        form = (
            "a share, such as 0.8" if share else "dollars above 0, such as 2.50" if in_dollars else "an integer above 0"
        )
        raise OptionError(name, f"expected {form}, or none for no limit")
    return amount


def named(keys: Iterable[NamedKey], name: str) -> NamedKey:
    """Find a key by name.

    Raises:
        SettingsError: no key has this name. The message omits the name if it looks like a secret.
    """
    for key in keys:
        if key.name == name:
            return key
    raise UnknownNameError(
        name_problem(name) or f"key {name} does not exist; `python -m router keys list` lists all keys"
    )


def _with(keys: tuple[NamedKey, ...], changed: NamedKey) -> tuple[NamedKey, ...]:
    return tuple(changed if key.name == changed.name else key for key in keys)


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def span_seconds(text: str, option: str) -> float:
    """Parse a duration to seconds.

    >>> span_seconds("24h", "grace"), span_seconds("0", "grace")
    (86400, 0)

    Raises:
        SettingsError: the text is not a duration.
    """
    if text == "0":
        return 0
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else LONGEST_SECONDS + 1
    if seconds > LONGEST_SECONDS:
        raise OptionError(option, "expected a duration such as 30m, 24h, 90d or 2w")
    return seconds


def end_unix(text: str, now_unix: float) -> float | None:
    """When a key expires: after a duration, or at the end of a day (UTC); None for an empty text.

    >>> end_unix("90d", 0.0), end_unix("1970-01-31", 0.0), end_unix("", 0.0)
    (7776000.0, 2678400.0, None)

    Raises:
        SettingsError: the text is neither.
    """
    if not text:
        return None
    if _SPAN.fullmatch(text):
        return now_unix + span_seconds(text, "expires")
    try:
        day = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
        return (day + dt.timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        raise OptionError("expires", "expected a duration such as 90d, or a day such as 2027-01-31") from None
