"""`python -m router learnt`: what models refused, what is done about it, and how to forget it."""

from __future__ import annotations

import sys
import time

import msgspec
from rich.console import Console
from rich.table import Table

from router.adaptation.lessons import FILE, LessonsError, describe_lesson, forget_model, read_lessons
from router.settings import SettingsError, load

_COLUMNS = ("model", "upstream", "endpoint", "parameter", "done", "since")


def show(model: str, *, as_data: bool) -> None:
    """Print the lessons, or forget those of `model`.

    Raises:
        SettingsError: their file is damaged, or nothing was learnt of the model.
    """
    path, now = load().home / FILE, time.time()
    try:
        if model:
            count = forget_model(path, model, now) if path.exists() else 0
            if not count:
                raise SettingsError(f"nothing was learnt of {model!r}; `python -m router learnt` lists what was")
            sys.stderr.write(f"router: {count} refusals of {model} are forgotten; a running router follows\n")
            return
        told = [describe_lesson(lesson) for lesson in read_lessons(path, now)]
    except LessonsError as error:
        raise SettingsError(f"{error}; remove it") from None
    if as_data:
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        return
    table = Table(*_COLUMNS)
    for each in told:
        table.add_row(*(each[name] for name in _COLUMNS))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
