"""`python -m router teams`: create, list, limit and remove teams of keys."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from router.client import grouping, keystore
from router.client.keyfile import read_roster
from router.commands.limit_options import GivenLimits, with_limit_options
from router.commands.named import limits_in_words, print_fields, print_rows
from router.settings import load

ADD_EXAMPLES = """
Assign a key to a team with `keys add NAME --team TEAM` or `keys limit NAME --team TEAM`.

Examples:

  python -m router teams add research --usd-a-day 20 --usd-a-month 200

  python -m router teams add research --requests-a-minute 600 --tokens-a-minute 1000000
"""
LIMIT_EXAMPLES = """
Options that are not given keep their values.

Examples:

  python -m router teams limit research --usd-a-month 300

  python -m router teams limit research --usd-a-month 300 --soft 0.8 --floor 0.9
"""

app = typer.Typer(
    no_args_is_help=True, help="Create, list, limit and remove teams. The keys of a team share its limits."
)
Name = Annotated[str, typer.Argument(metavar="TEAM", help="The name of the team.")]


@app.command(epilog=ADD_EXAMPLES)
@with_limit_options
def add(
    name: Annotated[str, typer.Argument(metavar="TEAM", help="Name of the team in records and usage.")],
    limits: GivenLimits,
) -> None:
    """Create a team. Its limits apply to all its keys together, in addition to the limits of each key."""
    team = keystore.add_team(load(), name, limits)
    sys.stderr.write(f"router: created team {name} with {limits_in_words(team.limits)}\n")


@app.command(epilog=LIMIT_EXAMPLES)
@with_limit_options
def limit(
    name: Name,
    limits: GivenLimits,
) -> None:
    """Change the limits of a team; the value none removes a limit. A running router applies them within two seconds."""
    team = keystore.limit_team(load(), name, limits)
    sys.stderr.write(f"router: team {name} has {limits_in_words(team.limits)}\n")


@app.command("list")
def show_all(as_data: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the teams with their limits and active keys."""
    roster, now = read_roster(load().keys_path), time.time()
    teams = [keystore.team_as_mapping(team, roster.keys, now) for team in roster.teams]
    print_rows(teams, ("name", "state", "keys", "limits", "created"), as_data=as_data)


@app.command()
def show(name: Name) -> None:
    """Show one team with its limits and active keys."""
    roster = read_roster(load().keys_path)
    print_fields(keystore.team_as_mapping(grouping.find_team(roster.teams, name), roster.keys, time.time()))


@app.command()
def remove(name: Name) -> None:
    """Remove a team that has no active keys. Its name stays in the usage and cannot be reused."""
    keystore.remove_team(load(), name)
    sys.stderr.write(f"router: removed team {name}\n")
