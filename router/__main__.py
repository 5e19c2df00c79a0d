"""The command line: `python -m router COMMAND`. Each command imports its own modules, so that all start quickly."""

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


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"{NAME} {version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Accept the options that precede a command."""


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Non-loopback addresses require client keys (`keys add`).")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(help="Port to listen on; 0 selects a free port.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes.")] = 1,
    pair: Annotated[
        str,
        typer.Option(help="Cheap and strong model to route between without calibration, such as gpt-6-luna,gpt-6-sol."),
    ] = "",
) -> None:
    """Serve OpenAI-compatible clients and route each request to the cheapest model that is good enough."""
    if pair:
        os.environ["ROUTER_PAIR"] = pair  # inherited by the worker processes
    from router.server import run

    run(host, port, workers)


@app.command()
def decide(
    question: Annotated[str, typer.Argument(help="The question to route.")] = "",
    request: Annotated[
        str, typer.Option(help="JSON file with a chat, responses or completions request; - reads standard input.")
    ] = "",
    target: Annotated[
        str, typer.Option(help="Share of the strong model's quality to keep. Default: the target of the request.")
    ] = "",
    policy: Annotated[
        Path | None, typer.Option(help="Folder of the policy. Default: the policy that `serve` uses.")
    ] = (None),
) -> None:
    """Show which model the router selects for a question or request, and why. Nothing is sent to a model."""
    from router.commands.decide import show

    show(question, request, target, policy)


@app.command()
def export(
    once: Annotated[bool, typer.Option("--once", help="Export the pending records, then exit.")] = False,
    refused: Annotated[
        bool,
        typer.Option("--refused", help="Retry the records that a store refused and the exporter set aside, then exit."),
    ] = False,
) -> None:
    """Export the journal to MLflow and the usage tables until interrupted. `serve` does this automatically."""
    from router.exporter.priority import lower_priority
    from router.exporter.shipping import main as run

    lower_priority()
    raise typer.Exit(run(once=once or refused, refused=refused))


@app.command()
def usage(
    since: Annotated[str, typer.Option("--from", help="First day or time (UTC), such as 2026-11-01.")] = "",
    until: Annotated[str, typer.Option("--to", help="Last day (inclusive) or end time (exclusive).")] = "",
    group_by: Annotated[
        str, typer.Option(help="Comma-separated: model,type,key,team,day,user,reason,policy.")
    ] = "model",
    form: Annotated[str, typer.Option("--format", help="Output format: table, json or csv.")] = "table",
) -> None:
    """Print requests, tokens, cost and savings, grouped by model, day, key or other fields."""
    from router.usage.bill import show

    show(since, until, group_by, form)


LEARNT_EXAMPLES = """
Examples:

  python -m router learnt

  python -m router learnt --forget gpt-6-luna
"""


@app.command(epilog=LEARNT_EXAMPLES)
def learnt(
    forget: Annotated[
        str, typer.Option("--forget", metavar="MODEL", help="Delete the adaptations learned for this model.")
    ] = (""),
    as_data: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the parameters that models refused, and how the router adapts requests since then."""
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
        bool, typer.Option("--everybody", help="Allow a non-loopback address. The pages require no key.")
    ] = False,
) -> None:
    """Serve the MLflow UI for the recorded traces."""
    from router.commands.ui import show

    raise typer.Exit(show(host, port, everybody=everybody))


@app.command(no_args_is_help=True)
def alert(test: Annotated[bool, typer.Option("--test", help="Send one test alert.")] = False) -> None:  # noqa: ARG001
    """Send a test alert to ROUTER_ALERT_WEBHOOK. The exit code is 1 if the webhook rejects it."""
    from router.alerts.alerts import send_test
    from router.settings import load

    problem = send_test(load())
    sys.stderr.write(
        f"router: the webhook {f'rejected the test alert: {problem}' if problem else 'accepted the test alert'}\n"
    )
    raise typer.Exit(int(bool(problem)))


INIT_EXAMPLES = """
Examples:

  python -m router init

  python -m router init --path router.toml --force
"""


@app.command(epilog=INIT_EXAMPLES)
def init(
    path: Annotated[Path, typer.Option(help="File to write. The router reads router.toml.")] = CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a router.toml that documents every setting and its default, all commented out."""
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
    """Check settings, keys, upstreams, policy, prices, disk, stores and clock, and suggest fixes. Changes nothing.

    Each check prints a line that begins with ok, warning, problem or skipped. The exit code is 1 if there is a problem.
    """
    from router.commands.doctor.checks import show

    raise typer.Exit(show())


def main() -> NoReturn:
    """Run a command. A user error prints one line and exits with code 2."""
    try:
        app()
    except (SettingsError, PolicyError, RouterError) as error:
        sys.stderr.write(f"router: {error}\n")
    except OSError as error:  # such as a folder without write permission
        sys.stderr.write(f"router: {error.strerror or error}{f': {error.filename}' if error.filename else ''}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
