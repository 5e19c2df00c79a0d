"""Create, limit and remove teams of keys. Pure functions; callers pass the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from router.client.issuing import OptionError, StateError, UnknownNameError, limits_of
from router.client.keyfile import NamedKey, Roster, Team, name_problem

NO_TEAM = "none"  # option value that removes a key from its team


def added(teams: tuple[Team, ...], name: str, now_unix: float, given: Mapping[str, str | None]) -> tuple[Team, ...]:
    """The teams with a new one; `given` is as in `issuing.limits_of`.

    Raises:
        SettingsError: the name is taken or invalid, or a limit is invalid.
    """
    if problem := _problem(name):
        raise OptionError("name", problem)
    if any(team.name == name for team in teams):
        raise StateError(
            f"the name {name} is taken by a current or former team; names cannot be reused, to keep usage separate"
        )
    return (*teams, Team(name, now_unix, limits_of(given)))


def limited(teams: tuple[Team, ...], name: str, given: Mapping[str, str | None]) -> tuple[Team, ...]:
    """The teams, with changed limits for one of them; `given` is as in `issuing.limits_of`.

    Raises:
        SettingsError: the team does not exist or is removed, or a limit is invalid.
    """
    team = _active(teams, name)
    return _with(teams, msgspec.structs.replace(team, limits=limits_of(given, team.limits)))


def removed(roster: Roster, name: str, now_unix: float) -> tuple[Team, ...]:
    """The teams, with one of them marked as removed. Its name stays reserved for past usage.

    Raises:
        SettingsError: the team does not exist, is already removed, or has active keys.
    """
    team = _active(roster.teams, name)
    active = [key.name for key in members(roster.keys, name) if key.state(now_unix) == "active"]
    if active:
        raise StateError(f"team {name} has active keys ({', '.join(active[:5])}): move or revoke them first")
    return _with(roster.teams, msgspec.structs.replace(team, removed_unix=now_unix))


def team_of(teams: Iterable[Team], name: str) -> str:
    """Resolve a team option to the name of a team; "" for `NO_TEAM`.

    Raises:
        OptionError: the team does not exist or is removed.
    """
    if name in ("", NO_TEAM):
        return ""
    if not any(team.name == name and team.state == "active" for team in teams):
        raise OptionError("team", name_problem(name, "team") or f"{name} is not an active team")
    return name


def named(teams: Iterable[Team], name: str) -> Team:
    """Find a team by name.

    Raises:
        UnknownNameError: no team has this name. The message omits the name if it looks like a secret.
    """
    for team in teams:
        if team.name == name:
            return team
    raise UnknownNameError(
        name_problem(name, "team") or f"team {name} does not exist; `python -m router teams list` lists all teams"
    )


def members(keys: Iterable[NamedKey], team: str) -> list[NamedKey]:
    """The keys of a team, including inactive ones."""
    return [key for key in keys if key.team == team]


def _problem(name: str) -> str:
    return "this name is reserved" if name == NO_TEAM else name_problem(name, "team")


def _active(teams: tuple[Team, ...], name: str) -> Team:
    team = named(teams, name)
    if team.state != "active":
        raise StateError(f"team {name} is {team.state}")
    return team


def _with(teams: tuple[Team, ...], changed: Team) -> tuple[Team, ...]:
    return tuple(changed if team.name == changed.name else team for team in teams)
