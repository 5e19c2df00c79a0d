"""The options of limits, which commands of keys and teams share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from router.client.keyfile import Limits

GivenLimits = Mapping[str, str | None]  # option values by the field names of `Limits`; None: not given
NONE_GIVEN: GivenLimits = dict.fromkeys(Limits.__struct_fields__)
UsdADay = Annotated[str | None, typer.Option(metavar="USD", help="Daily budget in US dollars (UTC day).")]
UsdAMonth = Annotated[str | None, typer.Option(metavar="USD", help="Monthly budget in US dollars (UTC month).")]
RequestsAMinute = Annotated[str | None, typer.Option(metavar="N", help="Maximum requests per minute.")]
TokensAMinute = Annotated[str | None, typer.Option(metavar="N", help="Maximum input and output tokens per minute.")]

Soft = Annotated[
    str | None, typer.Option(metavar="SHARE", help="Spent share of a budget at which --floor applies. Default: 0.8.")
]
Floor = Annotated[str | None, typer.Option(metavar="TARGET", help="Target of auto when the --soft share is spent.")]


def _options(
    usd_a_day: UsdADay = None,
    usd_a_month: UsdAMonth = None,
    requests_a_minute: RequestsAMinute = None,
    tokens_a_minute: TokensAMinute = None,
    soft: Soft = None,
    floor: Floor = None,
) -> None:
    """Declares the options: its parameters have the field names of `Limits`."""


def with_limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option for each limit in place of its parameter `limits`, which gets their values."""
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())
    at = list(signature.parameters).index("limits")
    options = list(inspect.signature(_options, eval_str=True).parameters.values())

    def command_with_options(**values: Any) -> None:
        command(limits={name: values.pop(name) for name in Limits.__struct_fields__}, **values)

    command_with_options.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own[:at], *options, *own[at + 1 :]]
    )
    command_with_options.__name__, command_with_options.__doc__ = command.__name__, command.__doc__
    return command_with_options
