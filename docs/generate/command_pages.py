"""The reference of the commands, from their typer applications."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from calibration.__main__ import app as calibration
from router.__main__ import app as router

ROOT = Path(__file__).parent.parent.parent
HEAD = """# Commands

`router` serves and inspects. `calibration` measures models and writes policies. Both run as modules, too:
`python -m router` and `python -m calibration`.

This page is generated from the commands themselves.
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [HEAD]
    for name, app in (("router", router), ("calibration", calibration)):
        parts += [f"## {name}\n", f"{app.info.help}\n"]
        for path, command in commands(typer.main.get_command(app), name):
            parts.append(section(path, command))
    return "\n".join(parts)


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The commands below a command, each with the words that call it."""
    for name, each in getattr(command, "commands", {}).items():
        if hasattr(each, "commands"):
            yield from commands(each, f"{path} {name}")
        else:
            yield f"{path} {name}", each


def section(path: str, command: Any) -> str:
    """What a command does, its arguments and options, and its examples."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each not in arguments and "--help" not in each.opts]
    usage = " ".join([path, "[OPTIONS]" if options else "", *(f"[{each.name.upper()}]" for each in arguments)])
    parts = [
        f"### {path}\n",
        f"{inspect.cleandoc(command.help or '')}\n",
        f"```console\n$ {' '.join(usage.split())}\n```\n",
    ]
    rows = [f"| `{each.name.upper()}` | {_cell(each)} | {_default(each)} |" for each in arguments]
    rows += [f"| {_names(each)} | {_cell(each)} | {_default(each)} |" for each in options]
    if rows:
        parts += ["| option | meaning | default |\n| --- | --- | --- |", *rows, ""]
    if command.epilog:
        lines = [line.strip() for line in command.epilog.splitlines() if line.strip().startswith("python")]
        parts += ["```console", *(f"$ {line}" for line in lines), "```\n"]
    return "\n".join(parts)


def _names(option: Any) -> str:
    """How an option is written, with what stands for its value."""
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag:
        return names
    value = (option.metavar or option.opts[0].rpartition("-")[2].upper()).replace("|", "\\|")
    return f"{names} `{value}`" + (" (repeatable)" if option.multiple else "")


def _cell(parameter: Any) -> str:
    return escaped(getattr(parameter, "help", "") or "")


def _default(parameter: Any) -> str:
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return escaped(shown)
    value = parameter.default
    if value is True:
        return f"`{parameter.opts[0]}`"
    if parameter.required:
        return "required"
    if not isinstance(value, (str, int, float, Path)) or value in ("", False):
        return ""
    value = value.relative_to(ROOT) if isinstance(value, Path) and value.is_relative_to(ROOT) else value
    return f"`{escaped(str(value))}`"


def escaped(text: str) -> str:
    """A text as a cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
