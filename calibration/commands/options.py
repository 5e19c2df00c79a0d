"""Options that commands share, and the error for values that do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from router.policy.rules import Promise

Options = TypeVar("Options")


class UsageError(Exception):
    """The value of an option does not fit. Not a `ValueError`, which Typer would print as a box of several lines."""


def command_with(options: type[Options], run: Callable[[Options], None]) -> Callable[..., None]:
    """The command `run` with the fields of the dataclass `options` as its options, for `typer.Typer.command`."""

    def command(**values: Any) -> None:
        run(options(**values))

    command.__signature__ = inspect.signature(options, eval_str=True)  # type: ignore[attr-defined]
    command.__doc__ = run.__doc__
    return command


def _between(option: str, low: float, high: float, meaning: str, metavar: str = "NUMBER") -> Any:
    """An option that takes a number from `low` to `high`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise UsageError(f"{option} {text}: expected a number from {low:g} to {high:g}")
        return value

    return typer.Option(parser=read, metavar=metavar, help=meaning)


def _read_promise(text: str) -> Promise:
    if text not in list(Promise):
        raise UsageError(f"--promise {text}: expected {' or '.join(Promise)}")
    return Promise(text)


def share_option(option: str, meaning: str) -> Any:
    """An option that takes a share from 0 to 1."""
    return _between(option, 0.0, 1.0, meaning, "SHARE")


Confidence = Annotated[
    float, _between("--confidence", 0.5, 0.999, "The confidence at which targets are certified, .5 to .999.")
]
PromiseOption = Annotated[
    Promise,
    typer.Option(
        "--promise",
        parser=_read_promise,
        metavar="|".join(Promise),
        help="Use certified targets only, or also targets that are expected to hold.",
    ),
]
TypeMargin = Annotated[
    float,
    _between("--type-margin", 0.0, 1.0, "How much less than the target a single type may keep, 0 to 1."),
]
Judge = Annotated[str, typer.Option(help="The model that judges. Default: a known model with no shutdown date soon.")]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(help="MODEL=URL or MODEL=URL,KEY_VARIABLE: the upstream of a model or of the judge."),
]
Parameters = Annotated[str, typer.Option(help='JSON fields of every request, such as {"temperature": 0}.')]
MaxOutputTokens = Annotated[int, typer.Option(min=1, help="The token limit of an answer, which the budget assumes.")]
Prices = Annotated[Path | None, typer.Option(help="A file of prices that add to or replace the shipped ones.")]
Jobs = Annotated[int, typer.Option(min=1, help="The number of processes that learn. The policy does not depend on it.")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|ADDRESS",
        help="Learn on a Ray cluster: its address, or auto for the local one (started with --jobs workers if needed).",
    ),
]
Until = Annotated[
    float | None,
    _between(
        "--until",
        *(0.5, 0.999),
        "Ask in rounds. Stop when this target (.5 to .999) is certified, when more questions would not help, or when "
        "the budget does not cover the next round.",
        "TARGET",
    ),
]
Outcomes = Annotated[list[Path], typer.Option("--outcomes", help="Outcomes in JSON lines, gzipped or not. Repeatable.")]
PolicyFolder = Annotated[Path, typer.Option("--policy", help="The folder of the policy.")]
Seed = Annotated[int, typer.Option(help="The random seed. The same seed gives the same policy.")]
