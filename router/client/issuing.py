"""Making, ending and replacing named keys: values in, values out; the clock is the caller's."""

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
    """An option of a key or team does not fit. The command names it `--usd-a-day`, the HTTP API `usd_a_day`."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(problem if option == "name" else f"--{option.replace('_', '-')}: {problem}")
        self.option = option
        self.problem = problem


class UnknownNameError(SettingsError):
    """There is no key, or no team, of that name."""


class StateError(SettingsError):
    """The name is taken, or the key or the team has ended."""


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
    """The keys with a new one, and the new key itself. Without `paths` it may call, and an admin may do everything.

    Raises:
        SettingsError: the name is taken or no name, a path is none, or the key would have expired.
    """
    if problem := name_problem(name):
        raise OptionError("name", problem)
    if any(key.name == name for key in keys):
        raise StateError(f"a key {name} is there already, or was; names are used once, so that bills stay apart")
    rights = (RIGHTS if admin else CALLS) if paths is None else paths
    for right in rights:
        if right not in RIGHTS:
            raise OptionError("paths", f"{right!r} is none of {', '.join(RIGHTS)}")
    if expires_unix is not None and expires_unix <= now_unix:
        raise OptionError("expires", "that is over already")
    key = new_key()
    made = NamedKey(
        name, sha256(key), now_unix, _once(rights), _once(models), admin, expires_unix, limits=limits, team=team
    )
    return (*keys, made), key


def revoked(keys: tuple[NamedKey, ...], name: str, now_unix: float) -> tuple[NamedKey, ...]:
    """The keys, with one of them revoked; its earlier keys end with it.

    Raises:
        SettingsError: there is no such key, or it was revoked before.
    """
    key = named(keys, name)
    if key.revoked_unix is not None:
        raise StateError(f"key {name} is revoked already")
    return _with(keys, msgspec.structs.replace(key, revoked_unix=now_unix))


def rotated(
    keys: tuple[NamedKey, ...], name: str, now_unix: float, grace_seconds: float
) -> tuple[tuple[NamedKey, ...], str]:
    """The keys, with another key for `name`, and that key. Those before it are accepted for `grace_seconds` more.

    Raises:
        SettingsError: there is no such key, or it is revoked or expired.
    """
    key = named(keys, name)
    if key.state(now_unix) != "active":
        raise StateError(f"key {name} is {key.state(now_unix)}; add another one")
    new = new_key()
    until = now_unix + grace_seconds
    before = (EarlierKey(each.sha256, min(each.until_unix, until)) for each in key.earlier)
    earlier = (*before, EarlierKey(key.sha256, until))
    return _with(keys, msgspec.structs.replace(key, sha256=sha256(new), earlier=earlier)), new


def limited(
    keys: tuple[NamedKey, ...], name: str, given: Mapping[str, str | None], team: str | None = None
) -> tuple[NamedKey, ...]:
    """The keys, with other limits for one of them; `given` is as in `limits_of`.

    `team` is the name of its team from now on; "" for none, None to leave it as it is.

    Raises:
        SettingsError: there is no such key, it is revoked, or a limit is none.
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
        SettingsError: one of them does not fit.
    """
    values = {name: None if text == "none" else _amount(name, text) for name, text in given.items() if text is not None}
    limits = msgspec.structs.replace(before or NO_LIMITS, **values)
    if limits.soft is not None and limits.floor is None:
        raise OptionError("soft", "it needs --floor, the target that auto is held to from there on")
    if limits.floor is not None and not limits.in_dollars:
        raise OptionError("floor", "it needs --usd-a-day or --usd-a-month")
    return None if limits == NO_LIMITS else limits


def _amount(name: str, text: str) -> float | int:
    share, in_dollars = name in ("soft", "floor"), name.startswith("usd")
    try:
        amount = float(text) if share or in_dollars else int(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount <= (1 if share else MOST) or (name == "soft" and amount == 1):
        what = "a share, as 0.8" if share else "dollars above 0, as 2.50" if in_dollars else "a whole number above 0"
        raise OptionError(name, f"expected {what}, or none for no limit")
    return amount


def named(keys: Iterable[NamedKey], name: str) -> NamedKey:
    """The key of a name.

    Raises:
        SettingsError: there is none. The name is not printed where it may be a key.
    """
    for key in keys:
        if key.name == name:
            return key
    raise UnknownNameError(name_problem(name) or f"there is no key {name}; python -m router keys list shows all")


def _with(keys: tuple[NamedKey, ...], changed: NamedKey) -> tuple[NamedKey, ...]:
    return tuple(changed if key.name == changed.name else key for key in keys)


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def span_seconds(text: str, option: str) -> float:
    """A length of time.

    >>> span_seconds("24h", "grace"), span_seconds("0", "grace")
    (86400, 0)

    Raises:
        SettingsError: it is none.
    """
    if text == "0":
        return 0
    found = _SPAN.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else LONGEST_SECONDS + 1
    if seconds > LONGEST_SECONDS:
        raise OptionError(option, "expected a length of time such as 30m, 24h, 90d or 2w")
    return seconds


def end_unix(text: str, now_unix: float) -> float | None:
    """When a key expires: after a length of time, or when a day (UTC) is over; None for an empty text.

    >>> end_unix("90d", 0.0), end_unix("1970-01-31", 0.0), end_unix("", 0.0)
    (7776000.0, 2678400.0, None)

    Raises:
        SettingsError: it is neither.
    """
    if not text:
        return None
    if _SPAN.fullmatch(text):
        return now_unix + span_seconds(text, "expires")
    try:
        day = dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
        return (day + dt.timedelta(days=1)).timestamp()
    except (ValueError, OverflowError):
        raise OptionError("expires", "expected a length of time such as 90d, or a day such as 2027-01-31") from None
