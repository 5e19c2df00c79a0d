"""Creating, limiting, rotating and revoking named keys. Pure: the functions return changed keys."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping

import msgspec

from router.client.keyfile import CALLS, NO_LIMITS, RIGHTS, EarlierKey, Limits, NamedKey, name_problem, new_key, sha256
from router.settings import SettingsError

_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(r"([0-9]{1,6})([mhdw])")
MAX_DURATION_SECONDS = 100 * 365 * 86_400
MAX_AMOUNT = 10**12  # dollars, requests or tokens


class OptionError(SettingsError):
    """An option of a key or team is invalid. The command calls it `--usd-a-day`, the HTTP API `usd_a_day`."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(problem if option == "name" else f"--{option.replace('_', '-')}: {problem}")
        self.option = option
        self.problem = problem


class UnknownNameError(SettingsError):
    """No key or team has this name."""


class StateError(SettingsError):
    """The name is in use, or the key or team is revoked, expired or removed."""


def add(
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
    """The keys with a new one, and the secret of the new key.

    Without `paths` an admin key has all rights, and other keys have those in `CALLS`.

    Raises:
        SettingsError: the name, a path or the expiry is invalid, or the name is in use.
    """
    if problem := name_problem(name):
        raise OptionError("name", problem)
    if any(key.name == name for key in keys):
        raise StateError(f"the name {name} is or was in use; names cannot be reused, so that bills stay separate")
    rights = (RIGHTS if admin else CALLS) if paths is None else paths
    for right in rights:
        if right not in RIGHTS:
            raise OptionError("paths", f"unknown path {right!r}; expected {', '.join(RIGHTS)}")
    if expires_unix is not None and expires_unix <= now_unix:
        raise OptionError("expires", "expected a time in the future")
    key = new_key()
    made = NamedKey(
        name, sha256(key), now_unix, _once(rights), _once(models), admin, expires_unix, limits=limits, team=team
    )
    return (*keys, made), key


def revoke(keys: tuple[NamedKey, ...], name: str, now_unix: float) -> tuple[NamedKey, ...]:
    """The keys with one of them revoked, including its earlier secrets.

    Raises:
        SettingsError: the key does not exist, or is revoked already.
    """
    key = find_key(keys, name)
    if key.revoked_unix is not None:
        raise StateError(f"key {name} is revoked already")
    return _with(keys, msgspec.structs.replace(key, revoked_unix=now_unix))


def rotate(
    keys: tuple[NamedKey, ...], name: str, now_unix: float, grace_seconds: float
) -> tuple[tuple[NamedKey, ...], str]:
    """The keys with a new secret for `name`, and that secret. Earlier ones are accepted for `grace_seconds` more.

    Raises:
        SettingsError: the key does not exist, or is revoked or expired.
    """
    key = find_key(keys, name)
    if key.state(now_unix) != "active":
        raise StateError(f"key {name} is {key.state(now_unix)}; add a new key")
    new = new_key()
    until = now_unix + grace_seconds
    before = (EarlierKey(old.sha256, min(old.until_unix, until)) for old in key.earlier)
    earlier = (*before, EarlierKey(key.sha256, until))
    return _with(keys, msgspec.structs.replace(key, sha256=sha256(new), earlier=earlier)), new


def set_limits(
    keys: tuple[NamedKey, ...], name: str, options: Mapping[str, str | None], team: str | None = None
) -> tuple[NamedKey, ...]:
    """The keys with changed limits for one of them; `options` is as in `parse_limits`.

    `team` is the name of its new team; "" for no team, None for no change.

    Raises:
        SettingsError: the key does not exist or is revoked, or a limit is invalid.
    """
    key = find_key(keys, name)
    if key.revoked_unix is not None:
        raise StateError(f"key {name} is revoked")
    team = key.team if team is None else team
    return _with(keys, msgspec.structs.replace(key, limits=parse_limits(options, key.limits), team=team))


def parse_limits(options: Mapping[str, str | None], before: Limits | None = None) -> Limits | None:
    """The limits `before` with changed values: "none" removes a limit, None keeps it.

    >>> parse_limits({"usd_a_day": "5", "requests_a_minute": None}, Limits(requests_a_minute=60))
    Limits(usd_a_day=5.0, usd_a_month=None, requests_a_minute=60, tokens_a_minute=None, soft=None, floor=None)
    >>> parse_limits({"usd_a_day": "none"}, Limits(usd_a_day=5.0)) is None
    True

    Raises:
        SettingsError: a value is invalid.
    """
    values = {
        name: None if text == "none" else _amount(name, text) for name, text in options.items() if text is not None
    }
    limits = msgspec.structs.replace(before or NO_LIMITS, **values)
    if limits.soft is not None and limits.floor is None:
        raise OptionError("soft", "requires --floor, the target of auto from that share on")
    if limits.floor is not None and not limits.in_dollars:
        raise OptionError("floor", "requires --usd-a-day or --usd-a-month")
    return None if limits == NO_LIMITS else limits


def _amount(name: str, text: str) -> float | int:
    share, in_dollars = name in ("soft", "floor"), name.startswith("usd")
    try:
        amount = float(text) if share or in_dollars else int(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount <= (1 if share else MAX_AMOUNT) or (name == "soft" and amount == 1):
        number = "dollars above 0 such as 2.50" if in_dollars else "a whole number above 0"
        raise OptionError(name, f"expected {'a share such as 0.8' if share else number}, or none for no limit")
    return amount


def find_key(keys: Iterable[NamedKey], name: str) -> NamedKey:
    """The key with a name.

    Raises:
        UnknownNameError: no key has this name. A name that may be a key is not part of the message.
    """
    for key in keys:
        if key.name == name:
            return key
    raise UnknownNameError(name_problem(name) or f"no key is called {name}; list all with python -m router keys list")


def _with(keys: tuple[NamedKey, ...], changed: NamedKey) -> tuple[NamedKey, ...]:
    return tuple(changed if key.name == changed.name else key for key in keys)


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def parse_duration(text: str, option: str) -> float:
    """A duration such as "24h", in seconds.

    >>> parse_duration("24h", "grace"), parse_duration("0", "grace")
    (86400, 0)

    Raises:
        SettingsError: the text is not a duration.
    """
    if text == "0":
        return 0
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _SECONDS[match[2]] if match else MAX_DURATION_SECONDS + 1
    if seconds > MAX_DURATION_SECONDS:
        raise OptionError(option, "expected a duration such as 30m, 24h, 90d or 2w")
    return seconds


def parse_expiry(text: str, now_unix: float) -> float | None:
    """The expiry of a key in seconds since 1970: after a duration, or at the end of a day (UTC); None for "".

    >>> parse_expiry("90d", 0.0), parse_expiry("1970-01-31", 0.0), parse_expiry("", 0.0)
    (7776000.0, 2678400.0, None)

    Raises:
        SettingsError: the text is neither.
    """
    if not text:
        return None
    if _DURATION.fullmatch(text):
        return now_unix + parse_duration(text, "expires")
    try:
        day = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
        return (day + dt.timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        raise OptionError("expires", "expected a duration such as 90d, or a day such as 2027-01-31") from None
