"""The reference of the settings, from `router/settings.toml`, the file that `router init` writes, and `Settings`."""

from __future__ import annotations

import re
from pathlib import Path

import router.settings
from router.settings import Settings

FILE = Path(router.settings.__file__).with_name("settings.toml")
SETTING = re.compile(r"#([a-z_]+) = (.*)")
TABLE = re.compile(r"#(\[+[a-z].*)")
HEAD = """# Settings

Every setting is a variable of the environment or a line of `router.toml` in the folder where the router starts. The
environment takes precedence. `router init` writes a commented `router.toml`; `router doctor` checks what is set.

This page is generated from the file that `router init` writes.
"""


def page() -> str:
    """The page, in Markdown."""
    blocks = [block for block in FILE.read_text(encoding="utf-8").split("\n\n")[1:] if block.strip()]
    parts = [HEAD]
    for block in blocks:
        lines = block.strip().splitlines()
        if any(SETTING.fullmatch(line) or TABLE.fullmatch(line) for line in lines):
            parts.append(_block(lines))
        else:
            parts.append(f"## {' '.join(_words(lines))}\n")
    return "\n".join(parts)


def _block(lines: list[str]) -> str:
    """One setting, or a table with all that it may hold."""
    parts, words, table = [], [], ""
    for line in lines:
        if found := TABLE.fullmatch(line):
            table = found[1]
            parts += [
                f"### `{table}`\n",
                " ".join(_words(words)) + "\n",
                "| name | meaning | value |\n| --- | --- | --- |",
            ]
            words = []
        elif found := SETTING.fullmatch(line):
            meaning = " ".join(_words(words))
            words = []
            if table:
                parts.append(f"| `{found[1]}` | {meaning} | `{found[2]}` |")
            else:
                parts.append(_setting(found[1], found[2], meaning))
        else:
            words.append(line)
    return "\n".join([*parts, ""])


def _setting(name: str, value: str, meaning: str) -> str:
    heading = f"### `{variable(name)}` {{ #{name} }}\n"
    return f"{heading}\n{meaning}\n\n```toml\n{name} = {value}\n```\n"


def variable(name: str) -> str:
    """The variable of the environment that sets a setting.

    >>> variable("home"), variable("openai_api_key")
    ('ROUTER_HOME', 'OPENAI_API_KEY')
    """
    alias = Settings.model_fields[name].validation_alias
    return str(alias).upper() if alias else f"ROUTER_{name}".upper()


def _words(lines: list[str]) -> list[str]:
    return [line.removeprefix("#").strip() for line in lines]
