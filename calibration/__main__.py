"""The command line of the calibration: `python -m calibration --help`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from calibration import network
from calibration.commands import describe, evaluate, from_traces, generate, learn, policies, reprice, retire, run, watch
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

INPUT_ERRORS = (  # printed as one line, without a traceback
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
    help="Calibrate the router: learn on which questions a cheap model is as good as the strong one.",
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
    """Options of the command line itself."""


app.command("run", epilog=run.EXAMPLES)(command_with(RunOptions, run.run_command))
app.command("report", epilog=policies.REPORT_EXAMPLE)(policies.report_command)
app.command("promote", epilog=policies.PROMOTE_EXAMPLE)(policies.promote_command)
app.command("rollback", epilog=policies.ROLLBACK_EXAMPLE)(policies.rollback_command)
app.command("watch", epilog=watch.EXAMPLES)(watch.watch_command)
app.command("from-traces", epilog=from_traces.EXAMPLE)(from_traces.from_traces_command)
app.command("retire", epilog=retire.EXAMPLES)(retire.retire_command)
app.command("reprice", epilog=reprice.EXAMPLES)(reprice.reprice_command)
app.command("learn", epilog=learn.EXAMPLES)(learn.learn_command)
app.command("score", epilog=evaluate.SCORE_EXAMPLE)(evaluate.score_command)
app.command("evaluate", epilog=evaluate.EXAMPLES)(evaluate.evaluate_command)
app.command("generate", epilog=generate.EXAMPLES)(generate.generate_command)
app.command("describe", epilog=describe.EXAMPLE)(describe.describe_command)


def main() -> None:
    """Run a command. An input error exits with code 2, a stopped command with `run.STOPPED`."""
    try:
        app()
    except StoppedError as reason:
        Console(stderr=True).print(f"stopped: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(run.STOPPED) from reason
    except INPUT_ERRORS as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
