"""Creating, limiting and removing teams of keys. Pure: the functions return changed teams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from router.client.issuing import OptionError, StateError, UnknownNameError, parse_limits
from router.client.keyfile import NamedKey, Roster, Team, name_problem

NO_TEAM = "none"  # the value of an option that removes a key from its team


def add(teams: tuple[Team, ...], name: str, now_unix: float, options: Mapping[str, str | None]) -> tuple[Team, ...]:
    """The teams with a new one; `options` is as in `issuing.parse_limits`.

    Raises:
        SettingsError: the name is invalid or in use, or a limit is invalid.
    """
    if problem := _problem(name):
        raise OptionError("name", problem)
    if any(team.name == name for team in teams):
        raise StateError(f"the name {name} is or was in use; names cannot be reused, so that bills stay separate")
    return (*teams, Team(name, now_unix, parse_limits(options)))


def set_limits(teams: tuple[Team, ...], name: str, options: Mapping[str, str | None]) -> tuple[Team, ...]:
    """The teams with changed limits for one of them; `options` is as in `issuing.parse_limits`.

    Raises:
        SettingsError: the team does not exist or is removed, or a limit is invalid.
    """
    team = _active(teams, name)
    return _with(teams, msgspec.structs.replace(team, limits=parse_limits(options, team.limits)))


def remove(roster: Roster, name: str, now_unix: float) -> tuple[Team, ...]:
    """The teams with one of them removed. Its name stays in the file, for the bill.

    Raises:
        SettingsError: the team does not exist, is removed already, or has active keys.
    """
    team = _active(roster.teams, name)
    active = [key.name for key in members(roster.keys, name) if key.state(now_unix) == "active"]
    if active:
        raise StateError(f"team {name} has active keys ({', '.join(active[:5])}): move or revoke them first")
    return _with(roster.teams, msgspec.structs.replace(team, removed_unix=now_unix))


def parse_team(teams: Iterable[Team], name: str) -> str:
    """The team name in an option; "" for `NO_TEAM`.

    Raises:
        OptionError: the team does not exist or is removed.
    """
    if name in ("", NO_TEAM):
        return ""
    if not any(team.name == name and team.state == "active" for team in teams):
        raise OptionError("team", name_problem(name, "team") or f"no active team is called {name}")
    return name


def find_team(teams: Iterable[Team], name: str) -> Team:
    """The team with a name.

    Raises:
        UnknownNameError: no team has this name. A name that may be a key is not part of the message.
    """
    for team in teams:
        if team.name == name:
            return team
    raise UnknownNameError(
        name_problem(name, "team") or f"no team is called {name}; list all with python -m router teams list"
    )


def members(keys: Iterable[NamedKey], team: str) -> list[NamedKey]:
    """The keys of a team, including expired and revoked ones."""
    return [key for key in keys if key.team == team]


def _problem(name: str) -> str:
    return "this name is reserved" if name == NO_TEAM else name_problem(name, "team")


def _active(teams: tuple[Team, ...], name: str) -> Team:
    team = find_team(teams, name)
    if team.state != "active":
        raise StateError(f"team {name} is {team.state}")
    return team


def _with(teams: tuple[Team, ...], changed: Team) -> tuple[Team, ...]:
    return tuple(changed if team.name == changed.name else team for team in teams)
