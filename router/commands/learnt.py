"""`python -m router learnt`: list or delete the adaptations learned from refused requests."""

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
    """Print the lessons, or delete those of `model`.

    Raises:
        SettingsError: the file is damaged, or there are no lessons for the model.
    """
    path, now = load().home / FILE, time.time()
    try:
        if model:
            count = forget_model(path, model, now) if path.exists() else 0
            if not count:
                raise SettingsError(f"no adaptations are stored for {model!r}; `python -m router learnt` lists them")
            noun = "adaptation" if count == 1 else "adaptations"
            sys.stderr.write(
                f"router: deleted {count} {noun} for {model}; a running router follows within two seconds\n"
            )
            return
        lessons = [describe_lesson(lesson) for lesson in read_lessons(path, now)]
    except LessonsError as error:
        raise SettingsError(f"{error}; remove it") from None
    if as_data:
        sys.stdout.write(msgspec.json.encode(lessons).decode() + "\n")
        return
    table = Table(*_COLUMNS)
    for lesson in lessons:
        table.add_row(*(lesson[name] for name in _COLUMNS))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
