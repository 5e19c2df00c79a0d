"""Pictures of pages and terminals, taken with Chromium."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from browser import Browser

SCALE = 1.5
COLUMNS = 100  # of the terminal
MARGIN = 8  # CSS pixels around a part of a page
_TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 18px 22px; background: #15181e; width: fit-content; }}
pre {{ margin: 0; color: #e6e6e6; font: 15px/1.35 "DejaVu Sans Mono", monospace; }}
{stylesheet}</style><pre>{code}</pre>"""


@contextmanager
def opened(url: str, width: int, *, dark: bool = False) -> Iterator[Browser]:
    """A browser that shows `url` in a window of `width` CSS pixels."""
    browser = Browser()
    try:
        browser.look(width, 900, dark=dark, scale=SCALE)
        browser.open(url)
        yield browser
    finally:
        browser.close()


def save(browser: Browser, path: Path, first: str = "body", last: str = "") -> None:
    """Save the part of the page from the element `first` to `last` as PNG."""
    script = f"""(() => {{
      const first = document.querySelector({first!r}).getBoundingClientRect();
      const last = document.querySelector({last or first!r}).getBoundingClientRect();
      const left = Math.min(first.left, last.left), right = Math.max(first.right, last.right);
      return [left + scrollX, first.top + scrollY, right - left, last.bottom - first.top];
    }})()"""
    left, top, width, height = browser.evaluate(script)
    margin = 0 if first == "body" and not last else MARGIN
    clip = {
        "x": max(left - margin, 0),
        "y": max(top - margin, 0),
        "width": width + (0 if first == "body" else 2 * margin),
        "height": height + 2 * margin,
        "scale": 1,
    }
    browser.save_screenshot(path, clip)


def save_terminal(path: Path, command: str, output: str) -> None:
    """Save a command and its output, which may have ANSI colours, as a terminal shows them."""
    with tempfile.NamedTemporaryFile("w", suffix=".html") as page, Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=COLUMNS + 10, file=nowhere)
        console.print(Text(f"$ {command}"))
        console.print(Text.from_ansi(output.rstrip()))
        page.write(console.export_html(code_format=_TERMINAL))
        page.flush()
        with opened(f"file://{page.name}", 1200) as browser:
            save(browser, path)
