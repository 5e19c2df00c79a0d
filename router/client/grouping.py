"""Making, limiting and removing teams of keys: values in, values out; the clock is the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from router.client.issuing import OptionError, StateError, UnknownNameError, limits_of
from router.client.keyfile import NamedKey, Roster, Team, name_problem

NO_TEAM = "none"  # as an option: the key leaves its team


def added(teams: tuple[Team, ...], name: str, now_unix: float, given: Mapping[str, str | None]) -> tuple[Team, ...]:
    """The teams with a new one; `given` is as in `issuing.limits_of`.

    Raises:
        SettingsError: the name is taken or no name, or a limit does not fit.
    """
    if problem := _problem(name):
        raise OptionError("name", problem)
    if any(team.name == name for team in teams):
        raise StateError(f"a team {name} is there already, or was; names are used once, so that bills stay apart")
    return (*teams, Team(name, now_unix, limits_of(given)))


def limited(teams: tuple[Team, ...], name: str, given: Mapping[str, str | None]) -> tuple[Team, ...]:
    """The teams, with other limits for one of them; `given` is as in `issuing.limits_of`.

    Raises:
        SettingsError: there is no such team, it is removed, or a limit does not fit.
    """
    team = _active(teams, name)
    return _with(teams, msgspec.structs.replace(team, limits=limits_of(given, team.limits)))


def removed(roster: Roster, name: str, now_unix: float) -> tuple[Team, ...]:
    """The teams, with one of them removed. Its name stays, for the bill.

    Raises:
        SettingsError: there is no such team, it was removed before, or it has active keys.
    """
    team = _active(roster.teams, name)
    active = [key.name for key in members(roster.keys, name) if key.state(now_unix) == "active"]
    if active:
        raise StateError(f"team {name} has active keys ({', '.join(active[:5])}): move or revoke them first")
    return _with(roster.teams, msgspec.structs.replace(team, removed_unix=now_unix))


def team_of(teams: Iterable[Team], name: str) -> str:
    """The name of the team that a key is put into, for an option; "" for `NO_TEAM`.

    Raises:
        OptionError: there is no such team, or it is removed.
    """
    if name in ("", NO_TEAM):
        return ""
    if not any(team.name == name and team.state == "active" for team in teams):
        raise OptionError("team", name_problem(name, "team") or f"there is no active team {name}")
    return name


def named(teams: Iterable[Team], name: str) -> Team:
    """The team of a name.

    Raises:
        UnknownNameError: there is none. The name is not printed where it may be a key.
    """
    for team in teams:
        if team.name == name:
            return team
    raise UnknownNameError(
        name_problem(name, "team") or f"there is no team {name}; python -m router teams list shows all"
    )


def members(keys: Iterable[NamedKey], team: str) -> list[NamedKey]:
    """The keys of a team, those that have ended among them."""
    return [key for key in keys if key.team == team]


def _problem(name: str) -> str:
    return "no team can have this name" if name == NO_TEAM else name_problem(name, "team")


def _active(teams: tuple[Team, ...], name: str) -> Team:
    team = named(teams, name)
    if team.state != "active":
        raise StateError(f"team {name} is {team.state}")
    return team


def _with(teams: tuple[Team, ...], changed: Team) -> tuple[Team, ...]:
    return tuple(changed if team.name == changed.name else team for team in teams)
