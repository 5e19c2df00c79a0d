"""`python -m router keys`: create, list, limit, revoke and rotate named keys."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from router.client import issuing, keystore
from router.client.keyfile import Limits, read_keys
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
UsdADay = Annotated[str | None, typer.Option(metavar="USD", help="Daily budget in US dollars (UTC day).")]
UsdAMonth = Annotated[str | None, typer.Option(metavar="USD", help="Monthly budget in US dollars (UTC month).")]
RequestsAMinute = Annotated[str | None, typer.Option(metavar="N", help="Maximum requests per minute.")]
TokensAMinute = Annotated[str | None, typer.Option(metavar="N", help="Maximum input and output tokens per minute.")]

Soft = Annotated[
    str | None, typer.Option(metavar="SHARE", help="Spent share of a budget at which --floor applies. Default: 0.8.")
]
Floor = Annotated[str | None, typer.Option(metavar="TARGET", help="Target of auto when the --soft share is spent.")]


@app.command(epilog=ADD_EXAMPLES)
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
    usd_a_day: UsdADay = None,
    usd_a_month: UsdAMonth = None,
    requests_a_minute: RequestsAMinute = None,
    tokens_a_minute: TokensAMinute = None,
    soft: Soft = None,
    floor: Floor = None,
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
        limits=given_limits(usd_a_day, usd_a_month, requests_a_minute, tokens_a_minute, soft, floor),
        team=team,
    )
    _print_secret(key, f"created key {name}; store it now, it is not shown again")


@app.command(epilog=LIMIT_EXAMPLES)
def limit(
    name: Name,
    usd_a_day: UsdADay = None,
    usd_a_month: UsdAMonth = None,
    requests_a_minute: RequestsAMinute = None,
    tokens_a_minute: TokensAMinute = None,
    soft: Soft = None,
    floor: Floor = None,
    team: Annotated[
        str | None,
        typer.Option(metavar="TEAM", help="Team whose limits the key shares; none removes the key from its team."),
    ] = None,
) -> None:
    """Change the limits of a key; the value none removes a limit. A running router applies them within two seconds."""
    given = given_limits(usd_a_day, usd_a_month, requests_a_minute, tokens_a_minute, soft, floor)
    key = keystore.limit_key(load(), name, given, team)
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


def given_limits(*values: str | None) -> dict[str, str | None]:
    """Option values by the field names of `Limits`, in that order; None: not given."""
    return dict(zip(Limits.__struct_fields__, values, strict=True))


def print_rows(rows: Iterable[dict[str, Any]], columns: tuple[str, ...], *, as_data: bool) -> None:
    """Print keys or teams as a table, or as JSON."""
    if as_data:
        sys.stdout.write(msgspec.json.encode(list(rows)).decode() + "\n")
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(_day(row[name]) if name in _MOMENTS else row[name]) for name in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def print_fields(fields: dict[str, Any]) -> None:
    """Print a key or a team, one field a line."""
    for field, value in fields.items():
        sys.stdout.write(f"{field + ':':<16}{_cell(value)}\n")


def limits_in_words(limits: Limits | None) -> str:
    """The limits as text, such as `$5 a day,60 requests a minute`."""
    mapping = keystore.limits_as_mapping(limits)
    return _cell(mapping) if mapping else "no limits"


_MOMENTS = ("created", "expires")  # tables show only the day


def _day(moment: str | None) -> str | None:
    return moment and moment[:10]


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = [_limit_in_words(name, amount) for name, amount in value.items()]
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return {True: "yes", False: "no", None: "-"}[value] if value is None or isinstance(value, bool) else str(value)


def _limit_in_words(name: str, amount: float) -> str:
    """A limit as text.

    >>> _limit_in_words("usd_a_day", 2.5), _limit_in_words("requests_a_minute", 60)
    ('$2.5 a day', '60 requests a minute')
    """
    if name in ("soft", "floor"):
        return f"{name} {amount:g}"
    unit, _, time = name.partition("_a_")
    return f"${amount:g} a {time}" if unit == "usd" else f"{amount} {unit} a {time}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
