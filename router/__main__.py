"""The command line: `python -m router serve|decide|export|usage|learnt|keys|teams|prices|alert|ui|init|doctor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from router.commands.keys import app as keys
from router.commands.pricing.commands import app as prices
from router.commands.teams import app as teams
from router.errors import RouterError
from router.policy.distribution import NAME, version
from router.policy.document import PolicyError
from router.settings import CONFIG, SettingsError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="A calibrated model-routing proxy.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options of every command."""


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback need keys (`keys add`, ROUTER_API_KEYS).")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    pair: Annotated[
        str,
        typer.Option(help="Cheap and strong model, as gpt-6-luna,gpt-6-sol, before they are calibrated (ROUTER_PAIR)."),
    ] = "",
) -> None:
    """Answer OpenAI clients, each request by the cheapest model that is good enough."""
    if pair:
        os.environ["ROUTER_PAIR"] = pair  # for every process that is started
    from router.server import run

    run(host, port, workers)


@app.command()
def decide(
    question: Annotated[str, typer.Argument(help="What a user would ask.")] = "",
    request: Annotated[
        str, typer.Option(help="File with a chat, responses or completions body in JSON; - for standard input.")
    ] = "",
    target: Annotated[
        str, typer.Option(help="Share of the strong model's quality to keep; else as the request says.")
    ] = "",
    policy: Annotated[Path | None, typer.Option(help="Folder of the policy; else the one that would be served.")] = (
        None
    ),
) -> None:
    """Say what a question or a whole request is read as, which model would answer, and why. Nothing is sent."""
    from router.commands.decide import show

    show(question, request, target, policy)


@app.command()
def export(
    once: Annotated[bool, typer.Option("--once", help="Ship what is there, then end.")] = False,
    refused: Annotated[
        bool, typer.Option("--refused", help="Ship once more what a store refused and was put aside, then end.")
    ] = False,
) -> None:
    """Ship what the journal holds to MLflow and the usage tables, until it is stopped. `serve` does this by itself."""
    from router.exporter.priority import lower_priority
    from router.exporter.shipping import main as run

    lower_priority()
    raise typer.Exit(run(once=once or refused, refused=refused))


@app.command()
def usage(
    since: Annotated[str, typer.Option("--from", help="First day or moment (UTC), as 2026-11-01.")] = "",
    until: Annotated[str, typer.Option("--to", help="Last day, included; or the moment before which.")] = "",
    group_by: Annotated[str, typer.Option(help="Any of model,type,key,team,day,user,reason,policy.")] = "model",
    form: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
) -> None:
    """Print what was used, what it cost, and what was saved."""
    from router.usage.bill import show

    show(since, until, group_by, form)


LEARNT_EXAMPLES = """
Examples:

  python -m router learnt

  python -m router learnt --forget gpt-6-luna
"""


@app.command(epilog=LEARNT_EXAMPLES)
def learnt(
    forget: Annotated[str, typer.Option("--forget", metavar="MODEL", help="Forget what a model's refusals taught.")] = (
        ""
    ),
    as_data: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what models refused, and what is done about it since. A running router follows within two seconds."""
    from router.commands.learnt import show

    show(forget, as_data=as_data)


app.add_typer(keys, name="keys")
app.add_typer(teams, name="teams")
app.add_typer(prices, name="prices")


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    everybody: Annotated[
        bool, typer.Option("--everybody", help="Listen on other addresses than loopback: the pages ask for no key.")
    ] = False,
) -> None:
    """Show MLflow's pages over what was recorded."""
    from router.commands.ui import show

    raise typer.Exit(show(host, port, everybody=everybody))


@app.command(no_args_is_help=True)
def alert(test: Annotated[bool, typer.Option("--test", help="Post a test, once.")] = False) -> None:  # noqa: ARG001
    """Post to ROUTER_ALERT_WEBHOOK what an alert looks like. The exit code is 1 where the webhook does not take it."""
    from router.alerts.alerts import send_test
    from router.settings import load

    problem = send_test(load())
    sys.stderr.write(f"router: the webhook {f'did not take the test: {problem}' if problem else 'took the test'}\n")
    raise typer.Exit(int(bool(problem)))


INIT_EXAMPLES = """
Examples:

  python -m router init

  python -m router init --path router.toml --force
"""


@app.command(epilog=INIT_EXAMPLES)
def init(
    path: Annotated[Path, typer.Option(help="The file to write; router.toml is what the router reads.")] = CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write router.toml with every setting, its default and what it does, all commented out."""
    from router.commands.init import show

    show(path, force=force)


DOCTOR_EXAMPLES = """
Examples:

  python -m router doctor

  OPENAI_BASE_URL=http://localhost:11434/v1 python -m router doctor

  python -m router doctor && python -m router serve
"""


@app.command(epilog=DOCTOR_EXAMPLES)
def doctor() -> None:
    """Check settings, key, upstream, policy, prices, disk, stores and clock; say what to do. Nothing is changed.

    Each check is a line that begins with ok, warning, problem or skipped. The exit code is 1 if there is a problem.
    """
    from router.commands.doctor.checks import show

    raise typer.Exit(show())


def main() -> NoReturn:
    """Run a command; an error of its user's is one line and exit code 2."""
    try:
        app()
    except (SettingsError, PolicyError, RouterError) as error:
        sys.stderr.write(f"router: {error}\n")
    except OSError as error:  # a folder that may not be written, say
        sys.stderr.write(f"router: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
