"""Options that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from router.policy.rules import Promise

Options = TypeVar("Options")


class UsageError(Exception):
    """An option has an invalid value. The message names the option.

    It is not a `ValueError`, because Typer prints a `ValueError` of a parser as a box of several lines.
    """


def command_with(options: type[Options], run: Callable[[Options], None]) -> Callable[..., None]:
    """The command `run` with the fields of the dataclass `options` as its options, for `typer.Typer.command`."""

    def command(**values: Any) -> None:
        run(options(**values))

    command.__signature__ = inspect.signature(options, eval_str=True)  # type: ignore[attr-defined]
    command.__doc__ = run.__doc__
    return command


def _number_option(option: str, low: float, high: float, meaning: str, metavar: str = "NUMBER") -> Any:
    """An option whose value is a number from `low` to `high`; NaN is invalid."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise UsageError(f"{option} {text}: expected a number from {low:g} to {high:g}")
        return value

    return typer.Option(parser=parse, metavar=metavar, help=meaning)


def share_option(option: str, meaning: str) -> Any:
    """An option whose value is a share from 0 to 1."""
    return _number_option(option, 0.0, 1.0, meaning, "SHARE")


def _parse_promise(text: str) -> Promise:
    if text not in list(Promise):
        raise UsageError(f"--promise {text}: expected {' or '.join(Promise)}")
    return Promise(text)


def parse_names(text: str) -> list[str]:
    """Split a comma-separated list of names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_models(option: str, text: str) -> list[str]:
    """Two or more different models, from cheap to strong.

    Raises:
        UsageError: fewer than two models, or a repeated model.
    """
    names = parse_names(text)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"{option} {text!r}: name two or more different models, from cheap to strong")
    return names


Confidence = Annotated[
    float, _number_option("--confidence", 0.5, 0.999, "Confidence level of a certified promise, 0.5 to 0.999.")
]
PromiseOption = Annotated[
    Promise,
    typer.Option(
        "--promise",
        parser=_parse_promise,
        metavar="|".join(Promise),
        help="Accept only certified promises, or also promises that are expected to hold.",
    ),
]
TypeMargin = Annotated[
    float,
    _number_option("--type-margin", 0.0, 1.0, "How far below the target a single question type may be, 0 to 1."),
]
Judge = Annotated[
    str, typer.Option(help="Model that judges answers. Default: one that stays available for at least 90 days.")
]
EndpointOption = Annotated[
    list[str] | None,
    typer.Option(help="Endpoint of a model or of the judge: MODEL=URL or MODEL=URL,KEY_VARIABLE. Repeatable."),
]
SystemPrompt = Annotated[str, typer.Option(help="System prompt of questions that have none.")]
Parameters = Annotated[
    str, typer.Option(help='JSON object that is sent with every question, such as {"temperature": 0}.')
]
MaxOutputTokens = Annotated[
    int, typer.Option(min=1, help="Maximum tokens of an answer, for which the budget reserves dollars.")
]
BudgetUsd = Annotated[float | None, typer.Option(min=0, help="Budget in dollars. Stop before a call could exceed it.")]
Prices = Annotated[Path | None, typer.Option(help="Price file that adds to or replaces the shipped prices.")]
Concurrency = Annotated[int, typer.Option(min=1, max=256, help="Maximum number of concurrent questions.")]
Batch = Annotated[bool, typer.Option("--batch", help="Use OpenAI's Batch API: half the price, results within a day.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation before spending.")]
Jobs = Annotated[
    int,
    typer.Option(min=1, help="Processes that learn and, in `run`, judge. The policy does not depend on it."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|ADDRESS",
        help="Learn on a Ray cluster: its address, or auto to start one on this machine with --jobs workers.",
    ),
]
Until = Annotated[
    float | None,
    _number_option(
        "--until",
        *(0.5, 0.999),
        "Ask in rounds. Stop when this target (0.5 to 0.999) is certified, when more questions would not help, or "
        "when the budget does not cover the next round.",
        "TARGET",
    ),
]
Outcomes = Annotated[
    list[Path], typer.Option("--outcomes", help="Outcome file: JSON lines, optionally gzipped. Repeatable.")
]
PolicyFolder = Annotated[Path, typer.Option("--policy", help="Policy folder.")]
Seed = Annotated[int, typer.Option(help="Random seed. The same seed and input give the same result.")]
