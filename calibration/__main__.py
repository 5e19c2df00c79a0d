"""The commands of calibration: `python -m calibration --help`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from calibration import network
from calibration.commands import describe, from_traces, generate, policies
from calibration.commands import evaluate as evaluate_command
from calibration.commands import learn as learn_command
from calibration.commands import reprice as reprice_command
from calibration.commands import retire as retire_command
from calibration.commands import run as run_command
from calibration.commands import watch as watch_command
from calibration.commands.options import UsageError, command_with
from calibration.commands.run_options import RunOptions
from calibration.generation.kinds import GenerationError
from calibration.judging.judgements import ScorerError
from calibration.learning.learning import LearningError
from calibration.ledger import LedgerError
from calibration.outcomes import InputError
from calibration.questions.sources import QuestionError
from calibration.registry.registration import RegistryError
from calibration.spending import StoppedError
from calibration.traffic.traffic import TrafficError
from calibration.workers import WorkersError
from router.policy.distribution import NAME, version
from router.policy.document import PolicyError
from router.policy.prices import PriceError

INPUT_ERRORS = (  # reported in one line
    InputError,
    LearningError,
    LedgerError,
    GenerationError,
    PolicyError,
    PriceError,
    QuestionError,
    RegistryError,
    ScorerError,
    TrafficError,
    UsageError,
    WorkersError,
    *network.INPUT_ERRORS,
)
app = typer.Typer(
    help="Measure on which questions the cheap model is good enough, and learn a routing policy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


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
    """Options of the program itself."""


app.command("learn", epilog=learn_command.EXAMPLES)(learn_command.learn_command)
app.command("score", epilog=evaluate_command.SCORE_EXAMPLE)(evaluate_command.score_command)
app.command("evaluate", epilog=evaluate_command.EXAMPLES)(evaluate_command.evaluate_command)
app.command("run", epilog=run_command.EXAMPLES)(command_with(RunOptions, run_command.run_command))
app.command("report", epilog="Example: python -m calibration report --out reports")(policies.report_command)
app.command("promote", epilog='Example: python -m calibration promote --force "prices fell"')(policies.promote_command)
app.command("from-traces", epilog="Example: python -m calibration from-traces --since 7d --sample 500")(
    from_traces.from_traces_command
)
app.command("retire", epilog=retire_command.EXAMPLES)(retire_command.retire_command)
app.command("reprice", epilog=reprice_command.EXAMPLES)(reprice_command.reprice_command)
app.command("watch", epilog=watch_command.EXAMPLES)(watch_command.watch_command)
app.command("generate", epilog=generate.EXAMPLES)(generate.generate_command)
app.command("describe", epilog=describe.EXAMPLE)(describe.describe_command)
app.command("rollback", epilog="Example: python -m calibration rollback")(policies.rollback_command)


def main() -> None:
    """Run a command. An error in the input is reported in one line, with exit code 2."""
    try:
        app()
    except StoppedError as reason:
        Console(stderr=True).print(f"stopped: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(run_command.STOPPED) from reason
    except INPUT_ERRORS as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
