"""Options of the commands, and what is said of those that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from router.policy.decision import Promise


class UsageError(Exception):
    """An option does not fit; says which. Not a `ValueError`: of those Typer makes a box of several lines."""


def _between(option: str, low: float, high: float, meaning: str, metavar: str = "NUMBER") -> Any:
    """An option that is a number from `low` to `high`; NaN is none."""

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
    """An option that is a share, from 0 to 1."""
    return _between(option, 0.0, 1.0, meaning, "SHARE")


Confidence = Annotated[
    float, _between("--confidence", 0.5, 0.999, "How sure a promise is before it is certified, .5 to .999.")
]
PromiseOption = Annotated[
    Promise,
    typer.Option(
        "--promise",
        parser=_read_promise,
        metavar="|".join(Promise),
        help="Promise what is certified alone, or also what is only expected to hold.",
    ),
]
TypeMargin = Annotated[
    float,
    _between("--type-margin", 0.0, 1.0, "By how much a single type may keep less than the target, 0 to 1."),
]
Judge = Annotated[str, typer.Option(help="The model that judges. Default: one of the table that stays.")]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(help="MODEL=URL, or MODEL=URL,KEY_VARIABLE, for a model (or the judge) that lives elsewhere."),
]
Parameters = Annotated[str, typer.Option(help='JSON sent with every question, such as {"temperature": 0}.')]
MaxOutputTokens = Annotated[int, typer.Option(min=1, help="The cap of an answer; the budget rests on it.")]
Prices = Annotated[Path | None, typer.Option(help="Prices that add to or replace the shipped ones.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes that learn. The policy is the same for any number.")]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|ADDRESS",
        help="Learn on a Ray cluster: its address, or auto for the one of this machine, started with --jobs workers.",
    ),
]
Until = Annotated[
    float | None,
    _between(
        "--until",
        *(0.5, 0.999),
        "Ask in rounds, and stop when this target (.5 to .999) is certified, more would not help or the budget "
        "does not cover the next round.",
        "TARGET",
    ),
]
Outcomes = Annotated[list[Path], typer.Option("--outcomes", help="Outcomes, JSON lines, gzipped or not; repeatable.")]
PolicyFolder = Annotated[Path, typer.Option("--policy", help="The folder of a policy.")]
Seed = Annotated[int, typer.Option(help="Chance is an argument: the same seed gives the same policy.")]
