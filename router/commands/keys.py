"""`python -m router keys`: create, list, limit, revoke and rotate named keys."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from router.client import issuing, keystore
from router.client.keyfile import read_keys
from router.commands.limit_options import NONE_GIVEN, GivenLimits, with_limit_options
from router.commands.named import limits_in_words, print_fields, print_rows
from router.settings import load

ADD_EXAMPLES = """
The key is printed once, on standard output. Only its hash is stored. Messages go to standard error.

Examples:

  python -m router keys add ada

  python -m router keys add ci --models auto,gpt-4o-mini --expires 90d

  python -m router keys add batches --paths chat,models,account

  python -m router keys add bob --usd-a-day 5 --usd-a-month 50 --requests-a-minute 60 --tokens-a-minute 100000

  python -m router keys add eve --team research

  python -m router keys add owner --admin
"""
LIMIT_EXAMPLES = """
Options that are not given keep their values.

Examples:

  python -m router keys limit ada --usd-a-day 5 --requests-a-minute 60

  python -m router keys limit ada --usd-a-day none

  python -m router keys limit ada --usd-a-month 50 --soft 0.8 --floor 0.9

  python -m router keys limit ada --team research
"""
ROTATE_EXAMPLES = """
The new key is printed once, on standard output.

Examples:

  python -m router keys rotate ada --grace 24h

  python -m router keys rotate leaked
"""

app = typer.Typer(no_args_is_help=True, help="Create, list, limit, revoke and rotate client keys.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the key.")]


@app.command(epilog=ADD_EXAMPLES)
@with_limit_options
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key in records and usage.")],
    models: Annotated[
        str,
        typer.Option(help="Comma-separated models that the key may use; auto covers all routed models. Default: all."),
    ] = "",
    paths: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: chat,responses,completions,embeddings,models,account. Default: all but account."
        ),
    ] = None,
    expires: Annotated[str, typer.Option(help="Lifetime, such as 90d, or last day (UTC), such as 2027-01-31.")] = "",
    admin: Annotated[
        bool, typer.Option("--admin", help="Grant every path, the usage of all keys, the dashboard and /metrics.")
    ] = False,
    limits: GivenLimits = NONE_GIVEN,
    team: Annotated[str, typer.Option(metavar="TEAM", help="Team whose limits the key shares (`teams add`).")] = "",
) -> None:
    """Create a key. A running router accepts it within two seconds."""
    _, key = keystore.add_key(
        load(),
        name,
        models=_names(models),
        paths=None if paths is None else _names(paths),
        expires=expires,
        admin=admin,
        limits=limits,
        team=team,
    )
    _print_secret(key, f"created key {name}; store it now, it is not shown again")


@app.command(epilog=LIMIT_EXAMPLES)
@with_limit_options
def limit(
    name: Name,
    limits: GivenLimits,
    team: Annotated[
        str | None,
        typer.Option(metavar="TEAM", help="Team whose limits the key shares; none removes the key from its team."),
    ] = None,
) -> None:
    """Change the limits of a key; the value none removes a limit. A running router applies them within two seconds."""
    key = keystore.limit_key(load(), name, limits, team)
    sys.stderr.write(
        f"router: key {name} has {limits_in_words(key.limits)}{f' and is in team {key.team}' * bool(key.team)}\n"
    )


@app.command("list")
def show_all(as_data: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the keys with their rights, limits and expiry. The secrets are not stored."""
    now = time.time()
    keys = [keystore.key_as_mapping(key, now) for key in read_keys(load().keys_path)]
    columns = ("name", "state", "team", "admin", "paths", "models", "limits", "created", "expires")
    print_rows(keys, columns, as_data=as_data)


@app.command()
def show(name: Name) -> None:
    """Show one key with its rights, limits, expiry and replaced secrets."""
    now = time.time()
    print_fields(keystore.key_as_mapping(issuing.find_key(read_keys(load().keys_path), name), now))


@app.command()
def revoke(name: Name) -> None:
    """Revoke a key permanently. A running router rejects it within two seconds; requests in flight complete."""
    keystore.revoke_key(load(), name)
    sys.stderr.write(f"router: key {name} is revoked\n")


@app.command(epilog=ROTATE_EXAMPLES)
def rotate(
    name: Name,
    grace: Annotated[str, typer.Option(help="How long the old secret stays valid, such as 24h; 0 ends it now.")] = (
        "0"
    ),
) -> None:
    """Replace the secret of a key. Rights, limits and expiry stay the same."""
    _, key, until_unix = keystore.rotate_key(load(), name, grace)
    end = "is no longer accepted" if until_unix is None else f"is accepted until {keystore.format_time(until_unix)}"
    _print_secret(key, f"rotated key {name}; store it now, it is not shown again. The old secret {end}")


def _print_secret(key: str, message: str) -> None:
    sys.stdout.write(key + "\n")
    sys.stdout.flush()
    sys.stderr.write(f"router: {message}\n")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
