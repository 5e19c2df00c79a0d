"""`python -m router keys`: make, list, limit, revoke and rotate the named keys."""

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
The key is printed on standard output, this once: only its hash is stored. All else goes to standard error.

Examples:

  python -m router keys add ada

  python -m router keys add ci --models auto,gpt-4o-mini --expires 90d

  python -m router keys add batches --paths chat,models,account

  python -m router keys add bob --usd-a-day 5 --usd-a-month 50 --requests-a-minute 60 --tokens-a-minute 100000

  python -m router keys add eve --team research

  python -m router keys add owner --admin
"""
LIMIT_EXAMPLES = """
What is not named stays as it is.

Examples:

  python -m router keys limit ada --usd-a-day 5 --requests-a-minute 60

  python -m router keys limit ada --usd-a-day none

  python -m router keys limit ada --usd-a-month 50 --soft 0.8 --floor 0.9

  python -m router keys limit ada --team research
"""
ROTATE_EXAMPLES = """
The new key is printed on standard output, this once.

Examples:

  python -m router keys rotate ada --grace 24h

  python -m router keys rotate leaked
"""

app = typer.Typer(no_args_is_help=True, help="Make, list, revoke and rotate the keys that clients present.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of the key.")]
UsdADay = Annotated[str | None, typer.Option(metavar="USD", help="Dollars that it may spend on a day (UTC).")]
UsdAMonth = Annotated[str | None, typer.Option(metavar="USD", help="Dollars that it may spend in a month (UTC).")]
RequestsAMinute = Annotated[str | None, typer.Option(metavar="N", help="Requests that it may send in a minute.")]
TokensAMinute = Annotated[str | None, typer.Option(metavar="N", help="Tokens, of input and output, in a minute.")]

Soft = Annotated[
    str | None, typer.Option(metavar="SHARE", help="Share of a budget from which --floor holds; else 0.8.")
]
Floor = Annotated[str | None, typer.Option(metavar="TARGET", help="The target of auto when a budget is nearly spent.")]


@app.command(epilog=ADD_EXAMPLES)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="By which the key is known in records and bills.")],
    models: Annotated[
        str, typer.Option(help="Models that it may ask for, comma-separated; auto stands for all that is routed.")
    ] = "",
    paths: Annotated[
        str | None,
        typer.Option(help="Any of chat,responses,completions,embeddings,models,account; else all but account."),
    ] = None,
    expires: Annotated[str, typer.Option(help="After 90d, say, or at the end of a day (UTC) as 2027-01-31.")] = "",
    admin: Annotated[
        bool, typer.Option("--admin", help="It sees all usage, the page and /metrics, and has every path.")
    ] = False,
    usd_a_day: UsdADay = None,
    usd_a_month: UsdAMonth = None,
    requests_a_minute: RequestsAMinute = None,
    tokens_a_minute: TokensAMinute = None,
    soft: Soft = None,
    floor: Floor = None,
    team: Annotated[str, typer.Option(metavar="TEAM", help="The team whose limits it shares (`teams add`).")] = "",
) -> None:
    """Make a key. A running router knows it within two seconds."""
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
    _hand_out(key, f"key {name} is made; it is shown this once, so keep it now")


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
        str | None, typer.Option(metavar="TEAM", help="The team whose limits it shares; none for no team.")
    ] = None,
) -> None:
    """Change what a key may spend and send; none removes a limit. A running router holds to it within two seconds."""
    given = given_limits(usd_a_day, usd_a_month, requests_a_minute, tokens_a_minute, soft, floor)
    key = keystore.limit_key(load(), name, given, team)
    sys.stderr.write(
        f"router: key {name} has {limits_in_words(key.limits)}{f', and is in team {key.team}' * bool(key.team)}\n"
    )


@app.command("list")
def show_all(as_data: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the keys with their rights and ends; the keys themselves are stored nowhere."""
    now = time.time()
    keys = [keystore.key_as_mapping(key, now) for key in read_keys(load().keys_path)]
    columns = ("name", "state", "team", "admin", "paths", "models", "limits", "created", "expires")
    print_rows(keys, columns, as_data=as_data)


@app.command()
def show(name: Name) -> None:
    """Show one key: its rights, its ends, and the keys that it replaced."""
    now = time.time()
    print_fields(keystore.key_as_mapping(issuing.find_key(read_keys(load().keys_path), name), now))


@app.command()
def revoke(name: Name) -> None:
    """End a key for good. A running router refuses it within two seconds; requests in flight are answered."""
    keystore.revoke_key(load(), name)
    sys.stderr.write(f"router: key {name} is revoked\n")


@app.command(epilog=ROTATE_EXAMPLES)
def rotate(
    name: Name,
    grace: Annotated[str, typer.Option(help="How long the key before is accepted beside it, as 24h; 0: no longer.")] = (
        "0"
    ),
) -> None:
    """Make another key for a name, with the same rights and the same end."""
    _, key, until_unix = keystore.rotate_key(load(), name, grace)
    until = "no longer" if until_unix is None else f"until {keystore.format_time(until_unix)}"
    _hand_out(key, f"key {name} is another one, shown this once; the one before is accepted {until}")


def _hand_out(key: str, told: str) -> None:
    sys.stdout.write(key + "\n")
    sys.stdout.flush()
    sys.stderr.write(f"router: {told}\n")


def given_limits(*values: str | None) -> dict[str, str | None]:
    """The limits that are given as options, in the order of `Limits`; None: not given."""
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


def print_fields(told: dict[str, Any]) -> None:
    """Print one key, or one team."""
    for field, value in told.items():
        sys.stdout.write(f"{field + ':':<16}{_cell(value)}\n")


def limits_in_words(limits: Limits | None) -> str:
    """The limits for readers."""
    told = keystore.limits_as_mapping(limits)
    return _cell(told) if told else "no limits"


_MOMENTS = ("created", "expires")  # of which a table shows the day


def _day(moment: str | None) -> str | None:
    return moment and moment[:10]


def _cell(value: object) -> str:
    if isinstance(value, dict):
        value = [_limit_in_words(name, amount) for name, amount in value.items()]
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return {True: "yes", False: "no", None: "-"}[value] if value is None or isinstance(value, bool) else str(value)


def _limit_in_words(name: str, amount: float) -> str:
    """A limit for readers.

    >>> _limit_in_words("usd_a_day", 2.5), _limit_in_words("requests_a_minute", 60)
    ('$2.5 a day', '60 requests a minute')
    """
    if name in ("soft", "floor"):
        return f"{name} {amount:g}"
    unit, _, time = name.partition("_a_")
    return f"${amount:g} a {time}" if unit == "usd" else f"{amount} {unit} a {time}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
